package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"clouddragon/internal/disk"
	"clouddragon/internal/replica"
	"clouddragon/internal/systemd"
)

// elector is the server's part in the election of the primary. nil: there is no election.
type elector struct{ *replica.Elector }

func (e *elector) election() *replica.Elector {
	if e == nil {
		return nil
	}
	return e.Elector
}

// giveBack lets another server be elected if this one ends before it has served as the primary.
func (e *elector) giveBack(ctx context.Context, limit time.Duration, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := e.GiveBack(ctx); err != nil {
		log.Warn("etcd names this server as the only one with every write, although it has not served: only this server can be elected", "err", err)
	}
}

// otherThan returns a channel that is closed once the primary is this server or one at
// another address. Without an election it is nil.
func (e *elector) otherThan(ctx context.Context, primary string) <-chan struct{} {
	if e == nil {
		return nil
	}
	other := make(chan struct{})
	go func() {
		for {
			l, mine, _ := e.Primary()
			if mine || l.URL != "" && l.URL != primary {
				close(other)
				return
			}
			select {
			case <-e.Changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return other
}

// bind listens, unless the server already does.
func (env *environment) bind(c Config) bool {
	if env.socket != nil {
		return true
	}
	var err error
	if env.socket, err = listen(c.Listen, c.Socket); err != nil {
		env.systemd.tell(systemd.Status("cannot listen: %v", err))
		env.log.Error("cannot listen", "err", err)
		return false
	}
	return true
}

// clusterPrefix is the prefix of the keys in etcd, and the name of this server.
func (c *Config) clusterPrefix() (prefix, name string) {
	prefix, name = "default", c.Cluster.Name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		prefix, name = name[:i], name[i+1:]
	}
	return "clouddragon/" + prefix, name
}

// serverName returns the name of the server for other servers. It is unique.
func (c *Config) serverName() (string, error) {
	dir, err := filepath.Abs(c.Data)
	host, err2 := os.Hostname()
	name := host + ":" + dir
	if _, of := c.clusterPrefix(); of != "" {
		name = of + "@" + name
	}
	return name, errors.Join(err, err2)
}

// serveCluster is the primary while etcd says so, and a standby of the primary otherwise.
func serveCluster(fsys disk.FS, c Config, env environment, a *access) int {
	log := env.log
	if !env.bind(c) {
		return exitFailed
	}
	if strings.HasSuffix(c.Listen, ":0") {
		c.Listen = bound(env.socket) // the same when it is bound again
	}
	name, err := c.serverName()
	if err = errors.Join(err, fsys.MkdirAll(c.Data)); err != nil {
		log.Error("cannot take part in the cluster", "err", err)
		return exitFailed
	}
	prefix, _ := c.clusterPrefix()
	e := &elector{replica.NewElector(replica.ElectorOptions{
		Etcd: c.Cluster.Etcd, Prefix: prefix, Name: name, URL: c.address(bound(env.socket)),
		State: func() (replica.State, error) { return replica.ReadState(fsys, c.Data) },
		Fit:   func(isNew bool) error { return replica.Fit(fsys, c.Data, isNew) },
		Lease: c.Cluster.Lease, Log: log,
	})}
	env.elector = e
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		e.Run(ctx)
	}()
	// The lease is released once nothing more is answered.
	defer func() { <-over }()
	defer cancel()
	defer e.giveBack(ctx, c.Cluster.Lease, log)
	select { // there may be a primary
	case <-e.Changed:
	case <-time.After(c.Cluster.Lease):
	}
	for {
		leader, mine, _ := e.Primary()
		code, again := 0, false
		if mine {
			state, err := replica.BecomePrimary(fsys, c.Data, leader.Epoch)
			if err != nil {
				log.Error("cannot become the primary", "err", err)
				return exitFailed
			}
			code, again = servePrimary(fsys, c, env, a, state)
			env.socket = nil // it is closed
		} else {
			c.Replica = Replica{Of: leader.URL, Token: c.Replica.Token, Sync: true}
			code, again = serveStandby(fsys, c, &env, a)
		}
		if !again {
			return code
		}
	}
}
