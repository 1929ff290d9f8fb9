package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// listening is in the line that the server, and the empty one, write once they
// serve; the group is the address.
var listening = regexp.MustCompile(`listening.*?(127\.0\.0\.1:\d+)`)

// server is clouddragon, its data directory, and what it acknowledged so far.
type server struct {
	*process
	command      []string      // that starts it
	data         string        // its directory
	took         time.Duration // the last start
	acknowledged map[*row]*ledger
}

// ledger is what is known of a row's ids without asking the server.
type ledger struct {
	acknowledged int64 // writes that were answered
	unanswered   int64 // at most so many more were on their way when a load ended
}

// newServer starts the server on an empty data directory under dir, with more
// lines of config.yml.
func newServer(ctx context.Context, binary, dir string, more ...string) (*server, error) {
	config := filepath.Join(dir, "config.yml")
	s := &server{command: []string{binary, "-config", config}, data: filepath.Join(dir, "data"), acknowledged: map[*row]*ledger{}}
	lines := append([]string{"listen: 127.0.0.1:0", fmt.Sprintf("data: %q", s.data), ""}, more...)
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		return nil, err
	}
	return s, s.start(ctx)
}

func (s *server) start(ctx context.Context) (err error) {
	began := time.Now()
	s.process, err = start(ctx, listening, s.command[0], s.command[1:]...)
	s.took = time.Since(began)
	return err
}

// metric is one that the server tells of itself.
func (s *server) metric(name string) (float64, error) {
	a, err := ask(s.addr, "GET", "/metrics", "")
	if err != nil {
		return 0, err
	}
	if !a.ok() {
		return 0, refusal(a)
	}
	return parseMetric(a.body, name)
}

func parseMetric(text []byte, name string) (float64, error) {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("/metrics has no %s", name)
}

func (s *server) ledger(r *row) *ledger {
	l := s.acknowledged[r]
	if l == nil {
		l = new(ledger)
		s.acknowledged[r] = l
	}
	return l
}

// serves asks for the row's work once. The error says what came instead.
func (s *server) serves(r *row) error {
	path := r.path(1)
	if r.unlock != "" {
		path = fmt.Sprintf("/db/%s/%s/probe?dur=1", r.acc, r.api)
	}
	a, err := ask(s.addr, "POST", path, r.body())
	if err != nil {
		return err
	}
	if !a.ok() {
		return refusal(a)
	}
	if r.counted() {
		s.ledger(r).acknowledged++
	}
	return nil
}

// fill writes each id of the row once, so that no measurement is of new ones.
func (s *server) fill(ctx context.Context, r *row) error {
	err := forEach(ctx, s.addr, 64, r.ids, "POST", r.path, r.body(), func(_ int, a answer) error {
		if !a.ok() {
			return refusal(a)
		}
		return nil
	})
	if err == nil && r.counted() {
		s.ledger(r).acknowledged += int64(r.ids)
	}
	return err
}

// checkAfterKill ends the server with kill -9, starts it again and compares
// what is there with what was acknowledged.
func (s *server) checkAfterKill(ctx context.Context, r *row) error {
	s.kill()
	if err := s.start(ctx); err != nil {
		return err
	}
	var sum, newest atomic.Int64
	err := forEach(ctx, s.addr, 16, r.ids, "GET", r.path, "", func(_ int, a answer) error {
		if !a.ok() {
			return refusal(a)
		}
		if r.api == "kv" {
			return newer(&newest, a, r.value)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(a.body)), 10, 64)
		sum.Add(n)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s, after kill -9: %w", r.name, err)
	}
	return s.ledger(r).check(r, sum.Load(), newest.Load())
}

// newer keeps the newest version in newest.
func newer(newest *atomic.Int64, a answer, size int) error {
	if len(a.body) != size {
		return fmt.Errorf("the value has %d bytes, want %d", len(a.body), size)
	}
	version, err := strconv.ParseInt(a.version, 10, 64)
	for err == nil {
		old := newest.Load()
		if version <= old || newest.CompareAndSwap(old, version) {
			break
		}
	}
	return err
}

// check says whether all that was acknowledged is there. Each write of a
// sequence or a counter raised the sum of their values by one. Each write of a
// value took a version of its own, so the newest is not under their number.
func (l *ledger) check(r *row, sum, newest int64) error {
	switch {
	case r.api == "kv" && newest < l.acknowledged:
		return fmt.Errorf("%s, after kill -9: %d writes were acknowledged, but the newest version is %d: a write is lost", r.name, l.acknowledged, newest)
	case r.api != "kv" && sum < l.acknowledged:
		return fmt.Errorf("%s, after kill -9: %d writes were acknowledged, but the values add up to %d: writes are lost", r.name, l.acknowledged, sum)
	case r.api != "kv" && sum > l.acknowledged+l.unanswered:
		return fmt.Errorf("%s, after kill -9: %d writes were acknowledged and at most %d more were on their way, but the values add up to %d: a write is in there twice",
			r.name, l.acknowledged, l.unanswered, sum)
	}
	return nil
}
