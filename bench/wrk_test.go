package main

import (
	"strings"
	"testing"
	"time"
)

const wrkOutput = `Running 12s test @ http://127.0.0.1:18999/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.21ms    3.52ms  24.90ms   88.85%
    Req/Sec    12.08k     2.65k   16.19k    66.67%
  14589 requests in 611.72ms, 1.64MB read
  Non-2xx or 3xx responses: 9
Requests/sec:  23849.22
Transfer/sec:      2.68MB
summary answers=14589 refused=9 broken=2 took=611718 p50=2322 p99=17666 p999=24696
`

func TestWrkRefusalsAreNotCountedAsAnswers(t *testing.T) {
	got, err := parseWrk([]byte(wrkOutput))
	if err != nil {
		t.Fatal(err)
	}
	want := load{
		answers: 14580, refused: 9, broken: 2, took: 611718 * time.Microsecond,
		p50: 2322 * time.Microsecond, p99: 17666 * time.Microsecond, p999: 24696 * time.Microsecond,
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestWrkWithoutSummaryIsAnError(t *testing.T) {
	for _, out := range []string{"", "unable to connect to 127.0.0.1:1 Connection refused\n",
		strings.Replace(wrkOutput, "took=611718", "took=", 1)} {
		if l, err := parseWrk([]byte(out)); err == nil {
			t.Errorf("parseWrk(%q) = %+v, want an error", out, l)
		}
	}
}
