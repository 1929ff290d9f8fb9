package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clouddragon/db/store"
	"clouddragon/internal/archive"
	"clouddragon/internal/disk"
)

// stepper is a worker whose state after k steps is known, so that a copy can be compared with
// it. Step k changes one of several things that only this worker uses.
type stepper struct {
	d    *DB
	acc  string
	done atomic.Int64 // steps that were acknowledged
}

const (
	stepsToValue = 5
	// cold is the number of counters. It is large, so that most of them have not changed since
	// the last checkpoint and are not in the log after it.
	cold = 101
)

func coldID(k int64) string { return "cold" + strconv.FormatInt(k/stepsToValue%cold, 10) }

func (s *stepper) step(k int64) error {
	key := func(id string) Key { return Key{s.acc, id} }
	switch k % stepsToValue {
	case 0:
		if n, err := s.d.AddSequence(key("all"), 1); err != nil || n != k/stepsToValue+1 {
			return fmt.Errorf("sequence: %d, %w", n, err)
		}
	case 1:
		_, err := s.d.AddSequence(key("new"+strconv.FormatInt(k, 10)), k) // tables grow
		return err
	case 2:
		_, err := s.d.Set(SetRequest{Key: key("value"), Data: bytes.Repeat([]byte{byte(k)}, int(k%3000)), Type: strconv.FormatInt(k, 10), Check: AnyVersion})
		return err
	case 3:
		_, err := s.d.AddCounter(key(coldID(k)), k, math.MinInt64, math.MaxInt64)
		return err
	case 4:
		r := LockRequest{Key: key("lock"), Owner: "o", Dur: time.Hour}
		if k/stepsToValue%2 == 1 {
			return s.d.Unlock(UnlockRequest{Key: r.Key, Owner: "o"})
		}
		_, err := s.d.Lock(context.Background(), r)
		return err
	}
	return nil
}

// run goes on until stop says so before a step.
func (s *stepper) run(stop func(k int64) bool) error {
	for k := s.done.Load(); !stop(k); k++ {
		if err := s.step(k); err != nil {
			return fmt.Errorf("account %s, step %d: %w", s.acc, k, err)
		}
		s.done.Store(k + 1)
	}
	return nil
}

// stepState is the state of a worker's things.
type stepState struct {
	all      int64
	news     int64 // sequences that were made
	counters [cold]int64
	value    string // Content-Type of the value
	held     bool
}

// after returns the state after k steps.
func after(k int64) (s stepState) {
	for i := range k {
		switch i % stepsToValue {
		case 0:
			s.all++
		case 1:
			s.news++
		case 2:
			s.value = strconv.FormatInt(i, 10)
		case 3:
			s.counters[i/stepsToValue%cold] += i
		case 4:
			s.held = i/stepsToValue%2 == 0
		}
	}
	return s
}

// steps returns the number of steps, at most most, after which the worker's things were as the
// database has them. It returns an error if they never were in that state.
func (s *stepper) steps(d *DB, most int64) (int64, error) {
	key := func(id string) Key { return Key{s.acc, id} }
	var got stepState
	var errs [3]error
	got.all, errs[0] = d.Sequence(key("all"))
	for k := int64(1); k <= most+stepsToValue; k += stepsToValue {
		n, err := d.Sequence(key("new" + strconv.FormatInt(k, 10)))
		switch {
		case err == nil && (n != k || got.news != k/stepsToValue):
			return 0, fmt.Errorf("sequence %d is %d, and %d of those before are there", k, n, got.news)
		case err == nil:
			got.news++
		case !errors.Is(err, ErrNotFound):
			return 0, err
		}
	}
	v, err := d.Get(key("value"))
	if errs[1] = err; err == nil {
		got.value = v.Type
		k, err := strconv.ParseInt(v.Type, 10, 64)
		if err != nil || !bytes.Equal(v.Data, bytes.Repeat([]byte{byte(k)}, int(k%3000))) {
			return 0, fmt.Errorf("the value of step %q has other bytes", v.Type)
		}
	}
	for i := range got.counters {
		if got.counters[i], err = d.Counter(key("cold" + strconv.Itoa(i))); err != nil && !errors.Is(err, ErrNotFound) {
			return 0, err
		}
	}
	_, errs[2] = d.LockHolder(key("lock"))
	got.held = errs[2] == nil
	for _, err := range errs {
		if err != nil && !errors.Is(err, ErrNotFound) {
			return 0, err
		}
	}
	first := max(0, (got.all-1)*stepsToValue)
	for k := first; k <= first+stepsToValue; k++ {
		if after(k) == got {
			return k, nil
		}
	}
	return 0, fmt.Errorf("account %s: there never was the state %+v, nearest %+v", s.acc, got, after(first))
}

// extract writes the files of an archive to a new directory.
func extract(t *testing.T, backup []byte) (dir string, m *archive.Manifest) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, archive.LogDir), 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := archive.Read(bytes.NewReader(backup), func(name string, size int64, r io.Reader) error {
		b, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir, m
}

// verified extracts a backup, checks it with Verify and opens it.
func verified(t *testing.T, backup []byte, o Options) (*DB, *archive.Manifest) {
	t.Helper()
	dir, m := extract(t, backup)
	o.FS, o.Dir = disk.OS{}, dir
	if _, err := store.VerifyWith(store.Options{Dir: dir, Segment: o.Segment, Extent: o.Extent}, func(d *disk.Damage) { t.Error("damaged:", d) }); err != nil || t.Failed() {
		t.Fatal(err)
	}
	return mustOpen(t, o), m
}

// pacedWriter accepts each piece only after a worker has taken some more steps, so that much
// changes during a backup.
type pacedWriter struct {
	bytes.Buffer
	worker *stepper
	steps  int64
	stop   *atomic.Bool // the worker has ended
}

func (p *pacedWriter) Write(b []byte) (int, error) {
	for next := p.worker.done.Load() + p.steps; p.worker.done.Load() < next && !p.stop.Load(); {
		runtime.Gosched()
	}
	return p.Buffer.Write(b)
}

// TestBackupShowsOneMoment takes backups, some of them two at a time, while everything changes
// and checkpoints, compaction and growth go on. Each backup has everything that was
// acknowledged before it began and nothing that was never asked for, and the state of each
// worker is one between two of its steps.
func TestBackupShowsOneMoment(t *testing.T) {
	o := small(t)
	o.CheckpointEvery = 32 << 10
	d := mustOpen(t, o)
	defer func() { mustClose(t, d) }()
	var (
		stop    atomic.Bool
		working sync.WaitGroup
		warm    sync.WaitGroup // until every counter is there
		workers []*stepper
	)
	for i := range 4 {
		w := &stepper{d: d, acc: strconv.Itoa(i)}
		workers = append(workers, w)
		warm.Add(1)
		working.Go(func() {
			err := w.run(func(k int64) bool { return k == cold*stepsToValue })
			warm.Done()
			if err == nil {
				err = w.run(func(int64) bool { return stop.Load() })
			}
			if err != nil {
				stop.Store(true)
				t.Error(err)
			}
		})
	}
	warm.Wait()
	var taking sync.WaitGroup
	for slow := range 2 {
		taking.Go(func() {
			for range 4 {
				least, most := make([]int64, len(workers)), make([]int64, len(workers))
				for i, w := range workers {
					least[i] = w.done.Load()
				}
				b := pacedWriter{worker: workers[slow], steps: int64(slow * 3), stop: &stop}
				if _, err := d.Backup(context.Background(), &b, "test"); err != nil {
					t.Error(err)
					return
				}
				for i, w := range workers {
					most[i] = w.done.Load() + 1
				}
				restored, m := verified(t, b.Bytes(), small(t))
				for i, w := range workers {
					got, err := w.steps(restored, most[i])
					if err != nil || got < least[i] || got > most[i] {
						t.Errorf("worker %d: %d steps in the copy, %d before, %d behind it, %v", i, got, least[i], most[i], err)
					}
				}
				v, err := restored.Set(SetRequest{Key: Key{"x", "x"}, Check: AnyVersion})
				if err != nil || v > int64(m.Version)+1 {
					t.Errorf("the manifest says version %d, the next is %d, %v", m.Version, v, err)
				}
				mustClose(t, restored)
			}
		})
	}
	taking.Wait()
	stop.Store(true)
	working.Wait()
	for _, w := range workers {
		if got, err := w.steps(d, w.done.Load()); err != nil || got != w.done.Load() {
			t.Errorf("%d steps, want %d: %v", got, w.done.Load(), err)
		}
	}
}

// The room that a log keeps ready is not in a backup, and what is restored has it again.
func TestBackupOfLittleIsSmall(t *testing.T) {
	o := tiny(disk.OS{}, newTestClock())
	o.Dir, o.Segment = t.TempDir(), 8<<20
	d := mustOpen(t, o)
	wantDone(t, "a write", addN(d, "n", 5))
	var b bytes.Buffer
	if _, err := d.Backup(context.Background(), &b, "test"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	if b.Len() > 512<<10 {
		t.Errorf("a backup of one counter has %d bytes", b.Len())
	}
	o.Dir = t.TempDir()
	mustRestore(t, restoreOf(b.Bytes(), o.Dir))
	d = mustOpen(t, o)
	if n, err := d.Counter(Key{"a", "n"}); n != 5 || err != nil {
		t.Errorf("the counter is %d, %v", n, err)
	}
	for i := range 3 { // none fits into the rest of the segment
		_, err := d.Set(SetRequest{Key: Key{"a", "v"}, Data: make([]byte, 300<<10), Check: AnyVersion})
		wantDone(t, fmt.Sprint("value ", i), err)
	}
	mustClose(t, d)
}
