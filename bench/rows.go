package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"
)

// row is one kind of work, given to each server in turn.
type row struct {
	name    string
	conns   int
	figures []figure
	on      map[string]bool // which ways of speaking can do the work
	run     func(ctx context.Context, b *bench, t *target) (measured, error)
}

// figure is what a row tells.
type figure struct {
	name string
	less bool // is better
}

var requests = []figure{{"requests/s", false}}

// measured is what one measurement of a row found.
type measured struct {
	figures []float64
	cpu     float64 // µs of the server for a request; 0: not measured
}

// work is the same request in each server's protocol.
type work map[string]protocol

func (w work) spoken() map[string]bool {
	on := map[string]bool{}
	for speak := range w {
		on[speak] = true
	}
	return on
}

func sequencePost(account string) work {
	return work{"http": overHTTP("POST /db/"+account+"/sequence/", 0), "resp": overRESP("INCR", account, 0)}
}

var (
	one       = sequencePost("one")
	many      = sequencePost("many")
	set       = work{"http": overHTTP("POST /db/small/kv/", 64), "resp": overRESP("SET", "key", 64), "etcd": overEtcd(64)}
	get       = work{"http": overHTTP("GET /db/small/kv/", 0), "resp": overRESP("GET", "key", 0)}
	retried   = work{"http": retriable("POST /db/many/sequence/"), "resp": many["resp"]}
	mutexPair = work{"http": pair("POST /db/pair/mlock/", "POST /db/pair/munlock/")}
	lockPair  = work{"http": pair("POST /db/pair/lock/", "DELETE /db/pair/lock/")}
	mutexRing = work{"http": ring("POST /db/ring/mlock/", "POST /db/ring/munlock/", "")}
	lockRing  = work{"http": ring("POST /db/ring/lock/", "DELETE /db/ring/lock/", "")}
	hundred   = work{"http": ring("POST /db/hundred/mlock/", "POST /db/hundred/munlock/", "&limit=100")}
	onDisk    = work{"http": ring("POST /db/hundred/lock/", "DELETE /db/hundred/lock/", "&limit=100")}
	ratePost  = work{"http": rated("POST /db/rate/rate/"), "resp": many["resp"]}
)

// rows are all kinds of work, over that many ids.
func rows(ids int) []*row {
	spread := thousands(strconv.Itoa(ids)) + " ids"
	var all []*row
	for _, kind := range []struct {
		name  string
		ids   int
		work  work
		conns []int
	}{
		{"sequence POST, one id", 1, one, []int{1, 64, 256, 4096}},
		{"sequence POST, " + spread, ids, many, []int{1, 64, 256, 4096}},
		{"kv set 64 B", ids, set, []int{64, 256}},
		{"kv get 64 B", ids, get, []int{64, 256}},
		{"mutex, lock or unlock", 1, mutexPair, []int{64, 256}},
		{"lock, lock or unlock", 1, lockPair, []int{64, 256}},
	} {
		for _, conns := range kind.conns {
			all = append(all, fast(kind.name, kind.work, crowd{conns: conns, id: anyOf(kind.ids)}))
		}
	}
	pipelined := fast("sequence POST, pipelining of 16", many, crowd{conns: 64, id: anyOf(ids), depth: 16})
	fresh := fast("sequence POST, each on a new connection", many, crowd{conns: 64, id: anyOf(ids), fresh: true})
	all = append(all, pipelined, fresh, besideWrites(ids),
		paced("sequence POST, 12,000/s", many, ids), paced("kv get 64 B, 12,000/s", get, ids))
	// The ratio to Redis is of a plain INCR: it has nothing of the kind.
	all = append(all, fast("sequence POST, each with an Idempotency-Key", retried, crowd{conns: 64, id: anyOf(ids)}))
	all = append(all, fast("rate POST, 1,000 ids", ratePost, crowd{conns: 64, id: anyOf(1000)}))
	for _, conns := range []int{1, 16, 64} {
		all = append(all,
			batches("batch of 100 sequence POSTs", batchOf("POST sequence/", "", ids), many["resp"], ids, conns),
			batches("batch of 100 kv sets of 64 B", batchOf("PUT kv/", " "+strings.Repeat("v", 64), ids), set["resp"], ids, conns))
	}
	// Each connection sends the lock and its unlock at once, so nobody holds it when the time is over.
	for _, conns := range []int{2, 256} {
		all = append(all, fast("mutex, one handed around", mutexRing, crowd{conns: conns, id: anyOf(1), depth: 2}),
			fast("lock, one handed around", lockRing, crowd{conns: conns, id: anyOf(1), depth: 2}))
	}
	// Most of them wait; what a hand-over costs should not depend on how many.
	for _, conns := range []int{256, 4096} {
		all = append(all, fast("semaphore of 100 in memory, handed around", hundred, crowd{conns: conns, id: anyOf(1), depth: 2}),
			fast("semaphore of 100 on disk, handed around", onDisk, crowd{conns: conns, id: anyOf(1), depth: 2}))
	}
	return append(all, letIn(10_000), idleMemory(8000), waitingMemory(8000))
}

// anyOf returns random ids.
func anyOf(ids int) func(int) int {
	return func(int) int { return 1 + rand.IntN(ids) }
}

// fast measures how many requests are answered as fast as they can be.
func fast(name string, w work, c crowd) *row {
	return &row{name, c.conns, requests, w.spoken(), func(ctx context.Context, b *bench, t *target) (measured, error) {
		c := c
		c.protocol = w[t.speak]
		took, cpu, err := load(ctx, t, b.seconds, &c)
		if err != nil {
			return measured{}, err
		}
		n := float64(len(c.took))
		return measured{[]float64{n / took.Seconds()}, micros(cpu) / n}, nil
	}}
}

// perBatch is how many calls a batch has, and how many commands of Redis are sent at once.
const perBatch = 100

// batches measures how many calls are answered in batches, beside Redis's pipelining.
func batches(name string, batch, command protocol, ids, conns int) *row {
	w := work{"http": batch, "resp": repeated(command, ids)}
	single := fast(name, w, crowd{conns: conns, id: anyOf(ids)})
	return &row{name, conns, []figure{{"calls/s", false}}, single.on, func(ctx context.Context, b *bench, t *target) (measured, error) {
		m, err := single.run(ctx, b, t)
		if err == nil {
			m.figures[0] *= perBatch
			m.cpu /= perBatch
		}
		return m, err
	}}
}

// besideWrites measures reads while other connections write as fast as they can.
func besideWrites(ids int) *row {
	return &row{"kv get 64 B beside 16 connections that set", 64, requests, get.spoken(), func(ctx context.Context, b *bench, t *target) (measured, error) {
		reads := &crowd{protocol: get[t.speak], conns: 64, id: anyOf(ids)}
		writes := &crowd{protocol: set[t.speak], conns: 16, id: anyOf(ids)}
		took, _, err := load(ctx, t, b.seconds, reads, writes)
		return measured{figures: []float64{float64(len(reads.took)) / took.Seconds()}}, err
	}}
}

// paced measures how long requests take at a constant rate. A request's time
// begins when it is due, so that a stall counts for all that was due meanwhile.
func paced(name string, w work, ids int) *row {
	const conns, rate = 64, 12_000
	return &row{name, conns, []figure{{"p50 µs", true}, {"p99 µs", true}}, w.spoken(), func(ctx context.Context, b *bench, t *target) (measured, error) {
		c := &crowd{protocol: w[t.speak], conns: conns, id: anyOf(ids), rate: rate}
		_, cpu, err := load(ctx, t, 2*b.seconds, c)
		if err != nil {
			return measured{}, err
		}
		return measured{[]float64{micros(percentile(c.took, 50)), micros(percentile(c.took, 99))}, micros(cpu) / float64(len(c.took))}, nil
	}}
}

// load runs the crowds and returns how long it took, and the CPU time that the
// server used meanwhile.
func load(ctx context.Context, t *target, d time.Duration, crowds ...*crowd) (took, cpu time.Duration, err error) {
	g, err := newGenerator(t.addr, crowds...)
	if err != nil {
		return 0, 0, err
	}
	defer g.close()
	began, err := t.cpu()
	if err != nil {
		return 0, 0, err
	}
	if took, err = g.run(ctx, d); err != nil {
		return 0, 0, err
	}
	ended, err := t.cpu()
	return took, ended - began, err
}

// fill writes each id once, so that no measurement is of new ones.
func fill(ctx context.Context, t *target, ids int) error {
	for _, w := range []work{one, many, set} {
		p, ok := w[t.speak]
		if !ok {
			continue
		}
		if _, _, err := load(ctx, t, 0, &crowd{protocol: p, conns: 64, depth: 16, n: ids, id: func(i int) int { return i + 1 }}); err != nil {
			return err
		}
	}
	return nil
}

// idleMemory measures what a connection takes that has been used once, of a
// server that has done nothing else.
func idleMemory(conns int) *row {
	return &row{"memory of an idle connection", conns, []figure{{"bytes", true}}, one.spoken(), func(ctx context.Context, b *bench, t *target) (_ measured, err error) {
		alone, remove, err := b.another(ctx, t, b.dir)
		if err != nil {
			return measured{}, err
		}
		defer func() { err = errors.Join(err, remove()) }()
		if _, _, err := load(ctx, alone, 0, &crowd{protocol: one[t.speak], conns: 1, n: 1, id: anyOf(1)}); err != nil {
			return measured{}, err
		}
		began, err := alone.memory()
		if err != nil {
			return measured{}, err
		}
		g, err := newGenerator(alone.addr, &crowd{protocol: one[t.speak], conns: conns, n: conns, id: anyOf(1)})
		if err != nil {
			return measured{}, err
		}
		defer g.close()
		if _, err := g.run(ctx, 0); err != nil {
			return measured{}, err
		}
		ended, err := alone.memory()
		return measured{figures: []float64{(ended - began) / float64(conns)}}, err
	}}
}

// another starts one more server of the target's kind, with data under dir.
func (b *bench) another(ctx context.Context, t *target, dir string) (*target, func() error, error) {
	data, err := os.MkdirTemp(dir, "another-")
	if err != nil {
		return nil, nil, err
	}
	p, err := t.start(ctx, data)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(data))
	}
	alone := *t
	alone.process = p
	return &alone, func() error {
		p.kill()
		return os.RemoveAll(data)
	}, nil
}
