package store

import (
	"testing"

	"clouddragon/db/commit"
)

// frees is an operation that gives room back and takes that many bytes of the log.
type frees int

func (f frees) Size() int               { return int(f) }
func (frees) Frees() bool               { return true }
func (frees) Decide(_ *commit.Tx) error { return nil }

// A delete that just fits leaves enough room for the rest of a compaction, including the bytes
// that every batch starts with.
func TestDeletesLeaveRoomForTheRestOfACompaction(t *testing.T) {
	const empty, size, rest = 72, 32, 50_000
	r := &room{last: true, short: true, reserve: 1 << 20}
	move := &commit.Call{Op: &Move{Bytes: 8 << 10, Rest: rest}}
	if v := r.Fits(move, empty, true); v != commit.Decide {
		t.Fatalf("with all the room a compaction gets %v", v)
	}
	for r.Fits(&commit.Call{Op: frees(size)}, empty, true) == commit.Decide {
		r.reserve -= empty + size
	}
	if r.reserve > rest+1000 {
		t.Errorf("deletes leave %d bytes for a compaction of %d", r.reserve, rest)
	}
	for _, less := range []int{0, 1, size - 1} {
		r.reserve -= less // another delete could not have taken it
		if v := r.Fits(move, empty, true); r.reserve >= int(r.keep.Load()) && v != commit.Decide {
			t.Errorf("in the %d bytes that deletes leave, a compaction of %d gets %v", r.reserve, rest, v)
		}
		r.reserve += less
	}
}
