package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/db/commit"
	"clouddragon/handlers"
	"clouddragon/internal/front"
	"clouddragon/metrics"
)

// BenchmarkPost serves durable sequence POSTs over 100,000 ids in this process, as
// cmd/clouddragon does. wrk makes the load, so -cpuprofile shows only the server's time. An
// operation is a second of load. make profile runs it.
func BenchmarkPost(b *testing.B) {
	if _, err := exec.LookPath("wrk"); err != nil {
		b.Skip("wrk is not installed")
	}
	addr := serveInProcess(b)
	script := filepath.Join(b.TempDir(), "post.lua")
	text := "function request() return wrk.format('POST', '/db/many/sequence/' .. math.random(100000)) end\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	rate := regexp.MustCompile(`(?m)^Requests/sec: +([0-9.]+)$`)
	for _, conns := range []int{1, 64, 256, 4096} {
		b.Run(fmt.Sprint(conns), func(b *testing.B) {
			var sum float64
			n := 0
			for b.Loop() {
				cmd := exec.CommandContext(b.Context(), "wrk", "-t", "1", "-c", fmt.Sprint(conns), "-d", "1s", "-s", script, "http://"+addr)
				out, err := cmd.CombinedOutput()
				m := rate.FindSubmatch(out)
				if err != nil || m == nil {
					b.Fatalf("wrk: %v: %s", err, out)
				}
				x, err := strconv.ParseFloat(string(m[1]), 64)
				if err != nil {
					b.Fatal(err)
				}
				sum += x
				n++
			}
			b.ReportMetric(sum/float64(n), "answers/s")
		})
	}
}

// observer counts the batches, like the server.
type observer struct{ *metrics.Metrics }

func (o observer) Committed(b commit.Batch)            { o.Commit(b.Calls, b.Bytes, b.Sync) }
func (observer) Waited(db.LockKind, time.Duration)     {}
func (observer) HandedOver(db.LockKind, time.Duration) {}

func serveInProcess(tb testing.TB) (addr string) {
	var apis []string
	for a := handlers.Other; a <= handlers.Metrics; a++ {
		apis = append(apis, a.String())
	}
	m := metrics.New("bench", apis)
	d, err := db.Open(db.Options{
		Dir:      tb.TempDir(),
		Observer: observer{m},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	h := handlers.New(handlers.Options{
		DB: d,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "clouddragon_watchers %d\n", d.Stats().Watch.Watchers)
		}),
		Observe: func(api handlers.API, method string, code int, took time.Duration) {
			m.Request(int(api), method, code, took)
		},
	})
	s := newHTTPServer(h)
	s.ConnContext, s.ConnState = front.ConnContext, front.ConnState
	fl := front.NewListener(l, front.Options{Max: 10_000})
	if err := fl.StartLoops(front.LoopOptions{Plain: handlers.Plain(h), HeaderTime: s.ReadHeaderTimeout, IdleTime: s.IdleTimeout}); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(fl) }()
	tb.Cleanup(func() {
		if err := fl.Close(); err != nil {
			tb.Error(err)
		}
		fl.EndLoops(0)
		if err := s.Close(); err != nil && !errors.Is(err, net.ErrClosed) { // the listener is closed already
			tb.Error(err)
		}
		if err := <-ended; err != http.ErrServerClosed && !errors.Is(err, net.ErrClosed) {
			tb.Error(err)
		}
	})
	return l.Addr().String()
}
