package store

import (
	"io"
	"time"

	"clouddragon/kvlog/wal"
)

// A backup leaves most of the processors and of the disk to writes. While the log grows,
// it pauses after each piece, in proportion to the time that the piece took. Without
// writes it does not pause.
const (
	// backupPiece is how many bytes are read and written at a time. While a piece is copied,
	// a write may have to wait for it.
	backupPiece = 64 << 10
	// pauseShare is how many times as long as the work the pauses are.
	pauseShare = 4
	// maxPause limits the pause for one piece, so that a slow disk or a slow client does not
	// make a backup endless: the pauses of 32 MiB are at most one second.
	maxPause = 2 * time.Millisecond
	// minPause is what is paused at least: the kernel wakes nobody much sooner.
	minPause = time.Millisecond
	// busyFor is how long after a write a backup goes on to pause.
	busyFor = time.Second
	// hurryAfter is the share of its time after which a backup pauses no more.
	hurryAfter = 4
)

// pace is a writer that pauses after writes while the log grows. It has one user.
type pace struct {
	w     io.Writer
	log   func() wal.Pos // the end of the log
	now   func() time.Time
	sleep func(time.Duration)
	// hurry reports whether the backup would come too late with pauses.
	hurry func(now time.Time) bool

	end   wal.Pos       // of the log, at the last piece
	grew  time.Time     // when the log was last seen to have grown
	began time.Time     // when the piece that is copied began
	owed  time.Duration // pauses that are due; negative: a pause was longer than asked for
}

// newPace returns a pace that begins now.
func newPace(p pace) *pace {
	p.began, p.end = p.now(), p.log()
	return &p
}

// Write writes a piece, which was begun when the last Write returned.
func (p *pace) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	now := p.now()
	took := now.Sub(p.began)
	p.began = now
	if end := p.log(); end != p.end {
		p.end, p.grew = end, now
	}
	if p.grew.IsZero() || now.Sub(p.grew) > busyFor || p.hurry(now) {
		p.owed = 0
		return n, err
	}
	if p.owed += min(pauseShare*took, maxPause); p.owed < minPause {
		return n, err
	}
	p.sleep(p.owed)
	p.began = p.now()
	p.owed = max(p.owed-p.began.Sub(now), -maxPause)
	return n, err
}

// hurry reports whether the backup would come too late with pauses: a large part of its
// time is over, or of the log that may be kept for it.
func (b *backup) hurry(now time.Time) bool {
	if b.keeps > b.s.o.BackupHold/2 {
		return true
	}
	deadline, ok := b.ctx.Deadline()
	return ok && now.Sub(b.began) > deadline.Sub(b.began)/hurryAfter
}
