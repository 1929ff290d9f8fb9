package main

import (
	"strings"
	"testing"
	"time"
)

const redisOutput = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"INCR","40000.00","1.061","0.384","1.007","1.783","2.559","3.055"
`

func TestRedisFiguresAreFoundByTheirNames(t *testing.T) {
	got, err := parseRedis([]byte(redisOutput), 20_000)
	if err != nil {
		t.Fatal(err)
	}
	want := load{answers: 20_000, took: 500 * time.Millisecond, p50: 1007 * time.Microsecond, p99: 2559 * time.Microsecond}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRedisOutputWithoutFiguresIsAnError(t *testing.T) {
	for _, out := range []string{
		"",
		"Could not connect to Redis at 127.0.0.1:1: Connection refused\n",
		strings.Replace(redisOutput, "40000.00", "0", 1),
		strings.Replace(redisOutput, "40000.00", "nothing", 1),
		strings.Replace(redisOutput, "p99_latency_ms", "p98_latency_ms", 1),
	} {
		if l, err := parseRedis([]byte(out), 1); err == nil {
			t.Errorf("parseRedis(%q) = %+v, want an error", out, l)
		}
	}
}
