package db

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// An atomic batch that is refused at its end leaves sequences, counters, values and
// locks as they were, now and after a start from the log, and what was undone can be
// done by the next one.
func TestARefusedBatchLeavesEverythingAsItWas(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	o.Segment, o.Extent = 1<<20, 64<<10
	d := mustOpen(t, o)
	rnd := rand.New(rand.NewPCG(5, 6))
	keys := []Key{{"a", "x"}, {"a", "y"}, {"a", "z"}}
	some := func() Operation {
		k := keys[rnd.IntN(len(keys))]
		anything := Conditions{Check: AnyVersion}
		owner := fmt.Sprint("owner", rnd.IntN(2))
		switch rnd.IntN(9) {
		case 0:
			return &SequenceAdd{Key: k, N: 1 + rnd.Int64N(9), Above: rnd.Int64N(50)}
		case 1:
			op := unbounded(CounterAdd{Key: k, Add: rnd.Int64N(9), TTL: time.Duration(rnd.IntN(2)) * time.Hour})
			return &op
		case 2:
			return &NumberReset{Key: k, Counter: rnd.IntN(2) == 0}
		case 3:
			return &ValueSet{Key: k, Data: fmt.Append(nil, rnd.IntN(100)), Conditions: anything}
		case 4:
			return &ValueTTL{Key: k, TTL: time.Hour, Conditions: anything}
		case 5:
			return &ValueDelete{Key: k, Conditions: anything}
		case 6:
			return &LockRelease{UnlockRequest: UnlockRequest{Key: k, Force: true}}
		default:
			return &LockTake{LockRequest: LockRequest{Key: k, Owner: owner, Dur: time.Hour, Limit: 2}}
		}
	}
	state := func() string {
		s := ""
		for _, k := range keys {
			n, _ := d.Sequence(k)
			c, left, _ := d.CounterTTL(k)
			v, _ := d.Get(k)
			h, _ := d.LockHolders(k, 0)
			s += fmt.Sprintln(k, n, c, left, string(v.Data), v.Version, v.Left, h)
		}
		for _, c := range d.Stats().Tables.Classes {
			s += fmt.Sprint(c.Used, " ")
		}
		return s + fmt.Sprint(d.Stats().Locks.Held, d.Stats().Values.Keys)
	}
	refusal := &ValueSet{Key: Key{"a", "none"}, Conditions: Conditions{Check: 1 << 60}}
	undone, done := 0, 0
	for range 400 {
		b := &Batch{Atomic: rnd.IntN(3) > 0}
		for range 1 + rnd.IntN(6) {
			b.Ops = append(b.Ops, some())
		}
		if !b.Atomic { // not atomic: it may contain refusals
			wantDone(t, "a batch", d.Do(b))
			done++
			continue
		}
		b.Ops = append(b.Ops, refusal)
		before := state()
		if err := d.Do(b); err == nil {
			t.Fatal("the batch was not refused")
		}
		if after := state(); after != before {
			t.Fatalf("a refused batch of %d:\n%s\nwas\n%s", len(b.Ops), after, before)
		}
		undone++
	}
	before := state()
	killed := fs.Reopen()
	mustClose(t, d)
	o.FS = killed
	d = mustOpen(t, o)
	if after := state(); after != before || undone < 100 || done < 100 {
		t.Errorf("after a start from the log:\n%s\nwas\n%s (%d refused, %d done)", after, before, undone, done)
	}
	mustClose(t, d)
}
