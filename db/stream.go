package db

import (
	"strings"
	"sync"
)

// streamEvents is how many events a stream may be behind.
const streamEvents = 4096

// Stream is a listener.
type Stream struct {
	hub    *eventHub
	acc    string
	kind   ListKind // if not all
	all    bool
	prefix string
	since  uint64 // the events after that one
	began  int64  // in database time
	wake   chan struct{}

	mu     sync.Mutex // guards what follows
	events []Event
	lost   bool
}

// Wake receives when there may be something to take.
func (s *Stream) Wake() <-chan struct{} { return s.wake }

// Take returns the events that have come. lost says that there were more than the
// stream can hold: then nothing comes any more.
func (s *Stream) Take() (events []Event, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, s.events = s.events, nil
	return events, s.lost
}

// give hands the stream an event, if it is for it.
func (s *Stream) give(e *Event) {
	if e.N <= s.since || !s.all && e.Kind != s.kind || !strings.HasPrefix(e.ID, s.prefix) || e.Op == "expire" && e.ends <= s.began {
		return
	}
	s.mu.Lock()
	if len(s.events) == streamEvents {
		s.lose()
	}
	if !s.lost {
		s.events = append(s.events, *e)
	}
	s.mu.Unlock()
	wakeStream(s)
}

// lose ends the stream because it fell behind. The lock of s is held.
func (s *Stream) lose() {
	if !s.lost {
		s.hub.lost.Add(1)
	}
	s.events, s.lost = nil, true
}

func wakeStream(s *Stream) {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close ends the stream.
func (s *Stream) Close() {
	h := s.hub
	h.mu.Lock()
	delete(h.streams[s.acc], s)
	if len(h.streams[s.acc]) == 0 {
		delete(h.streams, s.acc)
	}
	h.n.Store(int64(len(h.streams)))
	if len(h.streams) == 0 {
		h.ends, h.ending = nil, nil
	}
	h.mu.Unlock()
	h.open.Add(-1)
	h.d.watchers.end()
}
