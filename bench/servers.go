package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// target is a server that is measured.
type target struct {
	name  string
	speak string // http, resp or etcd
	start func(ctx context.Context, dir string) (*process, error)
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

// targets lists what there is to measure: the peers where they are installed.
func (o options) targets() ([]*target, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	all := []*target{{name: ours, speak: "http", start: startOurs(o.server)}}
	if o.before != "" {
		all = append(all, &target{name: before, speak: "http", start: startOurs(o.before)})
	}
	all = append(all, &target{name: empty, speak: "http", start: func(ctx context.Context, _ string) (*process, error) {
		return start(ctx, listening, self, "-serve-empty", "127.0.0.1:0")
	}})
	for _, peer := range []struct {
		program string
		target
	}{
		{"redis-server", target{name: redis, speak: "resp", start: startRedis}},
		{"etcd", target{name: etcd, speak: "etcd", start: startEtcd}},
	} {
		if _, err := exec.LookPath(peer.program); err == nil {
			all = append(all, &peer.target)
		} else {
			fmt.Fprintf(os.Stderr, "%s is not installed and will not be compared\n", peer.program)
		}
	}
	return all, nil
}

// listening is in the line that our server and the empty one write once they serve.
var listening = regexp.MustCompile(`listening.*?(127\.0\.0\.1:\d+)`)

func startOurs(binary string) func(context.Context, string) (*process, error) {
	return func(ctx context.Context, dir string) (*process, error) {
		config := filepath.Join(dir, "config.yml")
		text := fmt.Sprintf("listen: 127.0.0.1:0\ndata: %q\n", filepath.Join(dir, "data"))
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, err
		}
		return start(ctx, listening, binary, "-config", config)
	}
}

// startRedis runs a Redis that answers a write once it is on disk, and writes no
// snapshots and no smaller log beside the load.
func startRedis(ctx context.Context, dir string) (*process, error) {
	addr, port, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, regexp.MustCompile(`Ready to accept connections`), "redis-server",
		"--bind", "127.0.0.1", "--port", port, "--dir", dir, "--tcp-backlog", "4096", "--maxclients", "20000",
		"--appendonly", "yes", "--appendfsync", "always", "--save", "", "--auto-aof-rewrite-percentage", "0")
	if err == nil {
		p.addr = addr
	}
	return p, err
}

// startEtcd runs an etcd of one member.
func startEtcd(ctx context.Context, dir string) (*process, error) {
	addr, _, err := freeAddr()
	if err != nil {
		return nil, err
	}
	peer, _, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, regexp.MustCompile(`(?i)serving (?:insecure )?client (?:requests|traffic)`), "etcd",
		"--name", "bench", "--data-dir", filepath.Join(dir, "data"),
		"--listen-client-urls", "http://"+addr, "--advertise-client-urls", "http://"+addr,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "bench=http://"+peer)
	if err == nil {
		p.addr = addr
	}
	return p, err
}

// freeAddr returns a loopback address that nobody listens on, for programs that
// cannot choose a port by themselves.
func freeAddr() (addr, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	addr = l.Addr().String()
	_, port, err = net.SplitHostPort(addr)
	return addr, port, errors.Join(err, l.Close())
}

// newHTTPServer returns a server with the settings of cmd/clouddragon, since
// each of them has its price.
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

var (
	emptyType   = []string{"text/plain; charset=utf-8"}
	emptyAnswer = []byte("1\n")
)

// emptyHandler answers as the first POST on a sequence does, without any work:
// it is the ceiling of every server that uses net/http.
func emptyHandler(w http.ResponseWriter, _ *http.Request) {
	w.Header()["Content-Type"] = emptyType
	w.Write(emptyAnswer) // an error means that the client is gone
}

// serveEmpty serves the empty handler until ctx ends.
func serveEmpty(ctx context.Context, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := newHTTPServer(http.HandlerFunc(emptyHandler))
	defer context.AfterFunc(ctx, func() { s.Close() })()
	fmt.Fprintln(os.Stderr, "listening", l.Addr())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// cpu is how much CPU time a process has used, in itself and in the kernel for it.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
	if err != nil {
		return 0, err
	}
	return parseCPU(stat)
}

// parseCPU adds the fields 14 and 15 of /proc/PID/stat, in ticks of 10 ms. The
// second field is the program's name and may hold anything.
func parseCPU(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from the third on
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat is too short: %q", stat)
	}
	user, err := strconv.Atoi(string(fields[11]))
	if err != nil {
		return 0, fmt.Errorf("/proc/PID/stat: %w", err)
	}
	system, err := strconv.Atoi(string(fields[12]))
	if err != nil {
		return 0, fmt.Errorf("/proc/PID/stat: %w", err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

// memory is the resident memory of a process, in bytes.
func (p *process) memory() (float64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid()))
	if err != nil {
		return 0, err
	}
	var size, resident int
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return 0, fmt.Errorf("/proc/PID/statm: %w", err)
	}
	return float64(resident) * float64(os.Getpagesize()), nil
}
