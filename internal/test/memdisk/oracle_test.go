package memdisk

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// oracle is a second version of the crash model, by bytes instead of sectors: what each byte
// of the file reads as, what is on the disk if nothing survives, and every value that may be
// there.
type oracle struct {
	t     *testing.T
	fs    *FS
	bytes [4 * pageSize]struct {
		now, synced byte
		may         []byte
		dirty       bool
	}
	size, syncedSize int64
	maySize          []int64
}

func (o *oracle) write(off, end int64, b byte) {
	for i := off; i < end; i++ {
		c := &o.bytes[i]
		c.now, c.dirty, c.may = b, true, append(c.may, b)
	}
}

func (o *oracle) resize(size int64) {
	if size < o.size {
		o.write(size, o.size, 0)
	}
	if size != o.size {
		o.size, o.maySize = size, append(o.maySize, size)
	}
}

func (o *oracle) sync(off, end int64, err error) {
	for i := off; i < end; i++ {
		if c := &o.bytes[i]; c.dirty {
			if c.dirty = false; err == nil {
				c.synced, c.may = c.now, []byte{c.now}
			}
		}
	}
}

func (o *oracle) check(step int, rnd *rand.Rand) {
	c := o.fs.Cut(o.fs.Len())
	worst, best := read(o.t, c.Nothing(), "f"), read(o.t, c.Everything(), "f")
	if int64(len(worst)) != o.syncedSize || int64(len(best)) != o.size {
		o.t.Fatalf("step %d: %d bytes are durable, %d can be read, want %d, %d", step, len(worst), len(best), o.syncedSize, o.size)
	}
	for i, b := range worst {
		if want := o.bytes[i].synced; b != want {
			o.t.Fatalf("step %d: if nothing survives byte %d is %d, want %d", step, i, b, want)
		}
	}
	for i, b := range best {
		if want := o.bytes[i].now; b != want {
			o.t.Fatalf("step %d: if everything survives byte %d is %d, want %d", step, i, b, want)
		}
	}
	for range 3 {
		state := read(o.t, c.Random(rnd), "f")
		if !slices.Contains(o.maySize, int64(len(state))) {
			o.t.Fatalf("step %d: %d bytes, possible are %d", step, len(state), o.maySize)
		}
		for i, b := range state {
			if !slices.Contains(o.bytes[i].may, b) {
				o.t.Fatalf("step %d: byte %d is %d, possible are %d", step, i, b, o.bytes[i].may)
			}
		}
	}
}

func TestStatesAreThoseOfTheModelToldByteByByte(t *testing.T) {
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		r := newRig(t, nil, true)
		o := &oracle{t: t, fs: r.fs, maySize: []int64{0}}
		for i := range o.bytes {
			o.bytes[i].may = []byte{0}
		}
		for step := range 60 {
			b, off := byte(step+1), rnd.Int64N(3*pageSize)
			end := off + 1 + rnd.Int64N([]int64{40, 700, pageSize}[rnd.IntN(3)])
			var fail error
			if rnd.IntN(4) == 0 {
				fail = errDisk
			}
			r.fs.Fail(func(op Op) error {
				if op.Kind == Sync || op.Kind == SyncMap {
					return fail
				}
				return nil
			})
			switch rnd.IntN(8) {
			case 0, 1:
				r.write(off, fill(b, int(end-off)))
				o.resize(max(end, o.size))
				o.write(off, end, b)
			case 2:
				must(t, r.Allocate(off, end-off))
				o.resize(max(end, o.size))
				o.write(off, end, 0)
			case 3:
				must(t, r.Truncate(off))
				o.resize(off)
			case 4, 5:
				if err := r.Sync(); !errors.Is(err, fail) {
					t.Fatal(err)
				} else if o.sync(0, int64(len(o.bytes)), err); err == nil {
					o.syncedSize, o.maySize = o.size, []int64{o.size}
				}
			default:
				if o.size <= pageSize {
					continue
				}
				m := r.mapped(pageSize, int(o.size-pageSize))
				at := rnd.Int64N(o.size - pageSize)
				n := min(end-off, o.size-pageSize-at)
				m.Store(int(at), fill(b, int(n)))
				o.write(pageSize+at, pageSize+at+n, b)
				if rnd.IntN(2) == 0 {
					err := m.Sync()
					if !errors.Is(err, fail) {
						t.Fatal(err)
					}
					o.sync(pageSize, int64(pagesOf(o.size))*pageSize, err)
				}
				must(t, m.Close())
			}
			if rnd.IntN(10) == 0 {
				fs := r.fs.Reopen()
				f, err := fs.Open("f")
				must(t, err)
				r.fs, r.File, o.fs = fs, f, fs
			}
			o.check(step, rnd)
		}
	}
}
