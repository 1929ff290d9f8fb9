package db

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"

	"pgregory.net/rapid"
)

// On a full disk, deletes succeed whatever the sizes, and a third of the bytes that they freed
// can be written at once.
func TestDeletesMakeRoomOnAFullDisk(t *testing.T) {
	disks := 0
	rapid.Check(t, func(t *rapid.T) {
		if disks++; underRace && disks > 20 {
			return // each takes a second there
		}
		fs := memdisk.New()
		o := tinyKV(fs, nil)
		o.Segment = int64(rapid.IntRange(16, 64).Draw(t, "segment in pages")) * 4096
		halves := rapid.IntRange(2, 40).Draw(t, "halves of segments")
		small := rapid.Bool().Draw(t, "smaller segments")
		if small {
			o.LeastSegment = o.Segment / 2
			fs.SetRoom(200<<10 + int64(halves+4)*o.Segment/2)
		}
		o.CompactRatio = 1000
		o.CheckpointEvery = o.Segment
		d, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if !small {
			fs.SetRoom(fs.Used() + int64(halves)*o.Segment/2)
		}
		most := rapid.OneOf(rapid.IntRange(500, 600), rapid.IntRange(500, int(o.Segment/3))).Draw(t, "largest value")
		size := func() int { return rapid.IntRange(max(400, most/2), most).Draw(t, "value") }
		sizes := make(map[int]int)
		set := func(n, size int) error {
			_, err := d.Set(SetRequest{Key: Key{"a", fmt.Sprint(n)}, Data: make([]byte, size), Check: AnyVersion})
			return err
		}
		n := 0
		for ; ; n++ {
			size := size()
			if err := set(n, size); errors.Is(err, ErrFull) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			sizes[n] = size
		}
		share := rapid.IntRange(2, 9).Draw(t, "tenths deleted")
		var doomed []int
		switch rapid.SampledFrom([]string{"spread", "oldest", "newest", "random"}).Draw(t, "deleted are") {
		case "spread":
			for i := range n {
				if i%10 < share {
					doomed = append(doomed, i)
				}
			}
		case "oldest":
			for i := range n * share / 10 {
				doomed = append(doomed, i)
			}
		case "newest":
			for i := range n * share / 10 {
				doomed = append(doomed, n-1-i)
			}
		case "random":
			doomed = rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)).Perm(n)[:n*share/10]
		}
		freed := 0
		for _, i := range doomed {
			if err := d.DeleteValue(Key{"a", fmt.Sprint(i)}, AnyVersion); err != nil {
				t.Fatalf("delete %d of %d: %v", i, n, err)
			}
			freed += sizes[i]
			delete(sizes, i)
		}
		want := freed / 3
		if halves < 8 {
			want -= int(o.Segment) // the other files can have grown into one
		}
		for ; want > 0; n++ {
			size := min(size(), want)
			if err := set(n, size); err != nil {
				t.Fatalf("%d of %d bytes are still to come back, %d are live: %v, %+v", want, freed, sum(sizes), err, d.Stats())
			}
			sizes[n] = size
			want -= size
		}
		for i, size := range sizes {
			if v, err := d.Get(Key{"a", fmt.Sprint(i)}); err != nil || len(v.Data) != size {
				t.Fatalf("value %d has %d bytes, want %d: %v", i, len(v.Data), size, err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Moved records fill segments, even segments that are smaller than configured. Otherwise
// deleting a fifth of each segment would free nothing.
func TestSmallValuesMakeRoomOnASmallFullDisk(t *testing.T) {
	for range 4 {
		fs := memdisk.New()
		o := tinyKV(fs, nil)
		o.Segment, o.LeastSegment = 62*4096, 31*4096
		o.CompactRatio, o.CheckpointEvery = 1000, o.Segment
		fs.SetRoom(200<<10 + 14*o.LeastSegment)
		d := mustOpen(t, o)
		set := func(n int) error {
			_, err := d.Set(SetRequest{Key: Key{"a", fmt.Sprint(n)}, Data: make([]byte, 450), Check: AnyVersion})
			return err
		}
		n := 0
		for err := error(nil); ; n++ {
			if err = set(n); errors.Is(err, ErrFull) {
				break
			}
			wantDone(t, "set", err)
		}
		for i := 0; i < n; i += 5 {
			wantDone(t, "delete", d.DeleteValue(Key{"a", fmt.Sprint(i)}, AnyVersion))
		}
		for i := range n / 5 / 2 {
			if err := set(n + i); err != nil {
				t.Fatalf("%d values of %d were deleted, and the %d. new one has no room: %v", n/5, n, i+1, err)
			}
		}
		mustClose(t, d)
	}
}

func sum(sizes map[int]int) (n int) {
	for _, size := range sizes {
		n += size
	}
	return n
}

// A value that is larger than what is left says that the disk is full, too.
func TestALargeValueSaysThatTheDiskIsFull(t *testing.T) {
	fs := memdisk.New()
	o := tinyKV(fs, nil)
	var said strings.Builder
	o.Segment, o.Log = 1<<20, slog.New(slog.NewTextHandler(&said, nil))
	d := mustOpen(t, o)
	wantDone(t, "a second segment", d.store.PrepareSegment())
	fs.SetRoom(fs.Used() + o.Segment/2)
	var err error
	for n := 0; err == nil; n++ {
		_, err = d.Set(SetRequest{Key: Key{"a", fmt.Sprint(n)}, Data: make([]byte, 400<<10), Check: AnyVersion})
	}
	wantFull(t, d, "a large value", err)
	if !d.Stats().DiskFull {
		t.Error("the figures do not say that the disk is full")
	}
	mustClose(t, d)
	if !strings.Contains(said.String(), "disk full") {
		t.Errorf("the log does not say that the disk is full:\n%s", said.String())
	}
}

// The newest values are in the segment that is being written. Their room is given back too, on
// disks with room for only a few segments.
func TestDeletesOfTheNewestMakeRoomOnAFullDisk(t *testing.T) {
	for segments := 2; segments <= 6; segments++ {
		fs := memdisk.New()
		o := tinyKV(fs, nil)
		o.Segment = 256 << 10
		o.CheckpointEvery = o.Segment
		d := mustOpen(t, o)
		awaitPrepared(d)
		fs.SetRoom(fs.Used() + int64(segments-1)*o.Segment + o.Segment/4)
		set := func(n int) error {
			_, err := d.Set(SetRequest{Key: Key{"a", fmt.Sprint(n)}, Data: make([]byte, 20<<10), Check: AnyVersion})
			return err
		}
		n := 0
		var err error
		for ; err == nil; n++ {
			// While the next segment is made nothing is held back yet.
			if err := d.store.PrepareSegment(); err != nil && !disk.IsFull(err) {
				t.Fatal(err)
			}
			err = set(n)
		}
		wantFull(t, d, "a value", err)
		n-- // it was refused
		for round := 0; round < 20 && n >= 5; round++ {
			for i := n - 4; i < n; i++ {
				if err := d.DeleteValue(Key{"a", fmt.Sprint(i)}, AnyVersion); err != nil {
					t.Fatalf("%d segments, round %d: delete: %v", segments, round, err)
				}
			}
			for i := n - 4; i < n-1; i++ {
				if err := set(i); err != nil {
					t.Fatalf("%d segments, round %d: four of %d values were deleted, and there is no room for three: %v; %+v", segments, round, n, err, d.Stats())
				}
			}
			n--
		}
		mustClose(t, d)
	}
}

// Tombstones of deletes that are spread over many segments do not use up the last one
// before any segment has much garbage.
func TestSpreadDeletesAreNotRefusedOnAFullDisk(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 0))
		fs := memdisk.New()
		o := tinyKV(fs, nil)
		o.Segment = 64 << 10
		o.CheckpointEvery = o.Segment
		d := mustOpen(t, o)
		fs.SetRoom(fs.Used() + int64(32+random.IntN(8))*o.Segment/2)
		n := 0
		var err error
		for ; err == nil; n++ {
			_, err = d.Set(SetRequest{Key: Key{"a", fmt.Sprint(n)}, Data: make([]byte, 400+random.IntN(110)), Check: AnyVersion})
		}
		wantFull(t, d, "a value", err)
		for i := range n - 1 {
			if i%10 >= 5 {
				continue
			}
			if err := d.DeleteValue(Key{"a", fmt.Sprint(i)}, AnyVersion); err != nil {
				t.Fatalf("seed %d: delete %d of %d: %v", seed, i, n-1, err)
			}
		}
		mustClose(t, d)
	}
}

// Expired values give their room back just as deleted ones do.
func TestEndedValuesMakeRoomOnAFullDisk(t *testing.T) {
	for every := 1; every <= 3; every++ {
		fs, clock := memdisk.New(), newTestClock()
		o := tinyKV(fs, clock.read)
		o.Segment = 256 << 10
		o.CheckpointEvery = o.Segment
		d := mustOpen(t, o)
		fs.SetRoom(fs.Used() + 6*o.Segment)
		set := func(n int, ttl time.Duration) error {
			_, err := d.Set(SetRequest{Key: Key{"a", fmt.Sprint(n)}, Data: make([]byte, 20<<10), Check: AnyVersion, TTL: ttl})
			return err
		}
		n := 0
		var err error
		for ; err == nil; n++ {
			ttl := time.Duration(0)
			if n%every == 0 {
				ttl = time.Minute
			}
			err = set(n, ttl)
		}
		wantFull(t, d, "a value", err)
		clock.pass(time.Minute + 2*time.Second)
		for i := range n / every / 3 {
			if err := set(n+i, 0); err != nil {
				t.Fatalf("every %d. of %d values has ended, and value %d has no room: %v", every, n, i, err)
			}
		}
		mustClose(t, d)
	}
}

// Files that only make a start or a list faster get none of the blocks that compaction frees.
func TestFullDiskWritesNoCaches(t *testing.T) {
	fs := memdisk.New()
	o := tinyKV(fs, nil)
	o.Segment = 64 << 10
	o.CheckpointEvery = o.Segment
	d := mustOpen(t, o)
	fs.SetRoom(fs.Used() + 8*o.Segment)
	n := 0
	var err error
	for ; err == nil; n++ {
		_, err = d.Set(SetRequest{Key: Key{"a", fmt.Sprint(n)}, Data: make([]byte, 450), Check: AnyVersion})
	}
	wantFull(t, d, "a value", err)
	before := fs.Len()
	for i := range 10 { // too few for a compaction, after which the disk is not full
		wantDone(t, "a delete", d.DeleteValue(Key{"a", fmt.Sprint(i)}, AnyVersion))
		wantDone(t, "a checkpoint", d.store.Checkpoint())
	}
	if !d.Stats().DiskFull {
		t.Fatal("the disk is not full any more")
	}
	checkpoints := 0
	for _, op := range fs.Journal()[before:] {
		switch {
		case strings.HasSuffix(op.Name, "CHECKPOINT") && op.Kind == memdisk.Write:
			checkpoints++
		case strings.Contains(op.Name, "/names/"), strings.Contains(op.Name, "/index"):
			t.Fatalf("on a full disk: %v of %s", op.Kind, op.Name)
		}
	}
	if checkpoints < 2 {
		t.Errorf("%d checkpoints were written", checkpoints)
	}
	mustClose(t, d)
}
