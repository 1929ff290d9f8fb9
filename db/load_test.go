package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"clouddragon/internal/test/memdisk"
)

// load is what several clients do at once, with values and with hot numbers that all of them
// add to, numbers that are reset, and new ones. They wait for locks, renew them, let them
// expire, and give up waits by hanging up.
type load struct {
	*player
	workers, steps int
	seed           uint64
	faulty         bool // the disk may fail: every documented error is allowed
	backups        bool // are taken all the time

	waiting   atomic.Int64             // workers that may be waiting for a lock
	busy      atomic.Int64             // workers that still have steps to do
	resetting [resettable]sync.RWMutex // read: adding to that thing; write: resetting it
	mu        sync.Mutex               // guards err
	err       error
}

const resettable = 3 // number of things that all workers add to and sometimes reset

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

// run plays the load and returns the first answer that no client should get.
func (l *load) run() error {
	var wg sync.WaitGroup
	l.busy.Store(int64(l.workers))
	if l.backups {
		wg.Go(l.takeBackups)
	}
	for w := range l.workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(l.seed, uint64(w)))
			for i := range l.steps {
				l.step(rnd, w, i)
			}
			// The first worker that is done advances the clock for the others: a worker that
			// waits for a lock gets it, or its wait times out.
			for first := l.busy.Add(-1) == int64(l.workers)-1; first && l.busy.Load() > 0; runtime.Gosched() {
				if l.waiting.Load() > 0 {
					l.pass(10 * time.Second)
					l.d.writer.Wake()
				}
			}
		})
	}
	wg.Wait()
	return l.err
}

// refused reports whether an error is one that the load has to expect.
func refused(err error) bool {
	var conflict *ConflictError
	var held *HeldError
	return errors.As(err, &conflict) || errors.As(err, &held) || errors.Is(err, context.Canceled)
}

func (l *load) want(err error) {
	if err != nil && !refused(err) && !(l.faulty && failed(err)) {
		l.fail(err)
	}
}

// failed reports whether an error is that of a failed disk.
func failed(err error) bool {
	return errors.Is(err, ErrUnknown) || errors.Is(err, ErrStopped) || errors.Is(err, ErrFull) || errors.Is(err, ErrDamaged)
}

// idOf makes ids of all lengths, so that each table is used.
func idOf(rnd *rand.Rand, name string, i int) string {
	return fmt.Sprintf("%s-%d-%s", name, i, strings.Repeat("x", []int{0, 50, 110, 220}[rnd.IntN(4)]))
}

func (l *load) step(rnd *rand.Rand, w, i int) {
	kind := kindSequence + uint8(rnd.IntN(2))
	n := 1 + rnd.Int64N(5)
	if kind == kindCounter && rnd.IntN(3) == 0 {
		n = -n
	}
	own := Key{"worker", fmt.Sprint(w, rnd.IntN(3))}
	switch what := rnd.IntN(100); {
	case what < 30:
		_, err := l.add(kind, Key{"hot", fmt.Sprint(rnd.IntN(2))}, n)
		l.want(err)
	case what < 43:
		r := rnd.IntN(resettable)
		l.resetting[r].RLock()
		defer l.resetting[r].RUnlock()
		_, err := l.add(kind, Key{"shared", fmt.Sprint(r)}, n)
		l.want(err)
	case what < 46:
		r := rnd.IntN(resettable)
		l.resetting[r].Lock()
		defer l.resetting[r].Unlock()
		l.want(l.reset(kind, Key{"shared", fmt.Sprint(r)}))
	case what < 56:
		_, err := l.add(kind, own, n)
		l.want(err)
	case what < 61:
		l.want(l.reset(kind, own))
	case what < 70:
		k := Key{"new", idOf(rnd, fmt.Sprint("w", w), i)}
		_, err := l.add(kind, k, n)
		l.want(err)
		if rnd.IntN(3) == 0 {
			l.want(l.reset(kind, k))
		}
	case what < 84:
		k := Key{"value", fmt.Sprint(w, rnd.IntN(3))}
		if rnd.IntN(4) > 0 {
			_, err := l.set(k, rnd.Int64N(1<<40), time.Duration(rnd.IntN(3)*rnd.IntN(8))*time.Second)
			l.want(err)
		} else {
			l.want(l.remove(k))
		}
	case what < 86:
		l.pass(time.Duration(rnd.IntN(2000)) * time.Millisecond)
	case what < 87:
		runtime.Gosched() // a moment of quiet
	case what < 88:
		if err := l.backup(); !l.faulty {
			l.want(err)
		}
	default:
		l.holdLock(rnd, w, i)
	}
}

// holdLock takes a lock, maybe after a wait, and maybe renews it and gives it back.
func (l *load) holdLock(rnd *rand.Rand, w, i int) {
	r := LockRequest{
		Key: Key{"lock", idOf(rnd, "shared", rnd.IntN(2))},
		Dur: time.Duration(1+rnd.IntN(8)) * time.Second,
	}
	if rnd.IntN(4) > 0 {
		r.Owner = fmt.Sprintf("worker %d step %d of %d", w, i, l.seed)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// One of the workers never waits, so that it can advance the clock for the others.
	if l.waiting.Add(1) < int64(l.workers) && rnd.IntN(4) > 0 {
		r.Wait = time.Duration(1+rnd.IntN(60)) * time.Second
		if rnd.IntN(4) == 0 {
			moments := rnd.IntN(20)
			go func() {
				for range moments {
					runtime.Gosched()
				}
				cancel()
			}()
		}
	}
	token, err := l.lock(ctx, r)
	l.waiting.Add(-1)
	l.want(err)
	if err != nil {
		return
	}
	if rnd.IntN(4) == 0 {
		r.Token, r.Wait = token, 0
		r.Dur += time.Second
		_, err := l.lock(context.Background(), r)
		l.want(err)
	}
	if rnd.IntN(4) > 0 {
		l.want(l.unlock(r.Key, token))
	}
}

// handOver makes a known waiter get a lock from its holder, and notes each step.
func (p *player) handOver(id string) error {
	r := LockRequest{Key: Key{"lock", "hand-over " + id}, Owner: "first " + id, Dur: time.Hour}
	token, err := p.lock(context.Background(), r)
	if err != nil {
		return err
	}
	next := r
	next.Owner, next.Wait = "next "+id, time.Hour
	a := p.ask(asked{verb: verbLock, kind: kindLock, key: r.Key, owner: next.Owner, dur: int64(next.Dur)})
	got := make(chan error, 1)
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	go func() {
		token, err := p.d.Lock(ctx, next)
		got <- p.note(a, token, err)
	}()
	for {
		h, err := p.d.LockHolder(r.Key)
		if err != nil {
			return errors.Join(err, <-got)
		}
		if h.Waiters == 1 {
			break
		}
		select {
		case err := <-got:
			return err
		default:
			runtime.Gosched()
		}
	}
	p.fs.Mark(inLine{a.id})
	if err := p.unlock(r.Key, token); errors.Is(err, ErrFull) {
		leave()
		<-got
		return err
	} else if err != nil {
		return errors.Join(err, <-got)
	}
	return <-got
}

// someStep is how far the wall clock is set, forward or back.
func someStep(rnd *rand.Rand) time.Duration {
	by := []time.Duration{time.Second, 3 * time.Second, time.Hour, 24 * time.Hour}[rnd.IntN(4)]
	if rnd.IntN(2) == 0 {
		return -by
	}
	return by
}

// loaded returns a disk whose journal holds a whole life of a data directory: created, loaded,
// closed, recovered and loaded again, with notes of everything that was asked for and
// answered.
func loaded(seed uint64, o Options, workers, steps int, backups bool) (*memdisk.FS, error) {
	fs, clock := memdisk.New(), newTestClock()
	o.FS, o.Clock = fs, clock.read
	if seed%2 == 0 {
		// A slow disk, so that batches have many operations and others arrive in between.
		fs.Fail(func(op memdisk.Op) error {
			yields := op.N % 2
			if op.Kind == memdisk.Sync {
				yields = 20
			}
			for range yields {
				runtime.Gosched()
			}
			return nil
		})
	}
	var ids atomic.Int64
	rnd := rand.New(rand.NewPCG(seed, 2))
	for life := range uint64(2) {
		if life > 0 && rnd.IntN(2) == 0 {
			by := someStep(rnd)
			fs.Mark(setWhileDown{int64(by)})
			clock.step(by)
		}
		d, err := Open(o)
		if err != nil {
			return nil, err
		}
		l := &load{player: &player{d: d, fs: fs, clock: clock, ids: &ids}, workers: workers, steps: steps, seed: 2*seed + life, backups: backups}
		err = l.run()
		if err == nil && rnd.IntN(2) == 0 {
			err = l.setClock(someStep(rnd))
		}
		if err == nil {
			err = l.handOver(fmt.Sprint(life))
		}
		if err = errors.Join(err, d.Close()); err != nil {
			return nil, err
		}
		if n := fs.OpenHandles(); n > 0 {
			return nil, fmt.Errorf("%d handles are open after Close", n)
		}
	}
	return fs, nil
}
