package store

import (
	"context"
	"io"
	"testing"
	"time"

	"clouddragon/kvlog/wal"
)

// pacing is a pace on a clock of its own.
type pacing struct {
	*pace
	at    time.Time
	batch uint64
	slept time.Duration
	late  time.Duration // by which a sleep is longer than asked for
	hurry bool
}

func newPacing() *pacing {
	p := &pacing{at: time.Unix(1, 0)}
	p.pace = newPace(pace{
		w: io.Discard, now: func() time.Time { return p.at }, log: func() wal.Pos { return wal.Pos{Seq: p.batch} },
		sleep: func(d time.Duration) { p.at = p.at.Add(d + p.late); p.slept += d + p.late },
		hurry: func(time.Time) bool { return p.hurry },
	})
	return p
}

// pieces writes n pieces that take so long each, and returns how long was paused for them.
func (p *pacing) pieces(n int, each time.Duration, writes bool) time.Duration {
	before := p.slept
	for range n {
		p.at = p.at.Add(each)
		if writes {
			p.batch++
		}
		_, _ = p.Write([]byte("piece"))
	}
	return p.slept - before
}

func TestBackupPausesInProportionToItsWork(t *testing.T) {
	const each, n = 100 * time.Microsecond, 1000
	p := newPacing()
	if got := p.pieces(n, each, false); got != 0 {
		t.Errorf("without writes it pauses %v", got)
	}
	for _, late := range []time.Duration{0, 70 * time.Microsecond, time.Millisecond} {
		p.late = late
		got, want := p.pieces(n, each, true), n*pauseShare*each
		if got < want-minPause || got > want+late+minPause {
			t.Errorf("for %v of work, with sleeps that are %v too long, it pauses %v, want %v", n*each, late, got, want)
		}
	}
	p.late = 0
	// One write a second is enough.
	for range 10 {
		p.pieces(1, each, true)
		if got := p.pieces(100, each, false); got < 99*pauseShare*each-minPause {
			t.Errorf("after a write it pauses %v", got)
		}
	}
}

func TestBackupGoesOnAtFullSpeedWhenWritesEnd(t *testing.T) {
	p := newPacing()
	p.pieces(100, time.Millisecond, true)
	p.at = p.at.Add(busyFor)
	if got := p.pieces(1000, time.Millisecond, false); got != 0 {
		t.Errorf("%v after the last write it pauses %v", busyFor, got)
	}
}

// Pauses slow a slow backup down by no more than a fixed time for each piece, and a long
// sleep is not made up for by work without any.
func TestPausesOfABackupAreBounded(t *testing.T) {
	p := newPacing()
	if got := p.pieces(100, time.Second, true); got > 100*maxPause {
		t.Errorf("100 slow pieces are paused %v", got)
	}
	p.late = time.Hour
	p.pieces(1, time.Millisecond, true)
	p.late = 0
	if got := p.pieces(100, time.Millisecond, true); got < 97*maxPause {
		t.Errorf("after a very long sleep 100 pieces are paused %v", got)
	}
}

func TestBackupThatIsLateDoesNotPause(t *testing.T) {
	p := newPacing()
	p.hurry = true
	if got := p.pieces(100, time.Millisecond, true); got != 0 {
		t.Errorf("it pauses %v", got)
	}
	began := time.Unix(1, 0)
	ctx, cancel := context.WithDeadline(context.Background(), began.Add(time.Hour))
	defer cancel()
	s := &Store{o: Options{BackupHold: 1000}}
	for _, c := range []struct {
		ctx    context.Context
		keeps  int64
		passed time.Duration
		want   bool
	}{
		{ctx, 0, 0, false},
		{ctx, 500, 15 * time.Minute, false},
		{ctx, 500, 15*time.Minute + 1, true},
		{ctx, 501, 0, true},
		{context.Background(), 500, 1000 * time.Hour, false},
	} {
		b := &backup{s: s, ctx: c.ctx, began: began, keeps: c.keeps}
		if got := b.hurry(began.Add(c.passed)); got != c.want {
			t.Errorf("after %v, with %d bytes kept: %t", c.passed, c.keeps, got)
		}
	}
}
