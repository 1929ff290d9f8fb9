package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// startTime is how long a start takes with so many ids.
type startTime struct {
	what, how string
	ids       int
	took      time.Duration
}

// startAgain measures starts, and looks each time whether all ids are there.
func (l *long) startAgain(ctx context.Context, m *many) error {
	stop := func(s *server) error { return s.stop() }
	kill := func(s *server) error { s.kill(); return nil }
	rebuild := func(s *server) error {
		return errors.Join(s.stop(), os.Remove(filepath.Join(s.data, "index")))
	}
	for _, again := range []struct {
		name, how string
		s         *server
		r         *row
		end       func(*server) error
	}{
		{kvSet, "after kill -9", m.values, m.kv, kill},
		{kvSet, "after a clean stop", m.values, m.kv, stop},
		{kvSet, "after a clean stop, without the snapshot of the index", m.values, m.kv, rebuild},
		{seqPost, "after kill -9", m.sequences, m.seq, kill},
		{seqPost, "after a clean stop", m.sequences, m.seq, stop},
	} {
		fmt.Fprintf(os.Stderr, "%s: start %s\n", again.name, again.how)
		if err := again.end(again.s); err != nil {
			return err
		}
		if err := again.s.start(ctx); err != nil {
			return err
		}
		l.starts = append(l.starts, startTime{again.name, again.how, m.ids, again.s.took})
		if err := again.s.hasAll(ctx, again.r); err != nil {
			return fmt.Errorf("%s: %s: %w", again.name, again.how, err)
		}
	}
	l.kills += 2
	if m.redis == nil {
		return nil
	}
	m.redis.kill()
	began := time.Now()
	var err error
	if m.redis, err = startRedis(ctx, m.redisDir); err != nil {
		return err
	}
	l.starts = append(l.starts, startTime{redisSet, "after kill -9", m.ids, time.Since(began)})
	return nil
}

// looked is how many ids hasAll asks for.
const looked = 100_000

// hasAll looks whether the ids of a row are there: it counts values, and asks for
// as many ids, all over, as there is time for.
func (s *server) hasAll(ctx context.Context, r *row) error {
	if r.api == "kv" {
		keys, err := s.metric("clouddragon_kv_keys")
		if err != nil {
			return err
		}
		if int(keys) != r.ids {
			return fmt.Errorf("%.0f values are there, want %d", keys, r.ids)
		}
	}
	step := max(1, r.ids/looked)
	return forEach(ctx, s.addr, 16, r.ids/step, "GET", func(i int) string { return r.path(i * step) }, "", func(_ int, a answer) error {
		if !a.ok() {
			return refusal(a)
		}
		if r.value > 0 && len(a.body) != r.value {
			return fmt.Errorf("the value has %d bytes, want %d", len(a.body), r.value)
		}
		return nil
	})
}

func (l *long) startsTable(b *strings.Builder) {
	if len(l.starts) == 0 {
		return
	}
	line := table(b, "Start with many ids", "ids", "of", "start", "until it serves")
	for _, s := range l.starts {
		line(thousands(float64(s.ids)), s.what, s.how, inSeconds(s.took))
	}
}

func inSeconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
