package wal

import (
	"testing"

	"clouddragon/internal/test/memdisk"
)

// The next segment of a following log has the same size as in the log that it follows. The
// background preparation does not replace it, because the writer may be about to use it.
func TestSegmentAheadIsNotReplacedInTheBackground(t *testing.T) {
	l, _ := newLog(t, testOptions(memdisk.New()))
	larger := 2 * l.SegmentSize()
	if err := l.PrepareNext(larger); err != nil {
		t.Fatal(err)
	}
	next := l.ready()
	if err := l.PrepareAhead(); err != nil {
		t.Fatal(err)
	}
	if l.ready() != next || next.size != larger {
		t.Errorf("the next segment was replaced by another one: %v", l.ready())
	}
	if err := l.PrepareNext(larger / 2); err != nil {
		t.Fatal(err)
	}
	if got := l.ready().size; got != larger/2 {
		t.Errorf("the next segment has %d bytes, want %d", got, larger/2)
	}
}
