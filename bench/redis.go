package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"math"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// redisReady is in the line that redis-server writes once it serves.
var redisReady = regexp.MustCompile(`Ready to accept connections`)

// startRedis runs a Redis that answers a write only once it is on disk, or
// returns nil where none is installed.
func startRedis(ctx context.Context, dir string) (*process, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, nil
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, redisReady, "redis-server", "--bind", host, "--port", port, "--dir", dir,
		"--tcp-backlog", "4096", // for as many connections at once
		"--appendonly", "yes", "--appendfsync", "always",
		// No snapshots and no rewrites of the log beside the load.
		"--save", "", "--auto-aof-rewrite-percentage", "0")
	if err != nil {
		return nil, err
	}
	p.addr = addr
	return p, nil
}

// freeAddr returns a loopback address that nobody listens on. It is for
// programs that cannot choose a port by themselves.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// redisBenchmark asks n times for what args name, over conns connections.
func redisBenchmark(ctx context.Context, addr string, conns, n int, args ...string) (load, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return load{}, err
	}
	args = append([]string{"-h", host, "-p", port, "-c", strconv.Itoa(conns), "-n", strconv.Itoa(n), "--csv"}, args...)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "redis-benchmark", args...)
	cmd.SysProcAttr = childAttr()
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return load{}, fmt.Errorf("redis-benchmark: %w: %s%s", err, out.Bytes(), stderr.Bytes())
	}
	return parseRedis(out.Bytes(), n)
}

// parseRedis reads what redis-benchmark --csv says of one test of n requests.
func parseRedis(out []byte, n int) (load, error) {
	table, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil || len(table) != 2 {
		return load{}, fmt.Errorf("redis-benchmark: want a line of names and one of figures (%v), got:\n%s", err, out)
	}
	figure := func(name string) float64 {
		for i, column := range table[0] {
			if column != name {
				continue
			}
			f, ferr := strconv.ParseFloat(table[1][i], 64)
			if ferr != nil {
				err = fmt.Errorf("redis-benchmark: %s: %w", name, ferr)
			}
			return f
		}
		err = fmt.Errorf("redis-benchmark: there is no %s in:\n%s", name, out)
		return 0
	}
	rate := figure("rps")
	millis := func(name string) time.Duration {
		return time.Duration(math.Round(figure(name)*1000)) * time.Microsecond
	}
	l := load{answers: n, p50: millis("p50_latency_ms"), p99: millis("p99_latency_ms")}
	if err != nil {
		return load{}, err
	}
	if rate <= 0 {
		return load{}, fmt.Errorf("redis-benchmark: a rate of %v in:\n%s", rate, out)
	}
	l.took = time.Duration(float64(n) / rate * float64(time.Second))
	return l, nil
}
