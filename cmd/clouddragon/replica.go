package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml/ast"

	"clouddragon/db"
	"clouddragon/handlers"
	"clouddragon/internal/disk"
	"clouddragon/internal/front"
	"clouddragon/internal/replica"
	"clouddragon/internal/systemd"
	"clouddragon/metrics"
)

// lockGrace is added to the ends of locks at a promotion, because the clocks of two machines
// differ.
const lockGrace = 5 * time.Second

// serverReader appends one item of a list of addresses.
func serverReader(to *[]string) reader {
	return func(d *document, path string, n ast.Node) error {
		var s string
		if err := text(&s, func(s string) error { return errors.Join(notEmpty(s), checkServer(s)) })(d, path, n); err != nil {
			return err
		}
		*to = append(*to, s)
		return nil
	}
}

// promoteDrain is how long active requests of a standby may take once it is promoted.
const promoteDrain = 300 * time.Millisecond

// standbyLock is the lock file of a standby, locked for as long as it runs. The data
// directory's own lock is released when the standby closes the directory.
const standbyLock = "REPLICA.lock"

func checkServer(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("%q is not the address of a server: want http://HOST:PORT or https://HOST:PORT", s)
	}
	return nil
}

// checkReplica refuses a standby that its primary could not reach.
func (c *Config) checkReplica(d *document) error {
	at := "replica.of"
	if len(c.Cluster.Etcd) > 0 {
		if at = "cluster.etcd"; c.Replica.Of != "" {
			return d.fault(d.at["replica.of"], "replica.of and cluster.etcd are both set: with cluster.etcd the server finds the primary by itself")
		}
		if c.Cluster.Name == "" {
			return d.fault(d.at[at], "cluster.etcd is set without cluster.name: give each server its own name")
		}
		if _, name := c.clusterPrefix(); name == "" {
			return d.fault(d.at["cluster.name"], "cluster.name: %q has no name after the prefix: want PREFIX/NAME", c.Cluster.Name)
		}
	} else if c.Cluster.Name != "" { // alone, it would be a second primary
		return d.fault(d.at["cluster.name"], "cluster.name is set without cluster.etcd: set cluster.etcd to the addresses of etcd's members")
	} else if c.Replica.Of == "" {
		if at := d.at["replica.sync"]; at != nil && c.Replica.Sync {
			return d.fault(at, "replica.sync is set without replica.of: set replica.of to the address of the primary")
		}
		return nil
	}
	if of := strings.TrimRight(c.Replica.Of, "/"); of != "" && of == c.address(c.Listen) {
		return d.fault(d.at[at], "replica.of: %s is this server itself: set it to the address of the primary", c.Replica.Of)
	}
	if c.Advertise != "" {
		return nil
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		return d.fault(d.at[at], at+": the other server cannot reach this one at listen: %s: set advertise to its address, such as http://10.0.0.2:8081", c.Listen)
	}
	return nil
}

// address returns the address of this server for others. bound is where it listens.
func (c *Config) address(bound string) string {
	switch {
	case c.Advertise != "":
		return strings.TrimRight(c.Advertise, "/")
	case strings.HasPrefix(c.Listen, "unix:"):
		return "" // other machines cannot reach it
	case c.Cert != "":
		return "https://" + bound
	}
	return "http://" + bound
}

// replicaToken returns the token that has full access to the primary.
func (c *Config) replicaToken() string {
	if c.Replica.Token != "" {
		return c.Replica.Token
	}
	return c.Token
}

// database returns the options for opening the data directory.
func (c *Config) database(fsys disk.FS, log *slog.Logger, files int) db.Options {
	return db.Options{
		FS:           fsys,
		Dir:          c.Data,
		Who:          fmt.Sprintf("clouddragon, pid %d, listen %s", os.Getpid(), c.Listen),
		Segment:      c.Segment,
		LeastSegment: c.leastSegment(),
		CompactRatio: 1 + float64(c.Garbage)/100,
		BackupHold:   c.Backup.Hold,
		Files:        files,
		Waiters:      c.Limits.Waiters,
		Watchers:     c.Limits.Watchers,
		Accounts:     c.Accounts,
		Log:          log,
	}
}

// keptOpen is a listener whose Close interrupts Accept but leaves the socket open, so that
// no client is refused while the server changes its role.
type keptOpen struct {
	net.Listener
	closed chan struct{}
}

// deadliner is a listener whose Accept can be interrupted.
type deadliner interface{ SetDeadline(time.Time) error }

func (k keptOpen) Accept() (net.Conn, error) {
	c, err := k.Listener.Accept()
	select {
	case <-k.closed:
		if err == nil {
			err = c.Close()
		}
		return nil, errors.Join(net.ErrClosed, err)
	default:
		return c, err
	}
}

func (k keptOpen) Close() error {
	close(k.closed)
	return k.Listener.(deadliner).SetDeadline(time.Now())
}

// serveStandby follows the primary until a signal stops it or it is promoted. After a
// promotion again is true, and env has the socket.
func serveStandby(fsys disk.FS, c Config, env *environment, a *access) (code int, again bool) {
	log := env.log
	of, err := shareDescriptors()
	if err != nil {
		log.Error("cannot share the descriptors", "err", err)
		return exitFailed, false
	}
	if !env.bind(c) {
		return exitFailed, false
	}
	if err := env.socket.(deadliner).SetDeadline(time.Time{}); err != nil {
		log.Error("cannot listen", "err", err)
		return exitFailed, false
	}
	own := c.address(bound(env.socket))
	name, err := c.serverName()
	if err == nil {
		err = fsys.MkdirAll(c.Data)
	}
	if err == nil {
		var lock io.Closer
		if lock, err = lockStandby(fsys, c.Data, own); lock != nil {
			defer lock.Close() // the kernel releases it in any case
		}
	}
	var sb *replica.Standby
	if err == nil {
		sb, err = replica.NewStandby(replica.StandbyOptions{
			FS: fsys, Of: strings.TrimRight(c.Replica.Of, "/"), Token: a.replicaToken, Sync: c.Replica.Sync,
			URL: own, Name: name, Elected: env.elector != nil, Open: c.database(fsys, log, of.segments), Log: log,
		})
	}
	if err != nil {
		log.Error("cannot be a standby", "err", err)
		return exitFailed, false
	}
	x := &standbyServer{sb: sb, c: c, a: a, env: *env}
	x.peers = sb.Handler()
	x.bare = x.without()
	s := &http.Server{
		Handler:           x,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(newRare(log.Handler()), slog.LevelWarn),
		Protocols:         new(http.Protocols),
		ConnContext:       front.ConnContext,
		ConnState:         front.ConnState,
	}
	s.Protocols.SetHTTP1(true)
	kept := keptOpen{env.socket, make(chan struct{})}
	l := front.NewListener(kept, front.Options{Max: of.connections, TLS: a.tlsConfig(), Plain: true})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	log.Info("listening", "addr", bound(env.socket), "role", "standby", "of", c.Replica.Of, "sync", c.Replica.Sync, "data", c.Data, "version", versionText())
	env.systemd.tell("READY=1", systemd.Status("standby of %s", c.Replica.Of))
	a.watch(*env)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	followed := make(chan error, 1)
	go func() { followed <- sb.Run(ctx) }()
	wait := true
	select {
	case <-sb.Promoted:
		again = true
	case <-env.elector.otherThan(ctx, c.Replica.Of):
		again = true
	case got := <-env.stop:
		env.systemd.tell("STOPPING=1", systemd.Status("stopping"))
		log.Info("stopping", "signal", got)
		leave, done := context.WithTimeout(ctx, drainTime/2)
		if err := sb.Leave(leave); err != nil {
			log.Warn("the primary does not know that its standby stops; with sync it answers no write until the standby is back, or until it is promoted to continue alone", "err", err)
		}
		done()
	case err := <-followed:
		log.Error("the standby cannot continue", "err", err)
		code, wait = exitFailed, false
	case err := <-ended:
		log.Error("cannot accept connections", "err", err)
		code = exitFailed
		ended <- err
	}
	cancel()
	limit := drainTime / 2
	if again { // the sender may be a hung primary, and clients wait for the new one
		limit = promoteDrain
	}
	end, done := context.WithTimeout(context.Background(), limit)
	defer done()
	if err := s.Shutdown(end); err != nil {
		log.Warn("closing connections", "err", errors.Join(err, s.Close()))
	}
	<-ended // it closes the listener last, which interrupts Accept
	if wait {
		if err := <-followed; err != nil {
			log.Error("closing the data directory", "err", err)
			return exitFailed, false
		}
	}
	if !again {
		log.Info("stopped")
		return code, false
	}
	if env.ahead = sb.Ahead(); env.ahead > lockGrace {
		log.Info("locks are held longer here, because this server's database time is ahead of the primary's", "by", env.ahead.Round(time.Millisecond))
	}
	return exitOK, true
}

func lockStandby(fsys disk.FS, dir, own string) (io.Closer, error) {
	l, ok := fsys.(disk.Locker)
	if !ok {
		return nil, nil
	}
	return l.Lock(dir+"/"+standbyLock, fmt.Sprintf("clouddragon standby, pid %d, listen %s", os.Getpid(), own))
}

// standbyServer answers the requests to a standby.
type standbyServer struct {
	sb    *replica.Standby
	c     Config
	a     *access
	env   environment
	peers http.Handler
	bare  http.Handler // the routes below /replica/, and all others while there is no data

	mu   sync.Mutex // guards made
	made standbyHandler
}

// standbyHandler answers reads from one opened database.
type standbyHandler struct {
	of *db.DB
	h  http.Handler
}

func (x *standbyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	front.Begin(r)
	switch {
	case replica.IsFromPrimary(r.URL.Path):
		x.peers.ServeHTTP(w, r)
	case strings.HasPrefix(r.URL.Path, "/replica/"):
		x.bare.ServeHTTP(w, r)
	case !x.sb.Read(func(d *db.DB) { x.handler(d).ServeHTTP(w, r) }):
		x.bare.ServeHTTP(w, r)
	}
}

// without returns the handler that needs no data.
func (x *standbyServer) without() http.Handler {
	return handlers.New(handlers.Options{
		Tokens: &x.a.tokens,
		Role:   func() handlers.Role { return handlers.Standby },
		Admit: func(write, stale bool) error {
			return &replica.AwayError{Primary: x.sb.Primary(), NoData: true}
		},
		Peers: x.peers,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "the standby does not follow its primary yet", http.StatusServiceUnavailable)
		}),
		Log: x.env.log,
	})
}

// handler returns the handler that answers from d.
func (x *standbyServer) handler(d *db.DB) http.Handler {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.made.of == d {
		return x.made.h
	}
	m := metrics.New(versionText(), apiNames())
	m.Watch(sources(x.c.Data, d, x.env.dropped, x.sb.Status))
	l := x.c.Limits
	x.made = standbyHandler{d, handlers.New(handlers.Options{
		DB:      d,
		Tokens:  &x.a.tokens,
		Limits:  handlers.Limits{Value: l.Value, Dur: l.Dur, Wait: l.Wait, Batch: l.Batch, Replay: l.Replay, Backup: x.c.Backup.Time},
		Program: versionText(),
		Role:    func() handlers.Role { return handlers.Standby },
		Admit: func(write, stale bool) error {
			if stale {
				return nil
			}
			return &replica.AwayError{Primary: x.sb.Primary(), Follows: true}
		},
		Metrics: m.Handler(),
		Observe: func(api handlers.API, method string, code int, took time.Duration) {
			m.Request(int(api), method, code, took)
		},
		Log: x.env.log,
	})}
	return x.made.h
}
