package memdisk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// seen returns how often each outcome occurs in many random states of the last cut.
func seen(fs *FS, what func(*FS) string) map[string]int {
	c, rnd, m := fs.Cut(fs.Len()), rand.New(rand.NewPCG(7, 7)), map[string]int{}
	for range 1000 {
		m[what(c.Random(rnd))]++
	}
	return m
}

// wantStates checks that the states of the last cut are exactly these.
func wantStates(t *testing.T, fs *FS, what func(*FS) string, want ...string) {
	t.Helper()
	got := seen(fs, what)
	for _, w := range want {
		if got[w] == 0 {
			t.Errorf("no state with %q in %v", w, got)
		}
		delete(got, w)
	}
	if len(got) > 0 {
		t.Errorf("states that no power cut leaves: %v (possible: %q)", got, want)
	}
}

// letters shows a file by the first byte of each run of n bytes, "-" if it does not exist.
func letters(t *testing.T, name string, n int) func(*FS) string {
	return func(fs *FS) string {
		b := read(t, fs, name)
		if b == nil {
			return "-"
		}
		var s strings.Builder
		for i := 0; i < len(b); i += n {
			if b[i] == 0 {
				b[i] = '0'
			}
			s.WriteByte(b[i])
		}
		return s.String()
	}
}

func names(fs *FS) string { return strings.Join(fs.Files(), " ") }

func TestSyncedDataNeverVanishes(t *testing.T) {
	r := newRig(t, fill('a', 1024), true)
	wantStates(t, r.fs, letters(t, "f", sector), "aa")
	r.write(0, fill('b', 512))
	must(t, r.Sync())
	wantStates(t, r.fs, letters(t, "f", sector), "ba")
	if r.fs.Cut(r.fs.Len()).Unsynced() {
		t.Error("all is synced, the cut says that something is not")
	}
}

func TestEachUnsyncedSectorHoldsAnyOfItsVersions(t *testing.T) {
	r := newRig(t, fill('a', 1024), true)
	r.write(0, fill('b', 1024))
	r.write(512, fill('c', 512))
	wantStates(t, r.fs, letters(t, "f", sector), "aa", "ab", "ac", "ba", "bb", "bc")
	c := r.fs.Cut(r.fs.Len())
	if got := letters(t, "f", sector)(c.Nothing()); got != "aa" {
		t.Errorf("nothing survives: %q", got)
	}
	if got := letters(t, "f", sector)(c.Everything()); got != "bc" || !c.Unsynced() {
		t.Errorf("everything survives: %q, unsynced: %v", got, c.Unsynced())
	}
}

func TestWritesAreNotTornInsideASectorButStoresAreBetweenWords(t *testing.T) {
	mixed := func(fs *FS) string {
		b := read(t, fs, "f")[:sector]
		words := map[byte]bool{}
		for i := 0; i < sector; i += 8 {
			if !bytes.Equal(b[i:i+8], fill(b[i], 8)) {
				return "torn word"
			}
			words[b[i]] = true
		}
		return map[bool]string{true: "torn", false: "whole"}[len(words) > 1]
	}
	r := newRig(t, fill('a', pageSize), true)
	r.write(0, fill('b', sector))
	wantStates(t, r.fs, mixed, "whole")

	r = newRig(t, fill('a', pageSize), true)
	m := r.mapped(0, pageSize)
	m.Store(0, fill('b', sector))
	m.Store(0, fill('c', sector))
	wantStates(t, r.fs, mixed, "whole", "torn")
	r.fs.TearStores(false)
	wantStates(t, r.fs, mixed, "whole")
	r.fs.TearStores(true)
	must(t, m.Sync())
	wantStates(t, r.fs, mixed, "whole")
}

func TestLengthIsAnyThatWasNotSynced(t *testing.T) {
	r := newRig(t, fill('a', 512), true)
	r.write(512, fill('b', 512))
	wantStates(t, r.fs, letters(t, "f", sector), "a", "a0", "ab")
	wantStates(t, r.fs, func(fs *FS) string { // bytes that a shorter length has cut off do not come back
		f, err := fs.Open("f")
		must(t, err)
		n, err := f.Size()
		must(t, err)
		must(t, f.Truncate(2*sector))
		return fmt.Sprint(n, letters(t, "f", sector)(fs))
	}, "512a0", "1024a0", "1024ab")
	must(t, r.Truncate(0))
	wantStates(t, r.fs, letters(t, "f", sector), "a", "a0", "ab", "0", "00", "0b", "")
	must(t, r.Sync())
	wantStates(t, r.fs, letters(t, "f", sector), "")
	must(t, r.Allocate(512, 1024))
	wantStates(t, r.fs, letters(t, "f", sector), "", "000")
}

func TestMappingSyncCoversItsPagesAndNoLength(t *testing.T) {
	r := newRig(t, fill('a', pageSize), true)
	must(t, r.Allocate(pageSize, 2*pageSize))
	m := r.mapped(pageSize, pageSize)
	m.Store(0, fill('m', pageSize))
	r.write(0, fill('b', sector))
	must(t, m.Sync())
	wantStates(t, r.fs, letters(t, "f", pageSize), "a", "b", "am0", "bm0")
	must(t, r.Sync())
	m.Store(0, fill('n', pageSize))
	must(t, r.Sync()) // a file's Sync covers stores as well
	wantStates(t, r.fs, letters(t, "f", pageSize), "bn0")
}

func TestSyncCoversOnlyWhatCameBeforeIt(t *testing.T) {
	r := newRig(t, fill('a', pageSize), true)
	m := r.mapped(0, pageSize)
	r.fs.Fail(func(op Op) error { // a store during the sync
		if op.Kind == Sync || op.Kind == SyncMap {
			m.Store(8, fill('c', 8))
		}
		return nil
	})
	for _, sync := range []func() error{m.Sync, r.Sync} {
		m.Store(0, fill('b', 16))
		must(t, sync())
		wantStates(t, r.fs, letters(t, "f", pageSize/512), "bb"+strings.Repeat("a", 510), "bc"+strings.Repeat("a", 510))
		m.Store(8, fill('b', 8))
	}
	r.fs.Fail(func(op Op) error {
		switch op.Kind {
		case Sync:
			return r.Truncate(2 * pageSize)
		case SyncDir:
			return r.fs.Rename("f", "g")
		}
		return nil
	})
	must(t, r.Sync())
	must(t, r.fs.SyncDir(""))
	wantStates(t, r.fs, names, "f", "g")
	wantStates(t, r.fs, func(fs *FS) string {
		return letters(t, "f", pageSize)(fs) + letters(t, "g", pageSize)(fs)
	}, "b-", "-b", "b0-", "-b0")
}

func TestWhatIsWrittenDuringAFailedSyncIsNotLost(t *testing.T) {
	r := newRig(t, fill('a', 2*sector), true)
	r.write(0, fill('b', sector))
	r.fs.Fail(func(op Op) error {
		if op.Kind != Sync {
			return nil
		}
		r.write(sector, fill('c', sector))
		return errDisk
	})
	wantErr(t, "Sync", r.Sync(), errDisk)
	r.fs.Fail(nil)
	must(t, r.Sync())
	wantStates(t, r.fs, letters(t, "f", sector), "ac", "bc")
}

func TestNamesCountOnlyAfterSyncDir(t *testing.T) {
	r := newRig(t, fill('a', 8), false)
	must(t, r.Sync()) // of the file, not of its name
	wantStates(t, r.fs, names, "", "f")
	must(t, r.fs.SyncDir(""))
	wantStates(t, r.fs, names, "f")
	must(t, r.fs.Rename("f", "g"))
	wantStates(t, r.fs, names, "f", "g")
	must(t, r.fs.SyncDir(""))
	wantStates(t, r.fs, names, "g")
	must(t, r.fs.Remove("g"))
	wantStates(t, r.fs, letters(t, "g", 8), "a", "-")
	must(t, r.fs.SyncDir(""))
	wantStates(t, r.fs, names, "")
}

func TestRenameOverAFileLeavesOneOfBoth(t *testing.T) {
	r := newRig(t, fill('a', 8), true)
	must(t, r.fs.WriteFile("new", fill('b', 8)))
	must(t, r.fs.Rename("new", "f"))
	wantStates(t, r.fs, letters(t, "f", 8), "a", "b")
	must(t, r.fs.SyncDir(""))
	wantStates(t, r.fs, letters(t, "f", 8), "b")
	r.write(0, fill('x', 8)) // the old file has no name
	wantStates(t, r.fs, letters(t, "f", 8), "b")
	if r.fs.Cut(r.fs.Len()).Unsynced() {
		t.Error("a write to a file that is gone counts as not durable")
	}
}

func TestADirectoryKeepsAPrefixOfItsOperations(t *testing.T) {
	fs := New()
	must(t, fs.MkdirAll("d/e"))
	for _, n := range []string{"d/1", "d/2", "d/e/3"} {
		f, err := fs.Create(n)
		must(t, err)
		must(t, f.Close())
	}
	must(t, fs.Rename("d/1", "d/0"))
	want := []string{"", "d/1", "d/1 d/2", "d/0 d/2", "d/e/3", "d/1 d/e/3", "d/1 d/2 d/e/3", "d/0 d/2 d/e/3"}
	wantStates(t, fs, names, want...)
	must(t, fs.SyncDir("d"))
	must(t, fs.SyncDir("d/e"))
	wantStates(t, fs, names, "", "d/0 d/2 d/e/3") // d itself is not in a synced directory
	must(t, fs.SyncDir("/"))
	wantStates(t, fs, names, "d/0 d/2 d/e/3")
}

// failNext makes the next call of a kind fail.
func failNext(fs *FS, kind Kind, err error) {
	done := false
	fs.Fail(func(op Op) error {
		if done || op.Kind != kind {
			return nil
		}
		done = true
		return err
	})
}

func TestGoodSyncAfterAFailedOneSavesNothing(t *testing.T) {
	for _, kind := range []Kind{Sync, SyncMap} {
		r := newRig(t, fill('a', 2*pageSize), true)
		m := r.mapped(0, pageSize)
		m.Store(0, fill('b', 1024))
		failNext(r.fs, kind, errDisk)
		sync := map[Kind]func() error{Sync: r.Sync, SyncMap: m.Sync}[kind]
		wantErr(t, "failing sync", sync(), errDisk)
		r.fs.TearStores(false)
		head := func(fs *FS) string { return letters(t, "f", sector)(fs)[:3] }
		for range 2 {
			must(t, m.Sync())
			must(t, r.Sync())
			if got := head(r.fs); got != "bba" {
				t.Errorf("after a failed sync the file reads %q", got)
			}
			if got := head(r.fs.Reopen()); got != "bba" {
				t.Errorf("after a failed sync a new process reads %q", got)
			}
			wantStates(t, r.fs, head, "aaa", "aba", "baa", "bba")
		}
		// A new process reads the file and writes a part of it again. Only that part is safe.
		again := r.fs.Reopen()
		f, err := again.Open("f")
		must(t, err)
		_, err = f.WriteAt(fill('b', sector), sector)
		must(t, err)
		wantStates(t, again, head, "aaa", "aba", "baa", "bba")
		must(t, f.Sync())
		wantStates(t, again, head, "aba", "bba")
	}
}

func TestRewriteHealsOnlyItsOwnBytes(t *testing.T) {
	r := newRig(t, fill('a', 32), true)
	r.write(0, fill('b', 32))
	failNext(r.fs, Sync, errDisk)
	wantErr(t, "Sync", r.Sync(), errDisk)
	r.write(8, fill('b', 8))
	r.write(24, fill('c', 8))
	wantStates(t, r.fs, letters(t, "f", 8), "aaaa", "bbbb", "abaa", "abac", "bbbc")
	must(t, r.Sync())
	wantStates(t, r.fs, letters(t, "f", 8), "abac", "bbbc")
	r.write(0, fill('b', 24))
	must(t, r.Sync())
	wantStates(t, r.fs, letters(t, "f", 8), "bbbc")
	if r.fs.Cut(r.fs.Len()).Unsynced() {
		t.Error("all that was lost is healed, the cut says that something is not")
	}
}

func TestFailedSyncDirIsMadeUpForByTheNext(t *testing.T) {
	r := newRig(t, nil, false)
	failNext(r.fs, SyncDir, errDisk)
	wantErr(t, "SyncDir", r.fs.SyncDir(""), errDisk)
	wantStates(t, r.fs, names, "", "f")
	must(t, r.fs.SyncDir(""))
	wantStates(t, r.fs, names, "f")
}
