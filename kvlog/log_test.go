package kvlog

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"clouddragon/internal/disk"
)

var testID = [16]byte{'t', 'h', 'e', ' ', 'd', 'i', 'r', 'e', 'c', 't', 'o', 'r', 'y', ' ', 'I', 'D'}

// start recovers a log from a place and returns what was replayed.
func start(t testing.TB, o Options, from Pos, segments []uint64) (*Log, Tail, []string) {
	t.Helper()
	l, err := Open(o, from, segments)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	tail, err := l.Replay(collect(&got))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Repair(tail); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(tail); err != nil {
		t.Fatal(err)
	}
	return l, tail, got
}

// collect writes down each record that is replayed.
func collect(got *[]string) func(uint64, Records) error {
	return func(seq uint64, recs Records) error {
		for r := range recs.All() {
			*got = append(*got, fmt.Sprintf("%d:%d:%s", seq, r.Type, r.Body))
		}
		return nil
	}
}

func TestRoundTrip(t *testing.T) {
	o := Options{FS: disk.OS{}, Dir: filepath.Join(t.TempDir(), "log"), ID: testID, Segment: MinSegment}
	from, err := Create(o)
	if err != nil {
		t.Fatal(err)
	}
	l, _, _ := start(t, o, from, []uint64{1})
	var b Batch
	var want []string
	for i := range 100 {
		b.Reset()
		for j := range i%5 + 1 {
			body := fmt.Sprintf("batch %d record %d", i, j)
			b.AddBytes(uint8(j+1), []byte(body))
			want = append(want, body)
		}
		if l.NeedsPrepare() {
			if err := l.Prepare(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.Append(&b); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, tail, got := start(t, o, from, []uint64{1})
	defer l.Close()
	if tail.Torn != "" || len(got) != len(want) {
		t.Fatalf("torn %q, %d records, want %d; last %v", tail.Torn, len(got), len(want), slices.Max(got))
	}
}
