package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"clouddragon/internal/archive"
	"clouddragon/internal/test/memdisk"
)

// TestPowerCutKeepsWhatWasAcknowledgedDuringABackup cuts the power while a backup is under way.
// Each complete backup has everything that was acknowledged before it began, and nothing
// that was asked for after it ended.
func TestPowerCutKeepsWhatWasAcknowledgedDuringABackup(t *testing.T) {
	t.Parallel()
	crash(t, &crasher{t: t, want: 3_000, backups: true})
}

// copying is a note: a backup is about to begin.
type copying struct{ id int64 }

// copied is a note: the backup with that id has ended.
type copied struct {
	id int64
	fs *memdisk.FS // has the copy; nil: the backup failed
}

// copyDir is the directory of a copy.
const copyDir = "copy"

// yieldingBuffer lets other goroutines run before it takes a piece.
type yieldingBuffer struct{ bytes.Buffer }

func (b *yieldingBuffer) Write(p []byte) (int, error) {
	runtime.Gosched()
	return b.Buffer.Write(p)
}

// backup takes a backup during a load and checks that it has no damage.
func (l *load) backup() error {
	id := l.ids.Add(1)
	l.fs.Mark(copying{id})
	fs, err := l.copy()
	l.fs.Mark(copied{id, fs})
	if errors.Is(err, ErrBackups) {
		return nil
	}
	return err
}

// copy takes a backup and returns a disk that has it in copyDir.
func (l *load) copy() (*memdisk.FS, error) {
	var b yieldingBuffer
	if _, err := l.d.Backup(context.Background(), &b, "test"); err != nil {
		return nil, err
	}
	fs := memdisk.New()
	if err := fs.MkdirAll(copyDir + "/" + archive.LogDir); err != nil {
		return nil, err
	}
	_, err := archive.Read(&b.Buffer, func(name string, _ int64, r io.Reader) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return fs.WriteFile(copyDir+"/"+name, data)
	})
	if err != nil {
		return nil, err
	}
	return fs, verifies(fs, Options{Dir: copyDir, Segment: l.d.store.SegmentSize(), Extent: 4096})
}

// backupsOfALife is the largest number of backups that takeBackups takes.
const backupsOfALife = 20

// takeBackups takes backups, one after the other, until the workers have ended.
func (l *load) takeBackups() {
	for n := 0; n < backupsOfALife && l.busy.Load() > 0; n++ {
		if err := l.backup(); err != nil {
			l.fail(fmt.Errorf("backup: %w", err))
			return
		}
	}
}

// checkCopies opens each backup of a run and checks it against the notes. It returns the
// number of backups.
func checkCopies(notes []any, o Options) (n int, err error) {
	now := newLedger()
	then := make(map[int64]*ledger) // by the id of a backup that is under way
	for _, note := range notes {
		switch c := note.(type) {
		case copying:
			then[c.id] = now.clone()
			continue
		case copied:
			if c.fs != nil {
				if err := checkCopy(c.fs, then[c.id], o); err != nil {
					return n, fmt.Errorf("backup %d: %w", c.id, err)
				}
				n++
			}
			delete(then, c.id)
			continue
		case answered: // a backup that is under way may lack it
		default:
			for _, l := range then {
				l.enter(note)
			}
		}
		now.enter(note)
	}
	return n, nil
}

func checkCopy(fs *memdisk.FS, l *ledger, o Options) error {
	clock := newTestClock()
	clock.step(time.Duration(l.wall - epoch))
	clock.restart()
	o.FS, o.Dir, o.Clock = fs, copyDir, clock.read
	d, err := Open(o)
	if err != nil {
		return err
	}
	_, err = l.check(d)
	return errors.Join(err, d.Close())
}

// underWay returns for each place in a journal how many backups are under way there.
func underWay(journal []memdisk.Op) []int {
	n, at := 0, make([]int, len(journal)+1)
	for i, op := range journal {
		at[i] = n
		switch op.Note.(type) {
		case copying:
			n++
		case copied:
			n--
		}
	}
	at[len(journal)] = n
	return at
}
