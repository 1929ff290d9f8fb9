package wal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

func TestVerifyReportsEveryDamage(t *testing.T) {
	x := newLongLog(t)
	x.at(1)[100]++                       // one batch
	clear(x.batch(3))                    // two
	clear(x.batch(4))                    // side by side
	x.at(x.seal)[60]++                   // a seal
	x.files[seg2][20]++                  // a header
	x.files[seg2][pageSize+100]++        // and the first batch after it
	clear(x.at(len(x.starts) - 1)[:100]) // a torn tail: no damage
	x.store(t)
	var got []string
	tail, err := Verify(x.o, x.from, x.named, func(d *disk.Damage) { got = append(got, fmt.Sprintf("%s %d lost %s", d.File, d.Offset, d.Lost)) })
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		fmt.Sprintf("%s %d lost batches 2 to 2", seg1, x.starts[1].Offset),
		fmt.Sprintf("%s %d lost batches 4 to 5", seg1, x.starts[3].Offset),
		fmt.Sprintf("%s %d lost batches %d to %d", seg1, x.starts[x.seal].Offset, x.seal+1, len(x.starts)-1),
		fmt.Sprintf("%s %d lost every batch in it", seg2, 0),
		fmt.Sprintf("%s %d lost batches %d to %d", seg2, pageSize, x.seal+2, x.seal+2),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if last := x.starts[len(x.starts)-1]; tail.End != last || tail.Torn == "" {
		t.Errorf("the log ends at %+v, torn: %q; want the last batch, at %+v, torn", tail.End, tail.Torn, last)
	}
}

// Damage to the next segment also keeps the log from ending before it. That is reported once.
func TestVerifyReportsEachDamageOnce(t *testing.T) {
	x := newLongLog(t)
	x.files[seg2][20]++ // its header
	clear(x.at(x.seal)) // so that nothing names it as the next one
	clear(x.files[seg2][pageSize:])
	x.store(t)
	var got []string
	if _, err := Verify(x.o, x.starts[1], nil, func(d *disk.Damage) { got = append(got, d.Error()) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || !strings.Contains(got[0], seg2) {
		t.Errorf("got %q, want one, of %s", got, seg2)
	}
}

// Before the position in CHECKPOINT there is no torn tail: everything there was durable and
// may still be needed.
func TestVerifyReadsWhatIsBeforeCheckpoint(t *testing.T) {
	for name, tc := range map[string]struct {
		harm  func(x *longLog)
		wants func(x *longLog) []string
	}{
		"nothing": {func(*longLog) {}, func(*longLog) []string { return nil }},
		"last batch before it": {
			func(x *longLog) { x.at(len(x.starts) - 1)[100]++ },
			func(x *longLog) []string {
				return []string{fmt.Sprintf("%s %d", seg2, x.starts[len(x.starts)-1].Offset)}
			},
		},
		"last batch before it is gone": {
			func(x *longLog) { clear(x.at(len(x.starts) - 1)) },
			func(x *longLog) []string {
				return []string{fmt.Sprintf("%s %d", seg2, x.starts[len(x.starts)-1].Offset)}
			},
		},
		"all of the segment is gone": {
			func(x *longLog) { clear(x.files[seg2][pageSize:]) },
			func(x *longLog) []string { return []string{fmt.Sprintf("%s %d", seg2, pageSize)} },
		},
		"a batch in an earlier segment": {
			func(x *longLog) { x.at(1)[100]++ },
			func(x *longLog) []string { return []string{fmt.Sprintf("%s %d", seg1, x.starts[1].Offset)} },
		},
		"an earlier segment's seal": {
			func(x *longLog) { clear(x.at(x.seal)) },
			func(x *longLog) []string { return []string{fmt.Sprintf("%s %d", seg1, x.starts[x.seal].Offset)} },
		},
		"an earlier segment's seal, and there is nothing after it": {
			func(x *longLog) {
				clear(x.at(x.seal))
				clear(x.files[seg2][pageSize:])
				x.end = x.starts[x.seal+1]
			},
			func(x *longLog) []string { return []string{fmt.Sprintf("%s %d", seg1, x.starts[x.seal].Offset)} },
		},
		"CHECKPOINT is of another log": {
			func(x *longLog) { x.end.Sum++ },
			func(x *longLog) []string { return []string{fmt.Sprintf("%s %d", seg2, x.end.Offset)} },
		},
		"CHECKPOINT points into a batch": {
			func(x *longLog) { x.end.Offset -= 16 },
			func(x *longLog) []string { return []string{fmt.Sprintf("%s %d", seg2, x.end.Offset)} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newLongLog(t)
			tc.harm(x)
			x.store(t)
			var got []string
			tail, err := Verify(x.o, x.end, []uint64{1, 2}, func(d *disk.Damage) { got = append(got, fmt.Sprintf("%s %d", d.File, d.Offset)) })
			if err != nil {
				t.Fatal(err)
			}
			if want := tc.wants(x); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if !strings.HasPrefix(name, "CHECKPOINT") && (tail.End != x.end || tail.Torn != "") {
				t.Errorf("ends at %+v torn %q, want %+v", tail.End, tail.Torn, x.end)
			}
		})
	}
}

// Some of the earlier segments were freed. The first batch of each remaining one may follow
// any batch.
func TestVerifyAcceptsGapsFromFreedSegments(t *testing.T) {
	x := newLongLog(t)
	delete(x.files, seg1)
	x.store(t)
	wantClean(t, x.o, x.end, 2, 3)
	x.files[seg2][pageSize+100]++
	x.store(t)
	var got []string
	if _, err := Verify(x.o, x.end, []uint64{2, 3}, func(d *disk.Damage) { got = append(got, fmt.Sprintf("%s %d", d.File, d.Offset)) }); err != nil {
		t.Fatal(err)
	}
	if want := []string{fmt.Sprintf("%s %d", seg2, pageSize)}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestVerifyReportsWhatCannotBeRead(t *testing.T) {
	x := newLongLog(t)
	x.disk.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Read && op.Name == seg1 && op.Off > 0 {
			return syscall.EIO
		}
		return nil
	})
	var got []*disk.Damage
	if _, err := Verify(x.o, x.from, x.named, func(d *disk.Damage) { got = append(got, d) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].File != seg1 || got[0].Offset != pageSize || !strings.Contains(got[0].What, syscall.EIO.Error()) {
		t.Errorf("got %v, want that %s cannot be read at %d", got, seg1, pageSize)
	}
}

// Verify handles files of any length, even of one that no crash leaves.
func TestVerifyReadsFilesOfAnyLength(t *testing.T) {
	for _, length := range []int{0, 8, pageSize - 1, pageSize, pageSize + 8, pageSize + 47, pageSize + 100, MinSegment - 1} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			x := newLongLog(t)
			clear(x.batch(x.seal)) // so that nothing says how segment 2 begins
			x.files[seg2] = x.files[seg2][:length]
			x.store(t)
			n := 0
			if _, err := Verify(x.o, x.end, []uint64{1, 2, 3}, func(*disk.Damage) { n++ }); err != nil {
				t.Fatal(err)
			}
			if n < 2 {
				t.Errorf("found %d damages, want that of the seal and of the file", n)
			}
			_, _, err := restart(x.o, x.from, []uint64{1, 2, 3})
			if d := new(disk.Damage); !errors.As(err, &d) || d.File != seg2 {
				t.Errorf("the start says %v", err)
			}
		})
	}
}
