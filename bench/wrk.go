package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// load is what a load generator counted.
type load struct {
	answers        int           // good ones
	refused        int           // answers of 400 and above
	broken         int           // connections that failed, and timeouts
	took           time.Duration // of all
	p50, p99, p999 time.Duration // 0: the generator does not tell
}

// wrk loads an address for a time over conns connections with the script, and
// returns an error where an answer was not a good one: a rate that counts
// refusals says nothing.
func (b *bench) wrk(ctx context.Context, addr, script string, conns int, d time.Duration) (load, error) {
	file := filepath.Join(b.dir, "load.lua")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		return load{}, err
	}
	threads := min(conns, b.threads)
	// wrk counts in whole seconds; it ends early, with its summary, on SIGINT.
	whole := strconv.Itoa(int(d/time.Second)+10) + "s"
	var out bytes.Buffer
	cmd := exec.Command("wrk", "-t", strconv.Itoa(threads), "-c", strconv.Itoa(conns),
		"-d", whole, "--timeout", "20s", "-s", file, "http://"+addr+"/")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = childAttr()
	if err := cmd.Start(); err != nil {
		return load{}, err
	}
	done := make(chan error, 1) // gets how wrk ended, and is closed
	go func() {
		done <- cmd.Wait()
		close(done)
	}()
	err := interruptAfter(ctx, cmd.Process.Pid, done, d)
	if err != nil {
		cmd.Process.Kill() // an error means that it has ended
		<-done
		return load{}, fmt.Errorf("wrk: %w: %s", err, out.Bytes())
	}
	l, err := parseWrk(out.Bytes())
	if err != nil {
		return load{}, err
	}
	if l.refused > 0 || l.broken > 0 {
		return load{}, fmt.Errorf("wrk on %s: of %d answers %d were refusals, and %d connections failed: the script is\n%s",
			addr, l.answers+l.refused, l.refused, l.broken, script)
	}
	return l, nil
}

// interruptAfter ends wrk after a time and returns how it ended. The time
// begins once wrk catches the signal, which is when its load begins.
func interruptAfter(ctx context.Context, pid int, done <-chan error, d time.Duration) error {
	for began := false; ; {
		wait := time.Millisecond
		if began {
			wait = d
		}
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
		if began {
			if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
				return err
			}
			return <-done
		}
		var err error
		if began, err = catches(pid, syscall.SIGINT); err != nil {
			return err
		}
	}
}

// wrkDone is the part of each script that writes what parseWrk reads.
const wrkDone = `
function done(s, latency, requests)
  local e = s.errors
  io.write(string.format("summary answers=%d refused=%d broken=%d took=%d p50=%d p99=%d p999=%d\n",
    s.requests, e.status, e.connect + e.read + e.write + e.timeout, s.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
`

var wrkSummary = regexp.MustCompile(
	`(?m)^summary answers=(\d+) refused=(\d+) broken=(\d+) took=(\d+) p50=(\d+) p99=(\d+) p999=(\d+)$`)

// parseWrk reads the line that wrkDone wrote. Times are in µs.
func parseWrk(out []byte) (load, error) {
	m := wrkSummary.FindSubmatch(out)
	if m == nil {
		return load{}, fmt.Errorf("wrk: no summary in its output:\n%s", out)
	}
	var n [7]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(string(m[i+1])); err != nil {
			return load{}, fmt.Errorf("wrk: %w in %q", err, m[0])
		}
	}
	micros := func(n int) time.Duration { return time.Duration(n) * time.Microsecond }
	return load{
		answers: n[0] - n[1], refused: n[1], broken: n[2], took: micros(n[3]),
		p50: micros(n[4]), p99: micros(n[5]), p999: micros(n[6]),
	}, nil
}
