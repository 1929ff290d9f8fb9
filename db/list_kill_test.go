package db

import (
	"fmt"
	"slices"
	"testing"

	"clouddragon/internal/test/memdisk"
)

// After a kill before the first checkpoint the log has every name, so lists are complete at once.
func TestNamesAreListedAtOnceAfterAnEarlyKill(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	o.Segment, o.Extent, o.CheckpointEvery = 1<<20, 64<<10, 1<<30
	d := mustOpen(t, o)
	var want []string
	for i := range 3000 {
		id := fmt.Sprintf("id%04d", i)
		want = append(want, id)
		wantDone(t, "add", addN(d, id, 1))
	}
	wantDone(t, "add", addN(d, "gone", 1))
	wantDone(t, "reset", d.Do(&NumberReset{Key: Key{"a", "gone"}, Counter: true}))
	for range 2 {
		next := fs.Cut(fs.Len()).Nothing()
		fs.Freeze()
		_ = d.Close()
		fs = next
		o.FS = fs
		d = mustOpen(t, o)
		p, err := d.List(t.Context(), ListRequest{Kind: ListCounters, Acc: "a", Limit: 10_000})
		wantDone(t, "list", err)
		var got []string
		for _, x := range p.Items {
			got = append(got, x.ID)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %d counters, want %d", len(got), len(want))
		}
		if n := d.Stats().Names.Rebuilds; n != 0 {
			t.Errorf("the index of names was rebuilt %d times", n)
		}
	}
	mustClose(t, d)
}
