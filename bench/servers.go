package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// target is a server that is measured.
type target struct {
	name, speak, program string
	args                 func(dir, addr string) []string
	dir                  string // for its data
	addr                 string
	more                 string // lines of config.yml
	*process
}

// The targets' names, which are the columns of the report.
const (
	ours   = "clouddragon"
	before = "before"
	empty  = "empty handler"
	redis  = "Redis"
	etcd   = "etcd"
)

// targets returns the servers to measure. Peers that are not installed are left out.
func (o options) targets() []*target {
	all := []*target{
		{name: ours, speak: "http", program: o.server, args: configured},
		{name: before, speak: "http", program: o.before, args: configured},
		{name: empty, speak: "http", program: "/proc/self/exe", args: func(_, addr string) []string { return []string{"-serve-empty", addr} }},
		{name: redis, speak: "resp", program: "redis-server", args: redisArgs},
		{name: etcd, speak: "etcd", program: "etcd", args: etcdArgs},
	}
	return slices.DeleteFunc(all, func(t *target) bool {
		if t.program == "" || o.without.MatchString(t.name) {
			return true
		}
		_, err := exec.LookPath(t.program)
		missing := errors.Is(err, exec.ErrNotFound) // in PATH; if our own binary is missing, starting it fails
		if missing {
			fmt.Fprintf(os.Stderr, "%s is not installed and will not be compared\n", t.program)
		}
		return missing
	})
}

// configured returns our server's arguments.
func configured(dir, addr string) []string {
	return []string{"-config", filepath.Join(dir, "config.yml")}
}

// redisArgs start a Redis that answers a write once it is on disk. It neither writes snapshots
// nor compacts its log during the load.
func redisArgs(dir, addr string) []string {
	host, port, _ := net.SplitHostPort(addr)
	return []string{"--bind", host, "--port", port, "--dir", dir, "--tcp-backlog", "4096", "--maxclients", "20000",
		"--appendonly", "yes", "--appendfsync", "always", "--save", "", "--auto-aof-rewrite-percentage", "0"}
}

// etcdArgs start an etcd with one member and room for many keys.
func etcdArgs(dir, addr string) []string {
	const nobody = "http://127.0.0.1:1"
	return []string{"--name", "bench", "--data-dir", filepath.Join(dir, "data"), "--quota-backend-bytes", "17179869184",
		"--listen-client-urls", "http://" + addr, "--advertise-client-urls", "http://" + addr,
		"--listen-peer-urls", "http://127.0.0.1:0", "--initial-advertise-peer-urls", nobody, "--initial-cluster", "bench=" + nobody}
}

// start starts another server of the target's kind, with its own directory.
func (b *bench) start(ctx context.Context, t *target) (*target, error) {
	dir, err := os.MkdirTemp(b.dir, "server-")
	if err != nil {
		return nil, err
	}
	started := *t
	started.dir = dir
	return &started, started.launch(ctx)
}

// launch starts the server, or starts it again after it has ended.
func (t *target) launch(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0") // finds a free address
	if err != nil {
		return err
	}
	t.addr = l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	config := fmt.Sprintf("listen: %s\ndata: %q\n", t.addr, filepath.Join(t.dir, "data")) + t.more
	if err := os.WriteFile(filepath.Join(t.dir, "config.yml"), []byte(config), 0o600); err != nil {
		return err
	}
	t.process, err = start(ctx, t.program, t.args(t.dir, t.addr)...)
	return err
}

// alone runs a measurement on another server of the target's kind, which has nothing else.
func alone(measure measureFunc) measureFunc {
	return func(ctx context.Context, b *bench, t *target) (figures []float64, err error) {
		if t, err = b.start(ctx, t); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, t.end(os.Kill), os.RemoveAll(t.dir)) }()
		return measure(ctx, b, t)
	}
}

// newHTTPServer returns a server with the same settings as in cmd/clouddragon, because each
// of them costs something.
func newHTTPServer(h http.Handler) *http.Server {
	s := &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            10 * time.Second,
		ReadTimeout:                  30 * time.Second,
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               64 << 10,
		DisableGeneralOptionsHandler: true,
		Protocols:                    new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	return s
}

// serveEmpty answers like the first POST on a sequence, but does no work: no server on
// net/http can be faster.
func serveEmpty(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "listening", l.Addr())
	return newHTTPServer(http.HandlerFunc(emptyHandler)).Serve(l)
}

func emptyHandler(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, "1\n") // an error means that the client is gone
}
