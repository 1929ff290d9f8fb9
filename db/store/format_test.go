package store

import (
	"bytes"
	"hash/crc32"
	"iter"
	"math/rand/v2"
	"reflect"
	"testing"

	"clouddragon/db/commit"
	"clouddragon/internal/format"
	"clouddragon/internal/test/golden"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog/wal"
)

func goldenCheckpoint() checkpoint {
	return checkpoint{
		ID: golden.ID, Room: 0x1000, Number: 0x1122334455667788,
		Log:    wal.Pos{Segment: 0x0102030405060708, Offset: 0x1112131415161718, Seq: 0x2122232425262728, Sum: 0x31323334},
		Tokens: 0x4142434445464748, Version: 0x5152535455565758,
		Moment:   commit.Moment{Now: 0x6162636465666768, Wall: 0x7172737475767778},
		Sizes:    [4]int64{0x1001, 0x1002, 0x1003, 0x1004},
		Used:     [4]uint64{1, 2, 3, 4},
		Segments: []uint64{1, 3, 500},
	}
}

const goldenCheckpointBytes = `
	434443484b50540a 02000000 db1f4f7b b4000000 03000000
	000102030405060708090a0b0c0d0e0f
	8877665544332211
	0807060504030201 1817161514131211 2827262524232221 34333231
	00100000
	4847464544434241 5857565554535251
	6867666564636261 7877767574737271
	0110000000000000 0100000000000000
	0210000000000000 0200000000000000
	0310000000000000 0300000000000000
	0410000000000000 0400000000000000
	01 02 f103`

func TestCheckpointIsAlwaysTheseBytes(t *testing.T) {
	c := goldenCheckpoint()
	golden.Want(t, "the record", c.encode(), goldenCheckpointBytes)
	back, err := decodeCheckpoint(golden.Unhex(goldenCheckpointBytes))
	if err != nil || !reflect.DeepEqual(*back, c) {
		t.Errorf("read back: %+v, %v", back, err)
	}
}

func FuzzCheckpoint(f *testing.F) {
	golden := golden.Unhex(goldenCheckpointBytes)
	f.Add(golden)
	f.Add(golden[:len(golden)-1])
	f.Add(golden[:checkpointHead])
	f.Add([]byte{})
	empty := checkpoint{Room: 4096}
	f.Add(empty.encode())
	many := goldenCheckpoint()
	for i := range uint64(300) {
		many.Segments = append(many.Segments, 501+i*i)
	}
	f.Add(many.encode())
	more := bytes.Clone(golden)
	le.PutUint32(more[20:], 1<<32-1) // segments
	f.Add(more)
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(b []byte) {
			c, err := decodeCheckpoint(b)
			if err != nil {
				return
			}
			again, err := decodeCheckpoint(c.encode())
			if err != nil || !reflect.DeepEqual(c, again) {
				t.Errorf("%+v is written and read back as %+v, %v", c, again, err)
			}
		}
		check(b)
		// The same with a good checksum, so that the checks after it are reached too.
		if len(b) >= checkpointHead {
			b = bytes.Clone(b)
			if n := le.Uint32(b[16:]); n < checkpointHead || int64(n) > int64(len(b)) {
				le.PutUint32(b[16:], uint32(len(b)))
			}
			le.PutUint32(b[12:], crc32.Checksum(b[16:le.Uint32(b[16:])], format.Castagnoli))
			check(b)
		}
	})
}

func TestEachByteOfACheckpointCounts(t *testing.T) {
	good := golden.Unhex(goldenCheckpointBytes)
	for _, bad := range []iter.Seq2[string, []byte]{golden.Flips(good), golden.Cuts(good)} {
		for how, b := range bad {
			if c, err := decodeCheckpoint(b); err == nil {
				t.Errorf("%s: it is still read: %+v", how, c)
			}
		}
	}
}

// A record that does not fit into one sector can be torn, but one of the two copies is always
// good.
func TestCheckpointIsOldOrNewAtEveryPowerCut(t *testing.T) {
	fs := memdisk.New()
	c := goldenCheckpoint()
	c.Number, c.Room = 1, 8<<10
	for i := range uint64(2000) {
		c.Segments = append(c.Segments, 1000+3*i)
	}
	wantDone(t, "mkdir", fs.MkdirAll("data"))
	wantDone(t, "create", createCheckpoint(fs, "data", &c))
	wantDone(t, "sync", fs.SyncDir(""))
	f, _, err := openCheckpoint(fs, "data")
	wantDone(t, "open", err)
	from := fs.Len()
	for c.Number < 6 {
		c.Number++
		c.Segments[len(c.Segments)-1]++
		c.Log.Seq = c.Number
		fs.Mark(c.Number)
		wantDone(t, "write", f.write(&c))
	}
	rnd := rand.New(rand.NewPCG(9, 10))
	for cut := range fs.Cuts() {
		if cut.At() < from {
			continue
		}
		newest := uint64(1)
		if marks := cut.Marks(); len(marks) > 0 {
			newest = marks[len(marks)-1].(uint64)
		}
		for range 50 {
			f, got, err := openCheckpoint(cut.Random(rnd), "data")
			if err != nil || got.Number != newest && got.Number != newest-1 || got.Log.Seq != got.Number && got.Number > 1 {
				t.Fatalf("after %v: %+v, %v", cut.Last(), got, err)
			}
			wantDone(t, "close", f.f.Close())
		}
	}
	wantDone(t, "close", f.f.Close())
}

func wantDone(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
