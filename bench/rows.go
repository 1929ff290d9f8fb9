package main

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"
)

// row is one kind of work, which each server gets in turn.
type row struct {
	name     string
	conns    int
	figures  []figure
	work     work // only servers that can do it are measured
	stateful bool // the empty handler, which stores nothing, cannot do it
	measure  measureFunc
	found    map[string][][]float64 // the figures of each round, by the target's name
}

// measureFunc measures a row once. A figure is NaN if the server does not support it.
type measureFunc func(ctx context.Context, b *bench, t *target) (figures []float64, err error)

// figure is one of the results of a row.
type figure struct {
	name string
	less bool // is better
}

func (r *row) on(t *target) bool {
	_, can := r.work[t.speak]
	return can && !(r.stateful && t.name == empty)
}

var value = strings.Repeat("v", 64)

var (
	one  = sequencePost("one")
	many = sequencePost("many")
	set  = work{
		"http": overHTTP("POST /db/small/kv/<any-id>\n\n" + value),
		"resp": overRESP("SET", "key:<any-id>", value),
		"etcd": overHTTP("POST /v3/kv/put\n\n" + `{"key":"<any-id>","value":"` + inBase64(value) + `"}`),
	}
	get = work{"http": overHTTP("GET /db/small/kv/<any-id>"), "resp": overRESP("GET", "key:<any-id>")}
	// Redis has no equivalent of the next two. They are compared with a plain INCR.
	retried = work{"http": overHTTP("POST /db/many/sequence/<any-id>\nIdempotency-Key: <random><random>"), "resp": many["resp"]}
	rated   = work{"http": overHTTP("POST /db/rate/rate/<any-id>?limit=1000000&per=10000h"), "resp": many["resp"]}
)

func sequencePost(account string) work {
	return work{"http": overHTTP("POST /db/" + account + "/sequence/<any-id>"), "resp": overRESP("INCR", account+":<any-id>")}
}

// mutexes lock and unlock in turn; more are further parameters for the lock.
func mutexes(id, owner, more string) work {
	return work{"http": overHTTP("POST /db/locks/mlock/"+id+"?id="+owner+"&dur=60"+more, "POST /db/locks/munlock/"+id+"?id="+owner)}
}

// locks do the same with locks on disk.
func locks(id, owner, more string) work {
	return work{"http": overHTTP("POST /db/locks/lock/"+id+"?id="+owner+"&dur=60"+more, "DELETE /db/locks/lock/"+id+"?id="+owner)}
}

// rows are all kinds of work.
func rows(o options) []*row {
	ids := anyOf(o.ids)
	var all []*row
	for _, r := range []struct {
		name string
		crowd
		over []int // connections
	}{
		{"sequence POST, one id", crowd{work: one, id: anyOf(1)}, []int{1, 64, 256, 4096}},
		{"sequence POST, " + thousands(o.ids) + " ids", crowd{work: many, id: ids}, []int{1, 64, 256, 4096}},
		{"kv set 64 B", crowd{work: set, id: ids}, []int{64, 256}},
		{"kv get 64 B", crowd{work: get, id: ids}, []int{64, 256}},
		{"mutex, lock or unlock", crowd{work: mutexes("<client>", "bench", "")}, []int{64, 256}},
		{"lock, lock or unlock", crowd{work: locks("<client>", "bench", "")}, []int{64, 256}},
		{"sequence POST, pipelining of 16", crowd{work: many, id: ids, depth: 16}, []int{64}},
		{"sequence POST, each on a new connection", crowd{work: many, id: ids, fresh: true}, []int{64}},
		{"sequence POST, 12,000/s", crowd{work: many, id: ids, rate: 12_000}, []int{64}},
		{"kv get 64 B, 12,000/s", crowd{work: get, id: ids, rate: 12_000}, []int{64}},
		{"sequence POST, each with an Idempotency-Key", crowd{work: retried, id: ids}, []int{64}},
		{"rate POST, 1,000 ids", crowd{work: rated, id: anyOf(1000)}, []int{64}},
		{"batch of 100 sequence POSTs", crowd{work: batches("", "POST sequence/<any-id>", many), id: ids, depth: perBatch}, []int{1, 16, 64}},
		{"batch of 100 sequence POSTs, atomic=false", crowd{work: batches("?atomic=false", "POST sequence/<any-id>", many), id: ids, depth: perBatch}, []int{64}},
		{"batch of 100 sequence POSTs, as JSON", crowd{work: jsonBatches(`{"method":"POST","path":"sequence/<any-id>"}`, many), id: ids, depth: perBatch}, []int{64}},
		{"batch of 100 kv sets of 64 B", crowd{work: batches("", "PUT kv/<any-id> "+value, set), id: ids, depth: perBatch}, []int{1, 16, 64}},
		// Each connection sends the lock and its unlock at once, so the lock is free at the end.
		{"mutex, one handed around", crowd{work: mutexes("ring", "<client>", "&wait=60"), depth: 2}, []int{2, 256}},
		{"lock, one handed around", crowd{work: locks("ring", "<client>", "&wait=60"), depth: 2}, []int{2, 256}},
		// Most callers wait. The cost of a hand-over should not depend on their number.
		{"semaphore of 100 in memory, handed around", crowd{work: mutexes("hundred", "<client>", "&wait=60&limit=100"), depth: 2}, []int{256, 4096}},
		{"semaphore of 100 on disk, handed around", crowd{work: locks("hundred", "<client>", "&wait=60&limit=100"), depth: 2}, []int{256, 4096}},
	} {
		for _, r.conns = range r.over {
			all = append(all, loaded(r.name, r.crowd))
		}
	}
	return append(all,
		loaded("kv get 64 B beside 16 connections that set", crowd{work: get, conns: 64, id: ids}, crowd{work: set, conns: 16, id: ids}),
		besideBatches(10_000),
		mirrored(crowd{work: many, conns: 64, id: ids}), mirrored(crowd{work: many, conns: 256, id: ids}),
		wrapped(), letIn(10_000), told(1), told(10_000), idleMemory(8000), waitingMemory(8000), keys(o.keys), backedUp(o.backup))
}

// anyOf returns random ids.
func anyOf(ids int) func(int) int {
	return func(int) int { return 1 + rand.IntN(ids) }
}

// inTurn returns each id once.
func inTurn(i int) int { return i + 1 }

// loaded measures how many calls of a crowd are answered, or how long they take at a constant
// rate, while other crowds load the server too.
func loaded(name string, c crowd, others ...crowd) *row {
	r := &row{name: name, conns: c.conns, figures: []figure{{"calls/s", false}, {"CPU µs a call", true}}, work: c.work}
	if c.rate > 0 {
		r.figures = []figure{{"p50 µs", true}, {"p99 µs", true}, {"CPU µs a call", true}}
	}
	r.measure = func(ctx context.Context, b *bench, t *target) ([]float64, error) {
		c, d := c, b.seconds
		if c.rate > 0 {
			d *= 2
		}
		crowds := []*crowd{&c}
		for _, other := range others {
			crowds = append(crowds, &other)
		}
		took, cpu, err := load(ctx, t, d, crowds...)
		if err != nil {
			return nil, err
		}
		var calls float64
		for _, c := range crowds {
			calls += float64(len(c.took) * c.calls)
		}
		if c.rate > 0 {
			return []float64{median(c.took), percentile(c.took, 99), micros(cpu) / calls}, nil
		}
		return []float64{float64(len(c.took)*c.calls) / took.Seconds(), micros(cpu) / calls}, nil
	}
	return r
}

// load runs the crowds. It returns how long that took and how much CPU time the server used.
func load(ctx context.Context, t *target, d time.Duration, crowds ...*crowd) (took, cpu time.Duration, err error) {
	g, err := newGenerator(t.addr, t.speak, crowds...)
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

// fill writes each id once, so that no row measures the creation of ids.
func fill(ctx context.Context, t *target, ids int) error {
	for _, w := range []work{many, set} {
		if _, ok := w[t.speak]; !ok {
			continue
		}
		if _, _, err := load(ctx, t, 0, &crowd{work: w, conns: 64, depth: 16, n: ids, id: inTurn}); err != nil {
			return err
		}
	}
	return nil
}
