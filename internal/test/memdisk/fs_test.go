package memdisk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"sync"
	"testing"

	"clouddragon/internal/disk"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %v", what, got, want)
	}
}

// rig is a file on a new disk.
type rig struct {
	t  testing.TB
	fs *FS
	disk.File
}

// newRig makes a file "f" with that content. With durable, the content and the name are
// durable.
func newRig(t testing.TB, content []byte, durable bool) rig {
	t.Helper()
	r := rig{t: t, fs: New()}
	f, err := r.fs.Create("f")
	must(t, err)
	r.File = f
	if durable {
		must(t, r.fs.SyncDir(""))
	}
	if len(content) > 0 {
		r.write(0, content)
	}
	if durable {
		must(t, r.Sync())
	}
	return r
}

func (r rig) write(off int64, p []byte) {
	r.t.Helper()
	if n, err := r.WriteAt(p, off); n != len(p) || err != nil {
		r.t.Fatalf("WriteAt of %d bytes: %d, %v", len(p), n, err)
	}
}

func (r rig) mapped(off int64, n int) disk.Mapping {
	r.t.Helper()
	m, err := r.Map(off, n)
	must(r.t, err)
	return m
}

// read returns a file, nil if it does not exist.
func read(t testing.TB, fs *FS, name string) []byte {
	t.Helper()
	b, err := fs.ReadFile(name)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	must(t, err)
	return b
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// outcome returns the part of an error on which memdisk and the operating system must agree.
func outcome(err error) string {
	for _, e := range []error{nil, iofs.ErrNotExist, iofs.ErrExist, io.EOF, os.ErrClosed} {
		if errors.Is(err, e) {
			return fmt.Sprint(e)
		}
	}
	return "another error"
}

// TestBehavesAsTheOperatingSystem makes the same calls to both and compares every result.
func TestBehavesAsTheOperatingSystem(t *testing.T) {
	for seed := range uint64(10) {
		mem := New()
		must(t, mem.MkdirAll("d/sub"))
		got := runScript(t, mem, "d", seed)
		dir := t.TempDir()
		must(t, os.Mkdir(path.Join(dir, "sub"), 0o755))
		want := runScript(t, disk.OS{}, dir, seed)
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("seed %d, step %d:\n got %s\nwant %s", seed, i, got[i], want[i])
			}
		}
		if n := mem.OpenHandles(); n != 0 {
			t.Errorf("seed %d: %d handles are open, all were closed", seed, n)
		}
	}
}

func runScript(t *testing.T, fs disk.FS, dir string, seed uint64) (log []string) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	handles := map[string]disk.File{}
	note := func(format string, args ...any) { log = append(log, fmt.Sprintf(format, args...)) }
	for range 300 {
		base := []string{"a", "b", "c"}[rnd.IntN(3)]
		name, f := path.Join(dir, base), handles[base]
		off, n := rnd.Int64N(20000), rnd.IntN(6000)
		switch step := rnd.IntN(14); {
		case step == 0:
			created, err := fs.Create(name)
			note("create %s: %s", base, outcome(err))
			if err == nil && f != nil { // of a file that was removed or renamed
				note("close: %s", outcome(f.Close()))
			}
			if err == nil {
				handles[base] = created
			}
		case step == 1 && f == nil:
			f, err := fs.Open(name)
			note("open %s: %s", base, outcome(err))
			if err == nil {
				handles[base] = f
			}
		case step == 2:
			to := []string{"a", "b", "sub"}[rnd.IntN(3)]
			note("rename %s %s: %s", base, to, outcome(fs.Rename(name, path.Join(dir, to))))
		case step == 3:
			note("remove %s: %s", base, outcome(fs.Remove(name)))
		case step == 4:
			names, err := fs.ReadDir(dir)
			note("readdir: %v %s", names, outcome(err))
			note("syncdir: %s", outcome(fs.SyncDir(dir)))
		case f == nil:
		case step == 5:
			note("truncate %s %d: %s", base, off, outcome(f.Truncate(off)))
		case step == 6:
			note("allocate %s %d %d: %s", base, off, n, outcome(f.Allocate(off, int64(n))))
		case step == 7:
			note("sync: %s", outcome(f.Sync()))
			note("close: %s", outcome(f.Close()))
			note("close again: %s", outcome(f.Close()))
			_, err := f.ReadAt(make([]byte, 1), 0)
			note("read after close: %s", outcome(err))
			delete(handles, base)
		case step == 8:
			m, err := f.Map(4096, n+1)
			note("map %s 4096 %d: %s", base, n+1, outcome(err))
			if err == nil {
				m.Store(n/2, []byte{byte(off)})
				note("msync: %s", outcome(m.Sync()))
				note("bytes: %x", m.Bytes())
				note("unmap: %s", outcome(m.Close()))
				note("msync after: %s", outcome(m.Sync()))
			}
		case step <= 10:
			c, err := f.WriteAt(fill(byte(off), n), off)
			note("write %s %d at %d: %d %s", base, n, off, c, outcome(err))
		default:
			b := make([]byte, n)
			c, err := f.ReadAt(b, off)
			size, serr := f.Size()
			note("read %s %d at %d: %d of %d %s %s %x", base, n, off, c, size, outcome(err), outcome(serr), b[:c])
		}
	}
	for _, base := range slices.Sorted(maps.Keys(handles)) {
		note("close: %s", outcome(handles[base].Close()))
	}
	return log
}

func TestMappingsShareTheFilesPages(t *testing.T) {
	r := newRig(t, fill('a', 4*pageSize), true)
	m := r.mapped(pageSize, 2*pageSize-100)
	inner := r.mapped(2*pageSize, 10)
	m.Store(pageSize, []byte("store"))
	if got := inner.Bytes()[:5]; string(got) != "store" {
		t.Errorf("a mapping within another shows %q", got)
	}
	if got := read(t, r.fs, "f")[2*pageSize:][:5]; string(got) != "store" {
		t.Errorf("the file shows %q", got)
	}
	r.write(2*pageSize-2, []byte("write"))
	must(t, r.Allocate(2*pageSize+2, 1))
	if got := m.Bytes()[pageSize-2:][:7]; string(got) != "writ\x00re" {
		t.Errorf("the mapping shows %q", got)
	}
	if want := read(t, r.fs, "f")[pageSize:][:len(m.Bytes())]; !bytes.Equal(m.Bytes(), want) {
		t.Error("the mapping and the file differ")
	}
	// A copy of the disk leaves the memory of the mapping in place.
	before := r.fs.Clone()
	m.Store(0, []byte("later"))
	if got := read(t, r.fs, "f")[pageSize:][:5]; string(got) != "later" {
		t.Errorf("after a Clone the file shows %q", got)
	}
	if got := read(t, before, "f")[pageSize:][:5]; string(got) != "aaaaa" {
		t.Errorf("the Clone shows a later store: %q", got)
	}
	for _, off := range []int64{0, 2 * pageSize} {
		if _, err := r.Map(off, 2*pageSize); err == nil {
			t.Error("a mapping that overlaps another in part is not refused")
		}
	}
	must(t, m.Close())
	must(t, inner.Close())
	m = r.mapped(0, 3*pageSize)
	if got := m.Bytes()[pageSize:][:5]; string(got) != "later" {
		t.Errorf("mapped anew, the file shows %q", got)
	}
	must(t, m.Close())
	if m.Bytes() != nil {
		t.Error("a closed mapping has bytes")
	}
}

func TestManyGoroutinesMayUseADisk(t *testing.T) {
	fs := New()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			name := fmt.Sprint("f", g)
			f, err := fs.Create(name)
			must(t, err)
			must(t, f.Allocate(0, 2*pageSize))
			m, err := f.Map(0, pageSize)
			must(t, err)
			for i := range 200 {
				m.Store(i*8, fill(byte(i), 8))
				_, err := f.WriteAt(fill(byte(i), 100), pageSize+int64(i))
				must(t, err)
				must(t, m.Sync())
				fs.Mark(i)
				if i%50 == 0 {
					read(t, fs.Clone(), name)
					read(t, fs.Reopen(), name)
					fs.Crash(fs.Len(), rand.New(rand.NewPCG(1, 1)))
				}
			}
			must(t, errors.Join(m.Close(), f.Close(), fs.SyncDir("")))
		})
	}
	wg.Wait()
	if n := fs.OpenHandles(); n != 0 {
		t.Errorf("%d handles are open", n)
	}
	for g := range 4 {
		b := read(t, fs.Cut(fs.Len()).Everything(), fmt.Sprint("f", g))
		if len(b) != 2*pageSize || b[199*8] != 199 || b[pageSize+199] != 199 {
			t.Errorf("f%d: %d bytes, not what was written last", g, len(b))
		}
	}
}
