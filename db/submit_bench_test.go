package db

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkCommit measures the writer's share of an operation, which runs on one core at a
// time: the CPU time for deciding, appending, syncing and applying batches of the given number
// of sequence POSTs. The CPU time depends little on what else runs.
func BenchmarkCommit(b *testing.B) {
	const ids = 100_000
	for _, size := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d := mustOpenB(b, Options{Dir: b.TempDir()})
			var done sync.WaitGroup
			calls, ops := make([]*Call, size), make([]SequenceAdd, size)
			for i := range calls {
				calls[i] = &Call{Op: &ops[i], Done: func(*Call) { done.Done() }}
			}
			submit := func(id func() int) {
				for i := range ops {
					ops[i] = SequenceAdd{Key: Key{"bench", fmt.Sprint(id())}, N: 1}
				}
				done.Add(size)
				d.SubmitAll(true, append([]*Call(nil), calls...))
				done.Wait()
				for _, c := range calls {
					if c.Err != nil {
						b.Fatal(c.Err)
					}
				}
			}
			next := 0
			for next < ids && size > 1 {
				submit(func() int { next++; return next % ids })
			}
			began := cpuTime(b)
			n := 0
			for b.Loop() {
				submit(func() int { return rand.IntN(ids) })
				n += size
			}
			b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/1000/float64(n), "cpu-µs/request")
			if err := d.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
