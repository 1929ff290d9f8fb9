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
	// pauseShare is the ratio of the pauses to the work.
	pauseShare = 4
	// maxPause limits the pause for one piece, so that a slow disk or a slow client does not
	// make a backup endless: the pauses of 32 MiB are at most one second.
	maxPause = 2 * time.Millisecond
	// minPause is the shortest pause: the kernel wakes a thread hardly sooner.
	minPause = time.Millisecond
	// busyFor is how long after a write a backup still pauses.
	busyFor = time.Second
	// hurryAfter is the share of its time after which a backup no longer pauses.
	hurryAfter = 4
)

// pace is a writer that pauses after writes while the log grows. It has one user.
type pace struct {
	w     io.Writer
	log   func() wal.Pos // the end of the log
	now   func() time.Time
	sleep func(time.Duration)
	// hurry reports whether the backup would be too late with pauses.
	hurry func(now time.Time) bool

	end   wal.Pos       // of the log, at the last piece
	grew  time.Time     // when the log was last seen to have grown
	began time.Time     // when the current piece began
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

// hurry reports whether the backup would be too late with pauses: a large part of its time, or
// of the log that may be kept for it, is used up.
func (b *backup) hurry(now time.Time) bool {
	if b.keeps > b.s.o.BackupHold/2 {
		return true
	}
	deadline, ok := b.ctx.Deadline()
	return ok && now.Sub(b.began) > deadline.Sub(b.began)/hurryAfter
}
