package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// keyMemory is what so many ids take.
type keyMemory struct {
	what  string
	ids   int
	rss   resident
	heap  int64   // of the Go runtime; 0: Redis has none
	bytes float64 // of RSS for each id
}

// many are the servers that are filled with ids, step by step.
type many struct {
	values, sequences *server
	redis             *process // nil: not installed
	redisDir          string
	kv, seq           *row
	empty             map[string]int64 // RSS before the first id
	ids               int
}

const (
	kvSet    = "kv set 64 B"
	seqPost  = "sequence POST"
	redisSet = "Redis SET 64 B"
)

// ids measures throughput and memory as the ids grow in number, and at the end
// how long a start takes.
func (l *long) ids(ctx context.Context, dir string) (err error) {
	m := &many{
		redisDir: filepath.Join(dir, "redis"),
		kv:       &row{name: "values", method: "POST", acc: "keys", api: "kv", value: 64},
		seq:      &row{name: "sequences", method: "POST", acc: "keys", api: "sequence"},
		empty:    map[string]int64{},
	}
	defer m.kill()
	if err := m.start(ctx, l.server, dir); err != nil {
		return err
	}
	const conns = 256
	curve := newSweep("ids", short, 10, fmt.Sprintf("Over %d connections and all ids that there are.", conns), kvSet, seqPost, redisSet)
	for _, ids := range idSteps(l.most) {
		if err := m.fill(ctx, ids); err != nil {
			return fmt.Errorf("%d ids: fill: %w", ids, err)
		}
		err := l.measure(ctx, curve, float64(ids), conns,
			grower{kvSet, m.values.process, m.kv, overHTTP(m.kv), nil},
			grower{seqPost, m.sequences.process, m.seq, overHTTP(m.seq), nil},
			grower{redisSet, m.redis, m.kv, overRedis(m.kv), nil})
		if err != nil {
			return err
		}
		if ids >= 1_000_000 || ids == l.most {
			if err := l.remember(m); err != nil {
				return err
			}
		}
	}
	l.sweeps = append([]*sweep{curve}, l.sweeps...)
	return l.startAgain(ctx, m)
}

// idSteps are the numbers of ids that are measured.
func idSteps(most int) (steps []int) {
	for n := 1; n < most; n *= 10 {
		if n != 10 && n != 100 { // they tell nothing more than 1 and 1,000
			steps = append(steps, n)
		}
	}
	return append(steps, most)
}

func (m *many) start(ctx context.Context, binary, dir string) (err error) {
	for _, at := range []struct {
		s    **server
		name string
	}{{&m.values, kvSet}, {&m.sequences, seqPost}} {
		dir := filepath.Join(dir, at.name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		s, err := newServer(ctx, binary, dir)
		if err != nil {
			return err
		}
		*at.s = s
		r, err := residentOf(s.pid())
		if err != nil {
			return err
		}
		m.empty[at.name] = r.all
	}
	if err := os.Mkdir(m.redisDir, 0o700); err != nil {
		return err
	}
	if m.redis, err = startRedis(ctx, m.redisDir); err != nil || m.redis == nil {
		return err
	}
	r, err := residentOf(m.redis.pid())
	m.empty[redisSet] = r.all
	return err
}

func (m *many) kill() {
	for _, s := range []*server{m.values, m.sequences} {
		if s != nil {
			s.kill()
		}
	}
	m.redis.kill()
}

// fill writes new ids until there are so many.
func (m *many) fill(ctx context.Context, ids int) error {
	err := fill(ctx, m.values.process, overHTTP(m.kv), m.ids, ids)
	if err == nil {
		err = fill(ctx, m.sequences.process, overHTTP(m.seq), m.ids, ids)
	}
	if err == nil && m.redis != nil {
		err = fill(ctx, m.redis, overRedis(m.kv), m.ids, ids)
	}
	m.ids, m.kv.ids, m.seq.ids = ids, ids, ids
	return err
}

// remember notes the memory of all that is filled.
func (l *long) remember(m *many) error {
	for _, of := range []struct {
		name string
		s    *server
		p    *process
	}{{kvSet, m.values, m.values.process}, {seqPost, m.sequences, m.sequences.process}, {redisSet, nil, m.redis}} {
		if of.p == nil {
			continue
		}
		k := keyMemory{what: of.name, ids: m.ids}
		var err error
		if k.rss, err = residentOf(of.p.pid()); err != nil {
			return err
		}
		if of.s != nil {
			heap, err := of.s.metric("go_memstats_heap_inuse_bytes")
			if err != nil {
				return err
			}
			k.heap = int64(heap)
		}
		k.bytes = float64(k.rss.all-m.empty[of.name]) / float64(m.ids)
		l.ram = append(l.ram, k)
	}
	return nil
}

func (l *long) ramTable(b *strings.Builder) {
	if len(l.ram) == 0 {
		return
	}
	line := table(b, "Memory of many ids", "ids", "of", "RSS", "without mapped files", "Go heap in use", "bytes an id")
	for _, k := range l.ram {
		heap := none
		if k.heap > 0 {
			heap = mib(k.heap)
		}
		line(thousands(float64(k.ids)), k.what, mib(k.rss.all), mib(k.rss.own), heap, fmt.Sprintf("%.1f", k.bytes))
	}
	b.WriteString("\nRight after the load, so that garbage of its requests is in it. The bytes an id are of the RSS, less that of the empty server.\n")
}
