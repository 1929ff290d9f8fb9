package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"clouddragon/internal/archive"
	"clouddragon/kvlog/wal"
)

// slowWriter overwrites a value before it takes its first bytes. The log would be large, if all of
// it were kept for the backup.
type slowWriter struct {
	bytes.Buffer
	d     *DB
	large int64 // bytes to write
	most  int64 // bytes that the log may have then
	once  sync.Once
	err   error
}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.once.Do(func() {
		if w.err = overwrite(w.d, w.large); w.err == nil {
			w.err = logShrinks(w.d, w.most)
		}
	})
	return w.Buffer.Write(p)
}

// overwrite writes n bytes of one value again and again.
func overwrite(d *DB, n int64) error {
	for ; n > 0; n -= 10 << 10 {
		if _, err := d.Set(SetRequest{Key: Key{"a", "v"}, Data: make([]byte, 10<<10), Check: AnyVersion}); err != nil {
			return err
		}
	}
	return nil
}

// logShrinks waits until the log has at most n bytes.
func logShrinks(d *DB, n int64) error {
	for end := time.Now().Add(20 * time.Second); d.Stats().Log.Bytes > n; runtime.Gosched() {
		if time.Now().After(end) {
			return fmt.Errorf("the log has %d bytes still, want at most %d", d.Stats().Log.Bytes, n)
		}
	}
	return nil
}

func TestBackupThatHoldsTooMuchLogIsGivenUp(t *testing.T) {
	t.Parallel()
	o := small(t)
	o.CheckpointEvery, o.BackupHold = 32<<10, 256<<10
	d := mustOpen(t, o)
	wantDone(t, "a write", addN(d, "n", 1))
	// Without a backup the log stays far below this: all of it but one value is garbage.
	w := &slowWriter{d: d, large: 8 * o.BackupHold, most: 3 * o.BackupHold}
	if _, err := d.Backup(context.Background(), w, "test"); !errors.Is(err, ErrBackupHold) || w.err != nil {
		t.Errorf("a slow backup: %v, %v", err, w.err)
	}
	if _, err := archive.Read(&w.Buffer, nil); !errors.Is(err, archive.ErrCut) {
		t.Errorf("what there is of it: %v", err)
	}
	// The log that was kept for it is freed.
	if err := logShrinks(d, 2*o.BackupHold); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Backup(context.Background(), io.Discard, "test"); err != nil {
		t.Errorf("the next one: %v", err)
	}
	mustClose(t, d)
}

// TestLogIsKeptForAFollowerWithinBounds keeps the log for a server that will follow, until
// that is too much or the disk is full.
func TestLogIsKeptForAFollowerWithinBounds(t *testing.T) {
	t.Parallel()
	o := small(t)
	o.CheckpointEvery, o.BackupHold = 32<<10, 256<<10
	d := mustOpen(t, o)
	wantDone(t, "a write", addN(d, "n", 1))
	k, err := d.KeepLog()
	if err != nil {
		t.Fatal(err)
	}
	if err := overwrite(d, 8*o.BackupHold); err != nil {
		t.Fatal(err)
	}
	if err := k.Check(); !errors.Is(err, ErrBackupHold) {
		t.Errorf("with too much log: %v", err)
	}
	for range 2 {
		if err := k.Release(); err != nil {
			t.Error(err)
		}
	}
	if err := logShrinks(d, 2*o.BackupHold); err != nil {
		t.Fatal(err)
	}
	if k, err = d.KeepLog(); err != nil {
		t.Fatal(err)
	}
	if err := k.Check(); err != nil {
		t.Errorf("a new one: %v", err)
	}
	mustClose(t, d)
	if err := k.Check(); !errors.Is(err, ErrStopped) && !errors.Is(err, wal.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	if err := k.Release(); err != nil {
		t.Error(err)
	}
}
