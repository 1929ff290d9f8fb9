package kvlog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"clouddragon/kvlog/wal"
)

func TestSurveySubmitsEveryLiveValueOfAnySize(t *testing.T) {
	r := newValuesRig(t)
	want := map[string]bool{}
	for i, size := range []int{10, 3000, 3000, 10_000, 1, 4096, 20_000, 7} {
		id := fmt.Sprint("of ", size, " bytes, ", i)
		r.set(id, strings.Repeat("x", size), 0)
		want[id] = true
	}
	r.set("gone", strings.Repeat("x", 9000), 0)
	r.delete("gone")
	r.fill("rest ")
	for _, moves := range r.survey(1) {
		size := 0
		for _, m := range moves {
			size += m.Size
			if m.Type == TypeTombstone || strings.HasPrefix(m.ID, "rest ") {
				continue
			}
			if !want[m.ID] {
				t.Errorf("%q is submitted though it is not live, or twice", m.ID)
			}
			delete(want, m.ID)
		}
		if len(moves) > 1 && size > 4096 {
			t.Errorf("a chunk of %d records has %d bytes", len(moves), size)
		}
	}
	if len(want) > 0 {
		t.Errorf("not submitted: %v", want)
	}
}

// While a segment that may hold an older value is left, the tombstone is submitted
// with the segment in which it was first written, however often it is moved.
func TestTombstoneIsSubmittedWhileAnOlderValueMayBeLeft(t *testing.T) {
	r := newValuesRig(t)
	r.set("a", "1", 0)
	r.fill("first ")
	r.delete("a")
	r.fill("second ")
	origins := func(segment uint64) (all []uint64) {
		for _, moves := range r.survey(segment) {
			for _, m := range moves {
				if m.Type == TypeTombstone && m.ID == "a" {
					all = append(all, m.Origin)
				}
			}
		}
		return all
	}
	if got := origins(2); !slices.Equal(got, []uint64{2}) {
		t.Fatalf("segment 2: tombstones with origins %d are submitted, want one with origin 2", got)
	}
	at := r.end.Segment
	var b wal.Batch
	p := b.Add(TypeTombstone, TombstoneSize("acc", "a"))
	PutTombstone(p, "acc", "a", 2)
	r.apply(&b, Step{Hash: r.v.Hash("acc", "a"), At: -1, Tombstone: wal.RecordSize(len(p))})
	r.fill("third ")
	if got := origins(at); !slices.Equal(got, []uint64{2}) {
		t.Fatalf("segment %d: tombstones with origins %d are submitted, want one with origin 2", at, got)
	}
	for n := range at {
		delete(r.v.byNumber, n)
	}
	if got := origins(at); len(got) > 0 {
		t.Errorf("the tombstone is submitted though all older segments are gone")
	}
}

// Only the records on disk tell keys apart. Two keys with the same bits in the index are
// too rare to find, so the test adds an entry for another key.
func TestTheValueOfAnotherKeyIsNeverShown(t *testing.T) {
	r := newValuesRig(t)
	r.set("a", "1", 0)
	r.set("b", "2", 0)
	_, b := r.find("b")
	for _, id := range []string{"a", "none"} {
		r.v.index.Insert(r.v.Hash("acc", id), b.Loc)
	}
	r.want(r.v, "a", "1")
	r.want(r.v, "none", "")
	if _, f := r.find("none"); f.OK {
		t.Error("a key that was never set is found")
	}
	r.set("none", "3", 0)
	r.delete("a")
	r.want(r.v, "a", "")
	r.want(r.v, "b", "2")
	r.want(r.v, "none", "3")
}

func TestASavedSnapshotIsDurable(t *testing.T) {
	r := newValuesRig(t)
	r.set("a", "1", 0)
	r.save(r.end)
	v, err := r.reopen(r.disk.Cut(r.disk.Len()).Nothing(), r.end)
	if err != nil {
		t.Error(err)
	}
	r.want(v, "a", "1")
}
