package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// testClock is a Clock that stands still until a test moves it.
type testClock struct {
	mu         sync.Mutex // guards both
	mono, wall int64
}

// epoch is the initial wall time of the tests.
const epoch = int64(1_800_000_000e9)

func newTestClock() *testClock { return &testClock{wall: epoch} }

func (c *testClock) read() (mono, wall int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mono, c.wall
}

// pass advances the clock.
func (c *testClock) pass(t time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mono += int64(t)
	c.wall += int64(t)
}

// step sets the wall clock forward or back, as an administrator would.
func (c *testClock) step(t time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += int64(t)
}

// restart makes the monotonic clock begin anew, as after a reboot.
func (c *testClock) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mono = c.wall % 1e9
}

// bubbleClock is the clock of package time, which a synctest bubble controls.
func bubbleClock() Clock {
	began := time.Now()
	return func() (mono, wall int64) {
		now := time.Now()
		return int64(now.Sub(began)), now.UnixNano()
	}
}

// tiny returns options with which new segments, growth and checkpoints happen all the time.
// The data directory is in directories that do not exist yet.
func tiny(fs disk.FS, clock *testClock) Options {
	return Options{
		FS: fs, Dir: "srv/cloud/data",
		Segment: 16 << 10, Extent: 4096, CheckpointRoom: 4096, CheckpointEvery: 8 << 10,
		Files:      4,         // so that segments are closed and opened again all the time
		QuietAfter: time.Hour, // tests of durability marks set it
		Clock:      clock.read,
		Pause:      func(time.Duration) { runtime.Gosched() },
	}
}

// small returns options for a directory of the real file system.
func small(t *testing.T) Options {
	return Options{Dir: t.TempDir(), Segment: 64 << 10, Extent: 4096, CheckpointRoom: 4096}
}

func mustOpen(t *testing.T, o Options) *DB {
	t.Helper()
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustClose(t *testing.T, d *DB) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// player submits operations. It notes in the disk's journal each request before it is made and
// each answer afterwards. Any number of goroutines may play.
type player struct {
	keeps bool // the disk may be full, so a lock whose caller has gone may not be released
	d     *DB
	fs    *memdisk.FS
	clock *testClock
	ids   *atomic.Int64

	passing sync.Mutex // held while time goes by
}

func newPlayer(d *DB, fs *memdisk.FS, clock *testClock) *player {
	return &player{d: d, fs: fs, clock: clock, ids: new(atomic.Int64)}
}

func (p *player) ask(a asked) asked {
	a.id = p.ids.Add(1)
	a.at = timeOf(p.d)
	p.fs.Mark(a)
	return a
}

// note notes an answer. If the outcome of a write is unknown, nothing is noted and the request
// stays open. A caller that hangs up is not told that the outcome is unknown.
func (p *player) note(a asked, value int64, err error) error {
	if !isUnknown(err) && !(errors.Is(err, context.Canceled) && (p.d.Err() != nil || p.keeps)) {
		p.fs.Mark(answered{id: a.id, done: err == nil, value: value, at: timeOf(p.d)})
	}
	return err
}

func (p *player) add(kind uint8, k Key, n int64) (v int64, err error) {
	a := p.ask(asked{verb: verbAdd, kind: kind, key: k, n: n})
	if kind == kindSequence {
		v, err = p.d.AddSequence(k, n)
	} else {
		v, err = p.d.AddCounter(k, n, -1000, 1000)
	}
	return v, p.note(a, v, err)
}

func (p *player) reset(kind uint8, k Key) (err error) {
	a := p.ask(asked{verb: verbReset, kind: kind, key: k})
	if kind == kindSequence {
		err = p.d.ResetSequence(k)
	} else {
		err = p.d.ResetCounter(k)
	}
	return p.note(a, 0, err)
}

func (p *player) lock(ctx context.Context, r LockRequest) (int64, error) {
	a := p.ask(asked{verb: verbLock, kind: kindLock, key: r.Key, owner: r.Owner, token: r.Token, dur: int64(r.Dur)})
	token, err := p.d.Lock(ctx, r)
	return token, p.note(a, token, err)
}

func (p *player) unlock(k Key, token int64) error {
	a := p.ask(asked{verb: verbUnlock, kind: kindLock, key: k, token: token})
	return p.note(a, 0, p.d.Unlock(UnlockRequest{Key: k, Token: token}))
}

// pass advances the clock. The note comes first: a hold that ends meanwhile may end on disk
// from then on.
func (p *player) pass(t time.Duration) {
	p.passing.Lock()
	defer p.passing.Unlock()
	p.fs.Mark(passed{int64(t)})
	p.clock.pass(t)
}

// setClock sets the wall clock while nothing else is in flight, and makes the database notice
// it.
func (p *player) setClock(t time.Duration) error {
	p.fs.Mark(stepping{int64(t)})
	p.clock.step(t)
	if _, err := p.add(kindSequence, Key{"hot", "0"}, 1); err != nil {
		return err
	}
	p.fs.Mark(noticed{})
	return nil
}

// timeOf returns the database time, in which all expiries are.
func timeOf(d *DB) int64 { return d.store.Clock.Now() }

// verb names the operation of a note.
type verb uint8

const (
	verbAdd verb = iota
	verbReset
	verbLock
	verbUnlock
	verbSet
	verbDelete
)

// kindValue stands for values in notes; in the files values have no kind.
const kindValue uint8 = 0

// content returns the n-th value. Its length depends on n.
func content(n int64) []byte {
	b := fmt.Appendf(nil, "%d,", n)
	return append(b, bytes.Repeat([]byte{byte(n)}, int(n%997))...)
}

// contentOf returns the n of content(n), or -1.
func contentOf(b []byte) int64 {
	digits, _, _ := strings.Cut(string(b), ",")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !bytes.Equal(b, content(n)) {
		return -1
	}
	return n
}

// set stores the value content(n), without a ttl if that is 0.
func (p *player) set(k Key, n int64, ttl time.Duration) (version int64, err error) {
	a := p.ask(asked{verb: verbSet, kind: kindValue, key: k, n: n, dur: int64(ttl)})
	version, err = p.d.Set(SetRequest{Key: k, Data: content(n), Type: "a/b", TTL: ttl, Check: AnyVersion})
	return version, p.note(a, version, err)
}

func (p *player) remove(k Key) error {
	a := p.ask(asked{verb: verbDelete, kind: kindValue, key: k})
	return p.note(a, 0, p.d.DeleteValue(k, AnyVersion))
}

// watcher is an Observer that remembers what it was told.
type watcher struct {
	mu               sync.Mutex // guards what follows
	batches          []commit.Batch
	waits, handOvers []time.Duration
}

func (w *watcher) Committed(b commit.Batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batches = append(w.batches, b)
}

func (w *watcher) Waited(_ LockKind, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits = append(w.waits, d)
}

func (w *watcher) HandedOver(_ LockKind, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handOvers = append(w.handOvers, d)
}

// soon receives from a channel that must have a value soon.
func soon[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatal(what, "does not come")
		panic("not reached")
	}
}

// await polls for a condition that has nothing to wait on.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not after 30 s: %s", what)
		}
	}
}
