package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/kvlog/wal"
)

// pair is a server and its follower, in one process.
type pair struct {
	t    *testing.T
	o    Options // of the first
	d    *DB
	mu   sync.Mutex // guards f and sent: the first server compacts in the background
	f    *Follower
	dir  string // of the follower
	sent wal.Frame
}

// Begin, End and Cancel make a pair the Mirror of its first server.
func (p *pair) Begin(f wal.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = f
}

func (p *pair) Cancel() {}
func (p *pair) End(end wal.Pos) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.f == nil {
		return nil
	}
	got, err := p.f.Append(p.sent)
	if err != nil || got != end {
		p.t.Errorf("the follower ends at %+v with %v, the first server at %+v", got, err, end)
	}
	return err
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, dir: filepath.Join(t.TempDir(), "follower")}
	p.o = Options{Dir: filepath.Join(t.TempDir(), "first"), Segment: 64 << 10, CheckpointEvery: 100 << 10, CompactRatio: 1.2, Extent: 8192, QuietAfter: time.Hour, Mirror: p}
	p.d = mustOpen(t, p.o)
	return p
}

// follow makes the follower of a backup and lets it catch up.
func (p *pair) follow() {
	p.t.Helper()
	var copied bytes.Buffer
	if _, err := p.d.Backup(p.t.Context(), &copied, "test"); err != nil {
		p.t.Fatal(err)
	}
	_, err := Restore(p.t.Context(), RestoreOptions{Dir: p.dir, Keep: true, Extent: p.o.Extent, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(copied.Bytes())), nil
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.open()
}

// open cuts the follower's log to where it agrees with the first server's, opens it and lets
// it catch up.
func (p *pair) open() {
	p.t.Helper()
	_, ends, err := Ends(p.dir, 4)
	if err != nil {
		p.t.Fatal(err)
	}
	var r *wal.Reader
	for _, at := range ends {
		if r, err = p.d.Log().NewReader(at); err == nil {
			break
		}
	}
	if err != nil {
		p.t.Fatalf("the first server cannot go on from any of %+v: %v", ends, err)
	}
	defer r.Close()
	if err := Cut(p.dir, r.Pos(), p.d.Log().SegmentSizeAt(r.Pos())); err != nil {
		p.t.Fatal(err)
	}
	o := p.o
	o.Dir, o.Mirror = p.dir, nil
	f, err := OpenFollower(o)
	if err != nil {
		p.t.Fatal(err)
	}
	done, cancel := context.WithCancel(p.t.Context())
	cancel()
	p.mu.Lock() // batches that the first server appends meanwhile are also read and sent
	defer p.mu.Unlock()
	for {
		frame, err := r.NextFrame(done)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err == nil {
			_, err = f.Append(frame)
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	p.f = f
}

// stop stops the follower.
func (p *pair) stop() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	wantDone(p.t, "close the follower", p.f.Close())
	p.f = nil
}

// same checks that the follower reads what the first server reads.
func (p *pair) same() {
	p.t.Helper()
	p.mu.Lock()
	err := p.f.Settle(p.d.Log().Durable())
	p.mu.Unlock()
	if err != nil {
		p.t.Fatal(err)
	}
	p.sameAs(p.f.DB)
}

func (p *pair) sameAs(other *DB) {
	p.t.Helper()
	for i := range 40 {
		k := Key{"a", fmt.Sprint(i)}
		v, err := p.d.Get(k)
		w, err2 := other.Get(k)
		if !errors.Is(err2, err) || err == nil && (v.Version != w.Version || !bytes.Equal(v.Data, w.Data)) {
			p.t.Fatalf("value %d: %d %v, the follower has %d %v", i, v.Version, err, w.Version, err2)
		}
		n, err := p.d.Sequence(k)
		m, err2 := other.Sequence(k)
		if n != m || !errors.Is(err2, err) {
			p.t.Fatalf("sequence %d is at %d %v, the follower's at %d %v", i, n, err, m, err2)
		}
	}
}

// change makes random calls.
func (p *pair) change(random *rand.Rand, calls int) {
	p.t.Helper()
	for range calls {
		k := Key{"a", fmt.Sprint(random.IntN(40))}
		var err error
		switch random.IntN(8) {
		case 0, 1, 2:
			_, err = p.d.Set(SetRequest{Key: k, Data: make([]byte, random.IntN(3000)), Check: AnyVersion, TTL: time.Duration(random.IntN(2)) * time.Hour})
		case 3:
			err = p.d.DeleteValue(k, AnyVersion)
		case 4, 5:
			_, err = p.d.AddSequence(k, 1+int64(random.IntN(3)))
		case 6:
			_, err = p.d.Lock(p.t.Context(), LockRequest{Key: k, Owner: "me", Dur: time.Hour})
		case 7:
			err = p.d.Unlock(UnlockRequest{Key: k, Owner: "me"})
		}
		if held := (*HeldError)(nil); err != nil && !errors.As(err, &held) {
			p.t.Fatal(err)
		}
	}
}

// sameFiles checks that each segment that both servers have holds the same bytes.
func (p *pair) sameFiles() {
	p.t.Helper()
	defer p.d.store.PauseCompaction()() // it appends batches in the background
	for {
		before := p.writes()
		differs := p.compareFiles(fmt.Sprintf("%08d.seg", p.d.Log().Durable().Segment))
		if differs == "" {
			return
		}
		if p.writes() == before && !before.Busy {
			p.t.Errorf("%s differs", differs)
			return
		}
	}
}

// writes shows whether the first server has written anything: compare it with an earlier one.
func (p *pair) writes() commit.Pulse { return p.d.writer.Pulse() }

// compareFiles compares the segments up to last. The next segment may still be in preparation.
func (p *pair) compareFiles(last string) (differs string) {
	p.t.Helper()
	same := 0
	files, err := filepath.Glob(filepath.Join(p.dir, "log", "*.seg"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, name := range files {
		if filepath.Base(name) > last {
			continue
		}
		a, err := os.ReadFile(filepath.Join(p.o.Dir, "log", filepath.Base(name)))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		b, err2 := os.ReadFile(name)
		if err := errors.Join(err, err2); err != nil {
			p.t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			differs = filepath.Base(name)
		}
		same++
	}
	if same == 0 {
		p.t.Error("the two have no segment in common")
	}
	return differs
}

func TestFollowerIsWhatTheFirstServerIs(t *testing.T) {
	freed := uint64(0)
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 1))
		p := newPair(t)
		p.change(random, 100+random.IntN(400))
		p.follow()
		p.sameFiles()
		for range 6 {
			p.change(random, 200)
			p.same()
			at, segments := p.d.Segments()
			p.mu.Lock()
			err := p.f.Release(at, segments)
			p.mu.Unlock()
			wantDone(t, "release", err)
			switch random.IntN(3) {
			case 0: // the follower stops and comes back
				p.stop()
				p.change(random, 20)
				p.open()
			case 1: // the first server restarts
				wantDone(t, "close", p.d.Close())
				p.d = mustOpen(t, p.o)
			}
		}
		p.same()
		p.sameFiles()
		freed += p.f.Stats().Compaction.Freed
		// It takes over.
		p.stop()
		o := p.o
		o.Dir, o.Mirror = p.dir, nil
		other := mustOpen(t, o)
		p.sameAs(other)
		mustClose(t, other)
		mustClose(t, p.d)
	}
	if freed == 0 {
		t.Error("no follower freed a segment")
	}
}

// The first server can fail between the follower's sync and its own. The batch that it then
// lacks was never answered, and the follower gives it up.
func TestFollowerGivesUpWhatTheFirstServerDoesNotHave(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	p := newPair(t)
	p.change(random, 50)
	p.follow()
	p.change(random, 50)
	p.same()
	// The follower has one batch more.
	twin := newPair(t) // makes a batch that the first server never had
	_, err := twin.d.AddSequence(Key{"a", "ahead"}, 5)
	wantDone(t, "add", err)
	twin.mu.Lock()
	kept := twin.sent
	twin.mu.Unlock()
	p.mu.Lock() // the first server compacts in the background
	ahead := p.f.End()
	kept.From, kept.Segment, kept.Size = ahead, ahead.Segment, p.d.Log().SegmentSizeAt(ahead)
	_, err = p.f.Append(kept)
	p.mu.Unlock()
	wantDone(t, "append", err)
	if got, err := p.f.Sequence(Key{"a", "ahead"}); got != 0 {
		t.Errorf("an unanswered batch can be read: %d %v", got, err)
	}
	p.stop()
	p.change(random, 10)
	p.open()
	p.change(random, 10)
	p.same()
	p.sameFiles()
	p.stop()
	mustClose(t, p.d)
	mustClose(t, twin.d)
}

// A follower refuses reads of an account that has moved away since the follower was opened.
func TestFollowerKnowsWhichAccountsHaveMoved(t *testing.T) {
	p := newPair(t)
	p.follow()
	settled := func() *Follower {
		p.mu.Lock()
		defer p.mu.Unlock()
		wantDone(t, "settle", p.f.Settle(p.f.End()))
		return p.f
	}
	start, err := p.d.Freeze("gone", "http://there")
	wantDone(t, "freeze", err)
	if err := settled().Admit("gone"); !errors.As(err, new(*MovingError)) {
		t.Errorf("an account that is being moved: %v, want a *MovingError", err)
	}
	wantDone(t, "depart", p.d.Depart("gone", start.ID))
	if err := settled().Admit("gone"); !errors.As(err, new(*AwayError)) {
		t.Errorf("an account that has moved: %v, want an *AwayError", err)
	}
	if _, err := p.f.ReadRate(Key{"gone", "r"}, Rate{Limit: 1, Per: time.Hour, Burst: 1}); !errors.As(err, new(*AwayError)) {
		t.Errorf("a rate of an account that has moved: %v, want an *AwayError", err)
	}
	if err := settled().Admit("other"); err != nil {
		t.Errorf("another account: %v", err)
	}
	p.stop()
}
