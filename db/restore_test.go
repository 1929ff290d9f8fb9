package db

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clouddragon/internal/archive"
)

// smallBackup is a backup of a directory with one thing of each kind.
func smallBackup(t *testing.T, d *DB) []byte {
	t.Helper()
	s := stepper{d: d, acc: "a"}
	if err := s.run(func(k int64) bool { return k == 40 }); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := d.Backup(context.Background(), &b, "test"); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func restoreOf(b []byte, dir string) RestoreOptions {
	return RestoreOptions{Dir: dir, Extent: 4096, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}

func mustRestore(t *testing.T, o RestoreOptions) Restored {
	t.Helper()
	r, err := Restore(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// openRestored opens a directory that was restored.
func openRestored(t *testing.T, dir string) *DB {
	t.Helper()
	o := small(t)
	o.Dir = dir
	return mustOpen(t, o)
}

// TestRestoredServerRepeatsNoNumber goes on for long after a backup, over a restart too, and
// then restores the backup: no version and no token is used twice.
func TestRestoredServerRepeatsNoNumber(t *testing.T) {
	o := small(t)
	d := mustOpen(t, o)
	b := smallBackup(t, d)
	mustClose(t, d)
	d = mustOpen(t, o)
	var version, token int64
	for range 100 {
		var err error
		if version, err = d.Set(SetRequest{Key: Key{"a", "x"}, Check: AnyVersion}); err != nil {
			t.Fatal(err)
		}
		if token, err = d.LockMutex(context.Background(), LockRequest{Key: Key{"a", "m"}, Dur: time.Minute, Owner: "o"}); err != nil {
			t.Fatal(err)
		}
		if err := d.UnlockMutex(UnlockRequest{Key: Key{"a", "m"}, Owner: "o"}); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, d)

	dir := filepath.Join(t.TempDir(), "new", "data")
	r := mustRestore(t, restoreOf(b, dir))
	if r.Version < r.Manifest.Version+1<<40 || r.Tokens < r.Manifest.Tokens+1<<40 || r.Report.Slots == 0 || r.Report.Values != 1 {
		t.Errorf("got %+v", r)
	}
	err := filepath.WalkDir(filepath.Dir(dir), func(name string, e fs.DirEntry, err error) error {
		if info, err := e.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
		if e.Name() == "restoring" {
			t.Errorf("%s is left", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	d = openRestored(t, dir)
	if got, err := (&stepper{d: d, acc: "a"}).steps(d, 40); err != nil || got != 40 {
		t.Errorf("%d steps, %v", got, err)
	}
	// The restored data is unchanged.
	if v, err := d.Get(Key{"a", "value"}); err != nil || v.Version > int64(r.Manifest.Version) {
		t.Errorf("got %+v, %v", v, err)
	}
	v, err := d.Set(SetRequest{Key: Key{"a", "x"}, Check: AnyVersion})
	if err != nil || v <= version || v <= int64(r.Version) {
		t.Errorf("the next version is %d, the old server had given %d: %v", v, version, err)
	}
	got, err := d.Lock(context.Background(), LockRequest{Key: Key{"a", "l"}, Dur: time.Minute})
	if err != nil || got <= token || got < int64(r.Tokens) {
		t.Errorf("the next token is %d, the old server had given %d: %v", got, token, err)
	}
	mustClose(t, d)
}

func TestRestoreKeepsOrSkips(t *testing.T) {
	d := mustOpen(t, small(t))
	b := smallBackup(t, d)
	mustClose(t, d)

	o := restoreOf(b, t.TempDir()) // which is there, and empty
	o.Keep, o.Skip = true, 1_000_000_007
	r := mustRestore(t, o)
	if r.Version != r.Manifest.Version || r.Sequences != 9 {
		t.Errorf("got %+v", r)
	}
	for _, e := range files(t, o.Dir) {
		if info, err := os.Stat(filepath.Join(o.Dir, e)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e, info.Mode(), err)
		}
	}
	d = openRestored(t, o.Dir)
	defer func() { mustClose(t, d) }()
	if v, err := d.Set(SetRequest{Key: Key{"a", "x"}, Check: AnyVersion}); err != nil || v != int64(r.Manifest.Version)+1 {
		t.Errorf("the next version is %d, want %d: %v", v, r.Manifest.Version+1, err)
	}
	for id, want := range map[string]int64{"all": 8, "new1": 1, "new36": 36, "none": -o.Skip} {
		if n, err := d.AddSequence(Key{"a", id}, 1); err != nil || n != want+o.Skip+1 {
			t.Errorf("sequence %s goes on with %d, want %d: %v", id, n, want+o.Skip+1, err)
		}
	}
	if n, err := d.Counter(Key{"a", "cold0"}); err != nil || n != 3 {
		t.Errorf("a counter was skipped: %d, %v", n, err)
	}
}

// TestDamagedBackupIsRefusedAndLeavesNothing flips bytes of a backup and cuts off its end.
func TestDamagedBackupIsRefusedAndLeavesNothing(t *testing.T) {
	d := mustOpen(t, small(t))
	b := smallBackup(t, d)
	mustClose(t, d)
	above := t.TempDir()
	refused := func(b []byte, what string, at int) {
		t.Helper()
		_, err := Restore(context.Background(), restoreOf(b, filepath.Join(above, "x", "data")))
		if !errors.Is(err, archive.ErrChanged) && !errors.Is(err, archive.ErrCut) {
			t.Fatalf("%s at byte %d of %d: %v", what, at, len(b), err)
		}
		if left := files(t, above); len(left) > 0 {
			t.Fatalf("%s at byte %d: it leaves %q", what, at, left)
		}
	}
	for at := 0; at < len(b); at += 1 + len(b)/2000 {
		b[at] ^= 0x10
		refused(b, "a flip", at)
		b[at] ^= 0x10
		refused(b[:at], "a cut", at)
	}
	refused(append(b, 0), "one byte more", len(b))
	mustRestore(t, restoreOf(b, filepath.Join(above, "x", "data")))
}

// files returns the contents of a directory and its subdirectories.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && name != dir && !e.IsDir() {
			rel, _ := filepath.Rel(dir, name)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestFailedRestoreLeavesNothing makes each step of a restore fail, after a part of the copy
// was made.
func TestFailedRestoreLeavesNothing(t *testing.T) {
	d := mustOpen(t, small(t))
	if _, err := d.AddSequence(Key{"a", "full"}, 1); err != nil {
		t.Fatal(err)
	}
	b := smallBackup(t, d)
	mustClose(t, d)
	above := t.TempDir()
	dir := filepath.Join(above, "x", "data")
	nothing := func(what, part string, o RestoreOptions) {
		t.Helper()
		_, err := Restore(context.Background(), o)
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, want %q in it", what, err, part)
		}
		if names, err := os.ReadDir(above); err != nil || len(names) > 0 {
			t.Errorf("%s: it leaves %v, %v", what, names, err)
		}
	}
	o := restoreOf(b, dir)
	o.Skip = 1<<63 - 1
	nothing("a sequence that would overflow", `sequence "`, o)

	o = restoreOf(b, dir)
	first := o.Open
	passes := 0
	o.Open = func() (io.ReadCloser, error) {
		if passes++; passes == 2 {
			return io.NopCloser(bytes.NewReader(b[:len(b)/2])), nil
		}
		return first()
	}
	nothing("a file that is cut between the two passes", "cut off", o)

	damaged := damagedBackup(t, b)
	nothing("a backup of a damaged directory", "was damaged when it was backed up", restoreOf(damaged, dir))

	// Existing files stay.
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(context.Background(), restoreOf(b, full)); err == nil || !strings.Contains(err.Error(), "is not empty, it holds mine") {
		t.Errorf("into a directory that is not empty: %v", err)
	}
	if got := files(t, full); len(got) != 1 {
		t.Errorf("it leaves %q", got)
	}
}

// damagedBackup writes a complete backup again, with one of its files damaged.
func damagedBackup(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := archive.NewWriter(&out, time.Now())
	m, err := archive.Read(bytes.NewReader(b), func(name string, size int64, r io.Reader) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if name == "slots-512" {
			data[0] ^= 1
		}
		if err := w.Begin(name, size); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err == nil {
		err = w.Close(*m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestCutOffRestoreIsNoDataDirectory checks that a server does not start where a restore was
// killed.
func TestCutOffRestoreIsNoDataDirectory(t *testing.T) {
	o := small(t)
	if err := os.MkdirAll(filepath.Join(o.Dir, "restoring", "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "a restore into this directory did not end") {
		t.Errorf("got %v", err)
	}
}
