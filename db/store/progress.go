package store

import (
	"errors"
	"path"
	"strings"

	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// Progress is called with the progress of a long task in bytes. total is an estimate; done
// never exceeds it and reaches it at the end. 0: unknown. It is called often, by one
// goroutine at a time, and must not block.
type Progress func(done, total int64)

// meter adds up what was read.
type meter struct {
	tell        Progress
	done, total int64
	read        int64 // what was read of it
	fixed       bool  // total is known, whatever expect says
}

func newMeter(tell Progress) *meter {
	if tell == nil {
		tell = func(_, _ int64) {}
	}
	return &meter{tell: tell}
}

// expect adds to the bytes that will be read.
func (m *meter) expect(n int64) {
	if !m.fixed {
		m.total += n
	}
}

// add counts bytes that were read.
func (m *meter) add(n int64) {
	m.read += n
	m.set(m.done + n)
}

// set sets how much is done. A total of 0 is unknown.
func (m *meter) set(done int64) {
	m.done = done
	if m.total > 0 {
		done = min(done, m.total)
	}
	m.tell(done, m.total)
}

// reach says that only left bytes remain to be read. Other bytes that were expected do not
// exist.
func (m *meter) reach(left int64) {
	if done := m.total - left; !m.fixed && done > m.done {
		m.done = done
	}
}

// end says that everything was read.
func (m *meter) end() {
	m.set(max(m.done, m.total))
}

// tableBytes returns the size of the slots that a checkpoint counts.
func (c *checkpoint) tableBytes() (n int64) {
	for class, used := range c.Used {
		n += int64(used) * int64(slots.Classes[class])
	}
	return n
}

// segmentBytes returns the size of the existing segments. It is an estimate: a segment that
// cannot be opened is reported when it is read.
func segmentBytes(o *Options) (n int64) {
	dir := path.Join(o.Dir, "log")
	names, err := o.FS.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".seg") {
			continue
		}
		if f, err := o.FS.Open(path.Join(dir, name)); err == nil {
			size, err := f.Size()
			if errors.Join(err, f.Close()) == nil {
				n += size
			}
		}
	}
	return n
}

// bytesBetween returns the bytes of the log between two positions. The zero Pos as the end
// stands for the end of the last segment.
func bytesBetween(l *wal.Log, from, to wal.Pos) (n int64) {
	for _, number := range l.Segments() {
		if number < from.Segment || to.Segment > 0 && number > to.Segment {
			continue
		}
		size := l.Segment(number).Size()
		if number == to.Segment {
			size = to.Offset
		}
		if number == from.Segment {
			size -= from.Offset
		}
		n += size
	}
	return n
}
