package main

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/handlers"
	"clouddragon/metrics"
)

// BenchmarkPost serves durable sequence POSTs over 100,000 ids in this process,
// as cmd/clouddragon does, with wrk for a load: so that -cpuprofile tells where
// the server's time goes, and nothing else's. An operation is a second of load.
// make profile runs it.
func BenchmarkPost(b *testing.B) {
	if _, err := exec.LookPath("wrk"); err != nil {
		b.Skip("wrk is not installed")
	}
	addr := serveInProcess(b)
	load := &bench{options: options{threads: 2}, dir: b.TempDir()}
	r := rows(100_000)[1]
	for _, conns := range r.conns {
		b.Run(fmt.Sprint(conns), func(b *testing.B) {
			var answers int
			var took time.Duration
			for b.Loop() {
				load.scripts++
				l, err := load.wrk(b.Context(), addr, r.script(load.scripts), conns, time.Second)
				if err != nil {
					b.Fatal(err)
				}
				answers += l.answers
				took += l.took
			}
			b.ReportMetric(float64(answers)/took.Seconds(), "answers/s")
		})
	}
}

func serveInProcess(tb testing.TB) (addr string) {
	var apis []string
	for a := handlers.Other; a <= handlers.Metrics; a++ {
		apis = append(apis, a.String())
	}
	m := metrics.New("bench", apis)
	d, err := db.Open(db.Options{
		Dir:      tb.TempDir(),
		OnCommit: func(c db.Commit) { m.Commit(c.Operations, c.Bytes, c.Sync) },
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
	s := newHTTPServer(handlers.New(handlers.Options{
		DB: d,
		Observe: func(api handlers.API, method string, code int, took time.Duration) {
			m.Request(int(api), method, code, took)
		},
	}))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
		if err := <-ended; err != http.ErrServerClosed {
			tb.Error(err)
		}
	})
	return l.Addr().String()
}
