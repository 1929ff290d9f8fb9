package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// grower is a server whose throughput is measured at a place of a curve.
type grower struct {
	name   string
	server *process
	row    *row
	proto  protocol
	ledger *ledger // for what is acknowledged; nil: a peer
}

// measure adds a place to the curves: each server's rate, in turn and over and
// over, and its memory while it has its connections.
func (l *long) measure(ctx context.Context, s *sweep, x float64, conns int, servers ...grower) error {
	fmt.Fprintf(os.Stderr, "%s: %s\n", s.name, s.unit(x))
	for round := range l.rounds {
		for _, to := range rotate(servers, round) {
			if to.server == nil { // not installed
				continue
			}
			if err := l.sample(ctx, s, x, conns, to); err != nil {
				return fmt.Errorf("%s: %s: %w", s.unit(x), to.name, err)
			}
		}
	}
	return nil
}

func (l *long) sample(ctx context.Context, s *sweep, x float64, conns int, to grower) error {
	g, err := newGenerator(to.server.addr, conns, to.proto)
	if err != nil {
		return err
	}
	defer g.close()
	got, err := g.run(ctx, pace{d: 2 * l.seconds}, to.row.anyID)
	if err != nil {
		return err
	}
	if got.answers == 0 {
		return errors.New("no answer at all")
	}
	if to.ledger != nil {
		to.ledger.acknowledged += int64(got.answers)
	}
	s.addRate(x, to.name, float64(got.answers)/got.took.Seconds())
	m, err := residentOf(to.server.pid())
	s.memory[swept{x, to.name}] = m.all
	return err
}

// fill writes the ids after from, up to to, in order.
func fill(ctx context.Context, p *process, proto protocol, from, to int) error {
	if from >= to {
		return nil
	}
	_, err := loadWith(ctx, p.addr, 512, proto, pace{n: to - from}, func(i int) int { return from + i + 1 })
	return err
}

// peers are an empty handler and a Redis, which may be nil, under dir.
func (l *long) peers(ctx context.Context, dir string) (bare, peer *process, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	if bare, err = start(ctx, listening, self, "-serve-empty", "127.0.0.1:0"); err != nil {
		return nil, nil, err
	}
	peer, err = startRedis(ctx, dir)
	return bare, peer, err
}

// ourRow is the row's work for our server, once all of its ids are there.
func ourRow(ctx context.Context, s *server, r *row) (grower, error) {
	l := s.ledger(r)
	l.acknowledged += int64(r.ids)
	return grower{ours, s.process, r, overHTTP(r), l}, fill(ctx, s.process, overHTTP(r), 0, r.ids)
}

// check kills the server and looks whether all of the row is there.
func (l *long) check(ctx context.Context, s *server, r *row) error {
	l.kills++
	return s.checkAfterKill(ctx, r)
}

func (l *long) connections(ctx context.Context, dir string) error {
	s, err := newServer(ctx, l.server, dir)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	bare, peer, err := l.peers(ctx, dir)
	defer bare.kill()
	defer peer.kill()
	if err != nil {
		return err
	}
	r := &row{name: "connections", method: "POST", acc: "many", api: "sequence", ids: l.keys}
	mine, err := ourRow(ctx, s, r)
	if err != nil {
		return err
	}
	curve := newSweep("connections", thousands, 4, "A POST on a sequence, over "+thousands(float64(r.ids))+" ids.", ours, empty, redis)
	for _, conns := range []int{1, 4, 16, 64, 256, 1024, 4096} {
		err := l.measure(ctx, curve, float64(conns), conns, mine,
			grower{empty, bare, r, overHTTP(r), nil}, grower{redis, peer, r, overRedis(r), nil})
		if err != nil {
			return err
		}
	}
	l.sweeps = append(l.sweeps, curve)
	return l.check(ctx, s, r)
}

func (l *long) valueSize(ctx context.Context, dir string) error {
	s, err := newServer(ctx, l.server, dir)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	peer, err := startRedis(ctx, dir)
	defer peer.kill()
	if err != nil {
		return err
	}
	const conns = 16
	curve := newSweep("value size", bytesShort, 1024, fmt.Sprintf("Values are set, over %d connections.", conns), ours, redis)
	curve.columns = []string{"MiB of values a second"}
	for _, size := range []int{1, 64, 1 << 10, 16 << 10, 256 << 10, 1 << 20, 8 << 20} {
		r := &row{name: "values of " + bytesShort(float64(size)), method: "POST", acc: fmt.Sprint("size", size), api: "kv",
			ids: min(1000, 128<<20/size), value: size}
		mine, err := ourRow(ctx, s, r)
		if err != nil {
			return err
		}
		x := float64(size)
		if err := l.measure(ctx, curve, x, conns, mine, grower{redis, peer, r, overRedis(r), nil}); err != nil {
			return err
		}
		curve.more[x] = []string{strconv.FormatFloat(summarize(curve.rates[swept{x, ours}]).median*x/(1<<20), 'f', 2, 64)}
		if err := l.check(ctx, s, r); err != nil {
			return err
		}
	}
	l.sweeps = append(l.sweeps, curve)
	return nil
}

func (l *long) logSize(ctx context.Context, dir string) error {
	s, err := newServer(ctx, l.server, dir)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	const conns = 64
	small := &row{name: "log size", method: "POST", acc: "small", api: "kv", ids: 1000, value: 64}
	large := &row{method: "POST", acc: "large", api: "kv", value: 64 << 10}
	if _, err := ourRow(ctx, s, small); err != nil {
		return err
	}
	curve := newSweep("log size", bytesShort, 4, fmt.Sprintf("Values of 64 bytes are set, over %s ids and %d connections, beside values of 64 KiB that nobody\n"+
		"touches and that make up the log. The start is after kill -9.", thousands(float64(small.ids)), conns), ours)
	curve.columns = []string{"start"}
	filled := 0
	for mib := 16; mib <= l.logMiB; mib *= 4 {
		ids := mib << 20 / large.value
		if err := fill(ctx, s.process, overHTTP(large), filled, ids); err != nil {
			return err
		}
		filled = ids
		x := float64(mib << 20)
		if err := l.measure(ctx, curve, x, conns, grower{ours, s.process, small, overHTTP(small), s.ledger(small)}); err != nil {
			return err
		}
		if err := l.check(ctx, s, small); err != nil {
			return err
		}
		curve.more[x] = []string{inSeconds(s.took)}
	}
	l.sweeps = append(l.sweeps, curve)
	return nil
}

func (l *long) cores(ctx context.Context, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	const conns = 256
	curve := newSweep("cores", short, 2, fmt.Sprintf("GOMAXPROCS of our server and of the empty handler; the load has all cores. A POST on a sequence, over %s ids\n"+
		"and %d connections.", thousands(float64(l.keys)), conns), ours, empty)
	for procs := 1; procs <= max(2, runtime.NumCPU()); procs *= 2 {
		env := fmt.Sprint("GOMAXPROCS=", procs)
		err := l.withProcs(ctx, filepath.Join(dir, env), env, self, func(s *server, bare *process) error {
			r := &row{name: env, method: "POST", acc: "many", api: "sequence", ids: l.keys}
			mine, err := ourRow(ctx, s, r)
			if err != nil {
				return err
			}
			if err := l.measure(ctx, curve, float64(procs), conns, mine, grower{empty, bare, r, overHTTP(r), nil}); err != nil {
				return err
			}
			return l.check(ctx, s, r)
		})
		if err != nil {
			return err
		}
	}
	l.sweeps = append(l.sweeps, curve)
	return nil
}

// withProcs runs our server and the empty handler with an environment variable.
func (l *long) withProcs(ctx context.Context, dir, env, self string, do func(s *server, bare *process) error) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	s, err := newServer(ctx, l.server, dir)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	if err := s.stop(); err != nil {
		return err
	}
	s.command = append([]string{"env", env}, s.command...) // env becomes the server: the process is the same
	if err := s.start(ctx); err != nil {
		return err
	}
	bare, err := start(ctx, listening, "env", env, self, "-serve-empty", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer bare.kill()
	return do(s, bare)
}
