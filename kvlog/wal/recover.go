package wal

import (
	"errors"
	"fmt"
	"slices"

	"clouddragon/internal/disk"
)

// Range is the part [From, To) of a segment, in bytes. It is empty if both are 0.
type Range struct {
	Segment  uint64
	From, To int64
}

// Tail is what Replay found at the end of the log.
type Tail struct {
	End     Pos    // after the last good batch
	Last    Range  // the replayed batches of the last segment that holds any
	Garbage Range  // what Repair clears after End
	Torn    string // what Repair cuts there, such as "partial header"; "" if nothing

	first Pos // where Last begins
}

// errNotStarted is returned by a write before Start.
var errNotStarted = errors.New("wal: the log is not started")

// The steps of recovery, for Log.recovered.
const (
	opened = iota
	replayed
	repaired
	started
)

// Open opens the log. from and segments come from the caller's checkpoint: the position
// from which Replay reads, and the numbers of the segments that must be there. The error
// is a *disk.Damage if one of these is missing, has a bad header or is too short. Open
// writes nothing, so the FS may be read-only.
func Open(o Options, from Pos, segments []uint64) (*Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	all, outdated, err := o.openAll(from, segments)
	l := &Log{o: o, codec: newCodec(o.ID), from: from, segments: all, outdated: outdated, pins: make(map[*Pin]bool)}
	for i, s := range all {
		if err == nil && s.number > from.Segment && s.number != all[i-1].number+1 {
			err = l.missing(all[i-1].number+1, s.number)
		}
		if err == nil && s.bad != nil && (s.number <= from.Segment || slices.Contains(segments, s.number)) {
			err = s.bad
		}
	}
	if err == nil {
		if s := l.find(from.Segment); from.Offset < pageSize || from.Offset > s.size || from.Offset%8 != 0 {
			err = s.Damage(from.Offset, fmt.Sprintf("the log should go on here, but the segment has %d bytes", s.size), "every batch from there on")
		}
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.err, l.failed = errNotStarted, errNotStarted
	return l, nil
}

// openAll opens the named segments, the segment of from, and all later ones. outdated are
// the earlier ones that are not named: they were to be freed. After an error it returns
// what it has opened, for the caller to close.
func (o Options) openAll(from Pos, named []uint64) (all []*Segment, outdated []uint64, err error) {
	found, err := o.list()
	if err != nil {
		return nil, nil, err
	}
	numbers := append(slices.Clone(named), from.Segment)
	for _, n := range found {
		if n > from.Segment {
			numbers = append(numbers, n)
		} else if !slices.Contains(numbers, n) {
			outdated = append(outdated, n)
		}
	}
	slices.Sort(numbers)
	for _, n := range slices.Compact(numbers) {
		s, err := o.openSegment(n)
		if err != nil {
			return all, nil, err
		}
		all = append(all, s)
	}
	return all, outdated, nil
}

// Replay calls fn in order for each batch from the position that was passed to Open, and
// returns where the log ends. A torn batch at the end is not passed to fn; see Tail. The
// error is a *disk.Damage if a batch that was durable is now bad. An error of fn ends the
// replay and is returned. Replay holds one batch in memory, or 256 KiB if that is more.
func (l *Log) Replay(fn func(seq uint64, recs Records) error) (Tail, error) {
	return l.replay(func(b batch) error {
		if b.isSeal() {
			return nil
		}
		return fn(b.seq, b.records())
	})
}

// replay is Replay of all batches, including seals.
func (l *Log) replay(fn func(batch) error) (Tail, error) {
	pos := l.from
	t := Tail{End: pos, first: pos}
	s := l.find(pos.Segment)
	w := window{s: s}
	for {
		b, f, err := l.codec.batch(&w, pos)
		if err != nil {
			return Tail{}, err
		}
		if f != nil {
			t.End = pos
			if err := l.classifyTail(&t, s, f); err != nil {
				return Tail{}, err
			}
			l.recovered = replayed
			return t, nil
		}
		if t.Last.Segment != pos.Segment {
			t.Last, t.first = Range{Segment: pos.Segment, From: pos.Offset}, pos
		}
		pos = b.end()
		t.Last.To = pos.Offset
		l.o.Read(int64(b.length))
		if err := fn(b); err != nil {
			return Tail{}, err
		}
		if !b.isSeal() {
			continue
		}
		if s, err = l.successor(b.segment); err != nil {
			return Tail{}, err
		}
		pos.Segment, pos.Offset = s.number, pageSize
		w = window{s: s}
	}
}

// successor returns the segment in which the log continues after a sealed one.
func (l *Log) successor(sealed uint64) (*Segment, error) {
	s := l.find(sealed + 1)
	if s == nil {
		s = &Segment{number: sealed + 1, path: l.o.path(sealed + 1)}
		s.bad = s.Damage(0, fmt.Sprintf("segment %d is missing, though segment %d says that the log continues there", sealed+1, sealed), "every batch in it")
	}
	if s.bad != nil {
		return nil, s.bad
	}
	return s, nil
}

// missing returns the damage that a segment is missing, though a later one is there.
func (l *Log) missing(number, later uint64) *disk.Damage {
	s := Segment{path: l.o.path(number)}
	return s.Damage(0, fmt.Sprintf("is missing, though segment %d is there", later), "every batch in it")
}

// classifyTail decides what it means that there is no good batch at t.End, in s, for the
// reason f. It records a torn tail in t and returns damage.
//
//	f.written                       damage: no crash leaves this
//	a later batch has a header      damage: this batch was durable before that one
//	a later segment is bad          damage: it was complete once, and is bad now
//	bytes that are not zero follow  a torn tail
//	only zeros follow               the end of the log
func (l *Log) classifyTail(t *Tail, s *Segment, f *fault) error {
	end := t.End
	here, err := l.codec.scan(s, end.Offset, end.Seq+1, false) // later than the torn batch, whose own header proves nothing
	if err != nil {
		return err
	}
	first, last, proof := here.first, here.last, here.found
	var bad error
	for _, later := range l.segments {
		if later.number <= s.number || later.file == nil {
			continue
		}
		there, err := l.codec.scan(later, pageSize, end.Seq, false)
		if err != nil {
			return err
		}
		if there.found && !proof {
			first, proof = there.first, true
		}
		if there.last.seq > last.seq {
			last = there.last
		}
		if later.bad != nil && !later.unmade && bad == nil {
			bad = later.bad
		}
	}
	lost := fmt.Sprintf("batch %d and all after it", end.Seq+1)
	if last.seq > end.Seq+1 {
		lost = fmt.Sprintf("batches %d to %d", end.Seq+1, last.seq)
	}
	switch {
	case f.written:
		return s.Damage(end.Offset, f.what, lost)
	case proof:
		what := fmt.Sprintf("%s, though a later batch, %d, is at offset %d of %s", f.what, first.seq, first.offset, l.o.path(first.segment))
		return s.Damage(end.Offset, what, lost)
	case bad != nil:
		return bad
	}
	if here.to > 0 {
		t.Garbage, t.Torn = Range{Segment: s.number, From: here.from, To: here.to}, f.what
	}
	return nil
}

// Start makes the log ready for Append at the end that Replay found, and removes
// segments that an earlier Free was to remove. Before that the caller must write its
// checkpoint again: the one that it has read may be only in the page cache, and the one on
// disk may name segments that are removed here.
func (l *Log) Start(t Tail) error {
	if l.recovered != repaired {
		return errors.New("wal: Start before Repair, or twice")
	}
	if err := l.removeOutdated(); err != nil {
		return err
	}
	// On a full disk the log starts without one.
	size, err := l.fit()
	if err == nil {
		err = l.o.makeReserve(size)
	}
	if err == nil {
		l.reserved = size
	} else if !disk.IsFull(err) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end, l.durable = t.End, t.End
	for _, s := range l.segments {
		l.bytes += s.size
	}
	l.active, l.next = l.find(t.End.Segment), l.find(t.End.Segment+1)
	for _, s := range l.segments {
		if s != l.active && s != l.next {
			s.file.settled()
		} else if err := s.file.ready(); err != nil {
			return err
		}
	}
	l.err, l.failed = nil, nil
	l.recovered = started
	return nil
}

// removeOutdated removes the segments that an earlier Free was to remove.
func (l *Log) removeOutdated() error {
	if len(l.outdated) == 0 {
		return nil
	}
	for _, n := range l.outdated {
		err := l.o.FS.Remove(l.o.path(n))
		if disk.IsFull(err) {
			break // btrfs can need room to remove a file; the next start tries again
		}
		if err != nil {
			return err
		}
	}
	return l.o.FS.SyncDir(l.o.Dir)
}
