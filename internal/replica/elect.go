package replica

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"clouddragon/internal/boottime"
)

// Two keys in etcd decide which server is the primary:
//
//	PREFIX/leader   the primary's name, address and epoch. The key expires with the primary's lease
//	PREFIX/config   the epoch, and the names of the servers that have every acknowledged write
//
// A server becomes the primary in one transaction. Its conditions are that there is no leader,
// that the configuration has not changed since it was read, and that it lists the server as having
// every write. The transaction increments the epoch and leaves only the new primary in the list.
// A standby is added to the list after the primary has begun to wait for it with every write. The
// primary stops waiting only after the standby was removed from the list.

// Elector takes part in the election of the primary. Its methods may be called by any
// goroutine.
type Elector struct {
	o    ElectorOptions
	etcd *etcd
	// Changed receives a token whenever the primary changes.
	Changed chan struct{}

	mu     sync.Mutex // guards what follows
	known  bool       // etcd has been read since the start
	leader Leader     // as last read from etcd; zero: none
	mine   string     // the value of the key leader while this server is the primary
	lease  int64
	until  time.Duration // on boottime's clock: the lease is certainly valid before this
	config clusterConfig
	rev    *etcdKey // the configuration as it was read
	term   term     // while this server is the primary
	open   bool     // a Primary has the database open and may answer
	why    error    // why etcd did not answer the last time
}

// ElectorOptions configure an Elector.
type ElectorOptions struct {
	Etcd   []string // addresses of etcd's members
	Prefix string   // of the keys
	Name   string   // of this server; unique in the cluster
	URL    string   // its address
	Lease  time.Duration
	State  func() (State, error) // reads this server's role from disk
	// Fit fails if this server must not be elected: see the function Fit.
	Fit func(isNew bool) error
	Log *slog.Logger
}

// Leader is the primary according to etcd.
type Leader struct {
	Name, URL string
	Epoch     uint64
	Nonce     string // distinguishes elections
}

type clusterConfig struct {
	Epoch  uint64
	InSync []string // names of the servers that have every acknowledged write
}

// NewElector returns an Elector. Call Run to take part in the election.
func NewElector(o ElectorOptions) *Elector {
	return &Elector{o: o, etcd: newEtcd(o.Etcd, o.Lease/3), Changed: make(chan struct{}, 1)}
}

func (e *Elector) leaderKey() string { return e.o.Prefix + "/leader" }
func (e *Elector) configKey() string { return e.o.Prefix + "/config" }

// LeaseError is returned when the server cannot tell whether it is still the primary.
type LeaseError struct{ Why error }

func (e *LeaseError) Error() string {
	if e.Why != nil {
		return fmt.Sprintf("the server does not know whether it is still the primary, as etcd does not answer: try again (%v)", e.Why)
	}
	return "the server does not know whether it is still the primary: try again"
}

// Admit returns a *LeaseError unless this server is certainly the primary right now.
func (e *Elector) Admit() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mine != "" && boottime.Now() < e.until {
		return nil
	}
	return &LeaseError{}
}

// Primary returns the primary as last read from etcd, and whether it is this server. known is
// false until etcd has been read.
func (e *Elector) Primary() (l Leader, mine, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leader, e.mine != "", e.known
}

// Run takes part in the election until ctx ends, and then revokes the lease.
func (e *Elector) Run(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		err := e.step(ctx)
		e.note(err)
		pause := e.o.Lease / 12
		if e.isMine() {
			pause = e.o.Lease / 4
		}
		select {
		case <-time.After(max(pause-time.Since(began), 10*time.Millisecond)):
		case <-ctx.Done():
		}
	}
	e.mu.Lock()
	lease := e.lease
	e.mine, e.lease = "", 0
	e.mu.Unlock()
	if lease != 0 {
		last, cancel := context.WithTimeout(context.Background(), e.o.Lease)
		defer cancel()
		if err := e.etcd.revoke(last, lease); err != nil {
			e.o.Log.Warn("the lease in etcd could not be revoked; the next primary is elected when it expires", "err", err)
		}
	}
}

func (e *Elector) isMine() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mine != ""
}

func (e *Elector) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var unfit, was *unfitError
	switch {
	case errors.As(err, &unfit):
		if !errors.As(e.why, &was) || was.Error() != err.Error() {
			e.o.Log.Error("there is no primary, and this server cannot be elected", "err", err)
		}
	case err != nil:
		if e.why == nil || errors.As(e.why, &was) {
			e.o.Log.Warn("etcd does not answer", "err", err)
		}
	case e.why != nil && !errors.As(e.why, &was):
		e.o.Log.Info("etcd answers again")
	}
	e.why = err
}

// unfitError says why this server must not be elected.
type unfitError struct{ error }

// step renews the lease if this server is the primary. Otherwise it reads who the primary is,
// and campaigns if there is none and this server is eligible.
func (e *Elector) step(ctx context.Context) error {
	if e.isMine() {
		err := e.renew(ctx)
		if !errors.Is(err, errLeaseGone) {
			return err
		}
		e.lost()
	}
	found, err := e.etcd.read(ctx, e.leaderKey(), e.configKey())
	if err != nil {
		return err
	}
	var l Leader
	if found[0] != nil {
		if err := json.Unmarshal(found[0].Value, &l); err != nil {
			return fmt.Errorf("the key %s: %w", e.leaderKey(), err)
		}
	}
	var c clusterConfig
	if found[1] != nil {
		if err := json.Unmarshal(found[1].Value, &c); err != nil {
			return fmt.Errorf("the key %s: %w", e.configKey(), err)
		}
	}
	e.mu.Lock()
	e.config, e.rev = c, found[1]
	e.mu.Unlock()
	e.set(l)
	// A leader of this server's name is this server before a restart, with a lease that has not
	// expired.
	switch {
	case l.Name != "" && l.Name != e.o.Name:
		return nil
	case found[1] != nil && !slices.Contains(c.InSync, e.o.Name):
		return &unfitError{fmt.Errorf("it may lack writes, because etcd names only %s as having all of them: start that server", strings.Join(c.InSync, ", "))}
	}
	return e.campaign(ctx, found[0], found[1], c)
}

// renew extends the lease. The new term counts from before the request was sent, which is
// earlier than etcd's own count.
func (e *Elector) renew(ctx context.Context) error {
	sent := boottime.Now()
	e.mu.Lock()
	lease, mine := e.lease, e.mine
	e.mu.Unlock()
	if err := e.etcd.keep(ctx, lease); err != nil {
		return err
	}
	found, err := e.etcd.read(ctx, e.leaderKey())
	if err != nil {
		return err
	}
	if found[0] == nil || string(found[0].Value) != mine {
		return errLeaseGone
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.until = sent + e.o.Lease
	return nil
}

// lost notes that this server is no longer the primary.
func (e *Elector) lost() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mine, e.lease, e.until = "", 0, 0
	e.o.Log.Warn("the lease in etcd has expired: nothing is answered until this server is elected again or follows another one")
}

// set stores the primary and signals Changed if it is another one.
func (e *Elector) set(l Leader) {
	e.mu.Lock()
	defer e.mu.Unlock()
	changed := !e.known || l != e.leader
	e.known, e.leader = true, l
	if changed {
		select {
		case e.Changed <- struct{}{}:
		default:
		}
	}
}

// campaign tries to become the primary.
func (e *Elector) campaign(ctx context.Context, leader, config *etcdKey, c clusterConfig) error {
	s, err := e.o.State()
	if err != nil {
		return err
	}
	if config == nil && !s.Primary {
		return nil // etcd has no configuration yet, and a standby may lack writes
	}
	if err := e.o.Fit(config == nil); err != nil {
		return &unfitError{err} // leave it to the other server, which may have every write too
	}
	sent := boottime.Now()
	lease, err := e.etcd.grant(ctx, e.o.Lease)
	if err != nil {
		return err
	}
	nonce := make([]byte, 8)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	next := clusterConfig{Epoch: max(c.Epoch, s.Epoch) + 1, InSync: []string{e.o.Name}}
	l := Leader{Name: e.o.Name, URL: e.o.URL, Epoch: next.Epoch, Nonce: hex.EncodeToString(nonce)}
	value, err := json.Marshal(l)
	if err != nil {
		return err
	}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	won, err := e.etcd.change(ctx,
		[]condition{{key: e.leaderKey(), was: leader}, {key: e.configKey(), was: config}},
		[]put{{e.leaderKey(), string(value), lease}, {e.configKey(), string(text), 0}})
	if err != nil || !won {
		if err == nil {
			err = e.etcd.revoke(ctx, lease)
		}
		return err // the next step reads who has won, which may be this server
	}
	e.mu.Lock()
	e.mine, e.lease, e.until, e.config = string(value), lease, sent+e.o.Lease, next
	e.rev, e.term = nil, term{before: c.InSync, wrote: string(text), used: e.open}
	e.mu.Unlock()
	e.o.Log.Info("elected: this server is the primary", "epoch", next.Epoch)
	e.set(l)
	return nil
}

// Add records in etcd that a standby has every acknowledged write. The primary calls it after
// it has begun to wait for the standby with every write.
func (e *Elector) Add(ctx context.Context, name string) error {
	return e.reconfigure(ctx, func(in []string) []string {
		if slices.Contains(in, name) {
			return in
		}
		return append(in, name)
	})
}

// Remove records in etcd that a standby may lack writes from now on.
func (e *Elector) Remove(ctx context.Context, name string) error {
	return e.reconfigure(ctx, func(in []string) []string {
		return slices.DeleteFunc(in, func(s string) bool { return s == name })
	})
}

// errNotLeader is returned when another server has become the primary.
var errNotLeader = errors.New("this server is not the primary any more")

// reconfigure changes the list of servers that have every acknowledged write, provided that
// this server is still the primary.
func (e *Elector) reconfigure(ctx context.Context, change func([]string) []string) error {
	e.mu.Lock()
	mine := e.mine
	e.mu.Unlock()
	if mine == "" {
		return errNotLeader
	}
	found, err := e.etcd.read(ctx, e.configKey())
	if err != nil {
		return err
	}
	var c clusterConfig
	if found[0] == nil || json.Unmarshal(found[0].Value, &c) != nil {
		return fmt.Errorf("the key %s does not hold what this server wrote", e.configKey())
	}
	next := clusterConfig{Epoch: c.Epoch, InSync: change(slices.Clone(c.InSync))}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	done, err := e.etcd.change(ctx,
		[]condition{{key: e.leaderKey(), value: mine}, {key: e.configKey(), was: found[0]}},
		[]put{{e.configKey(), string(text), 0}})
	if err == nil && !done {
		err = errNotLeader
	}
	if err == nil {
		e.mu.Lock()
		e.config = next
		e.mu.Unlock()
	}
	return err
}

// InSync returns the servers that have every acknowledged write, as last read from etcd.
func (e *Elector) InSync() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.config.InSync)
}
