package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// memory is what many ids cost.
type memory struct {
	ids            int
	empty, filled  resident
	anew           resident // after kill -9 and a restart
	fill, recovery time.Duration
}

// resident is what of a process is in memory, in bytes. The mapped tables are
// in all, but not in own: the kernel takes them back when it needs room.
type resident struct {
	all, own int64
}

// measureMemory fills a server of its own with ids of a sequence.
func measureMemory(ctx context.Context, binary, dir string, ids int) (_ *memory, err error) {
	if dir, err = os.MkdirTemp(dir, "memory"); err != nil {
		return nil, err
	}
	s, err := newServer(ctx, binary, dir)
	if err != nil {
		return nil, err
	}
	defer func() { s.kill() }()
	m := &memory{ids: ids}
	if m.empty, err = residentOf(s.pid()); err != nil {
		return nil, err
	}
	r := &row{name: "memory", method: "POST", acc: "memory", api: "sequence", ids: ids}
	began := time.Now()
	if err := s.fill(ctx, r); err != nil {
		return nil, err
	}
	m.fill = time.Since(began)
	if m.filled, err = residentOf(s.pid()); err != nil {
		return nil, err
	}
	s.kill()
	began = time.Now()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	m.recovery = time.Since(began)
	m.anew, err = residentOf(s.pid())
	return m, err
}

func residentOf(pid int) (m resident, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return resident{}, err
	}
	if m.all, err = statusField(status, "VmRSS"); err != nil {
		return resident{}, err
	}
	if m.own, err = statusField(status, "RssAnon"); err != nil {
		return resident{}, err
	}
	return resident{m.all << 10, m.own << 10}, nil
}

func (m *memory) write(b *strings.Builder) {
	if m == nil {
		return
	}
	line := table(b, fmt.Sprintf("Memory at %s ids of a sequence", thousands(float64(m.ids))),
		"", "in all (RSS)", "without the mapped tables", "took")
	cells := func(what string, r resident, took string) {
		line(what, mib(r.all), mib(r.own), took)
	}
	cells("empty", m.empty, none)
	cells("filled", m.filled, m.fill.Round(time.Millisecond).String())
	cells("after kill -9 and a restart", m.anew, m.recovery.Round(time.Millisecond).String())
	fmt.Fprintf(b, "\nFilled, an id takes %d bytes in all, %d without the mapped tables.\n",
		(m.filled.all-m.empty.all)/int64(m.ids), (m.filled.own-m.empty.own)/int64(m.ids))
}

func mib(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }
