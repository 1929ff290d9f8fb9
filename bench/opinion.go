package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// secondOpinion asks wrk and redis-benchmark for the same work: what they find
// should be near to what the row of our own generator says.
func secondOpinion() *row {
	const conns = 64
	return &row{"sequence POST, one id, by wrk and redis-benchmark", conns, requests, one.spoken(), func(ctx context.Context, b *bench, t *target) (measured, error) {
		host, port, err := net.SplitHostPort(t.addr)
		if err != nil {
			return measured{}, err
		}
		args := []string{"redis-benchmark", "-h", host, "-p", port, "-c", strconv.Itoa(conns), "-n", "20000", "--csv", "-t", "incr"}
		want := regexp.MustCompile(`(?m)^"INCR","([0-9.]+)"`)
		if t.speak == "http" {
			script := filepath.Join(b.dir, "post.lua")
			if err := os.WriteFile(script, []byte("wrk.method = 'POST'\n"), 0o600); err != nil {
				return measured{}, err
			}
			args = []string{"wrk", "-t", "1", "-c", strconv.Itoa(conns), "-d", "1s", "-s", script, "http://" + t.addr + "/db/one/sequence/1"}
			want = regexp.MustCompile(`(?m)^Requests/sec: +([0-9.]+)$`)
		}
		if _, err := exec.LookPath(args[0]); err != nil {
			return measured{}, errCannot
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.SysProcAttr = childAttr()
		out, err := cmd.CombinedOutput()
		if err != nil {
			return measured{}, fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
		m := want.FindSubmatch(out)
		if m == nil || bytes.Contains(out, []byte("Non-2xx")) {
			return measured{}, fmt.Errorf("%s says:\n%s", args[0], out)
		}
		rate, err := strconv.ParseFloat(string(m[1]), 64)
		return measured{figures: []float64{rate}}, err
	}}
}
