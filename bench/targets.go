package main

import (
	"context"
	"time"
)

// target is one of those that do a row's work.
type target struct {
	name    string
	process *process
	proto   protocol // for a generator; etcd has none
	load    func(ctx context.Context, r *row, conns int) (load, error)
}

// targets are those that can do the row's work.
func (b *bench) targets(r *row) []target {
	var ts []target
	http := func(name string, p *process, proto protocol, script func(number int) string) {
		ts = append(ts, target{name, p, proto, func(ctx context.Context, r *row, conns int) (load, error) {
			b.scripts++
			return b.wrk(ctx, p.addr, script(b.scripts), conns, b.length(conns))
		}})
	}
	if b.results.notServed[r] == nil {
		http(ours, b.ours.process, overHTTP(r), r.script)
	}
	http(empty, b.empty, overHTTP(r), r.script)
	if b.redis != nil && r.redis != nil {
		ts = append(ts, target{redis, b.redis, overRedis(r), b.redisLoad})
	}
	if b.etcd != nil && r.etcd {
		http(etcd, b.etcd, protocol{}, func(int) string { return etcdScript(r) })
	}
	return ts
}

// length of a measurement: the load generators count the time in which the
// connections are opened, so that many of them take longer.
func (b *bench) length(conns int) time.Duration {
	if conns > 1000 {
		return 4 * b.seconds
	}
	return b.seconds
}

// redisLoad asks for about as many requests as the last rate makes possible in
// the time of a measurement.
func (b *bench) redisLoad(ctx context.Context, r *row, conns int) (load, error) {
	rate := 3000 * float64(min(conns, 10))
	if s := b.results.samples[measured{r, conns, redis}]; len(s) > 0 {
		rate = s[len(s)-1].rate
	}
	return redisBenchmark(ctx, b.redis.addr, conns, max(1, int(rate*b.length(conns).Seconds())), r.redis...)
}
