package db

import (
	"strings"
	"sync"
)

// streamEvents is how many events a stream may fall behind. The events of one commit may
// exceed it, because no listener could take them sooner.
const streamEvents = 4096

// Stream is a stream of events for one listener.
type Stream struct {
	hub    *eventHub
	acc    string
	kind   ListKind // ignored if all is true
	all    bool
	prefix string
	since  uint64 // number of the last event before the stream
	began  int64  // in database time
	wake   chan struct{}

	mu     sync.Mutex // guards what follows
	events []Event
	commit uint64 // of the last event
	lost   bool
}

// Wake receives when there may be events to take.
func (s *Stream) Wake() <-chan struct{} { return s.wake }

// Take returns the events since the last Take. lost means that the stream fell behind: it
// gets no more events.
func (s *Stream) Take() (events []Event, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, s.events = s.events, nil
	return events, s.lost
}

// give adds an event, if the stream wants it.
func (s *Stream) give(e *Event) {
	if e.N <= s.since || !s.all && e.Kind != s.kind || !strings.HasPrefix(e.ID, s.prefix) || e.Op == "expire" && e.ends <= s.began {
		return
	}
	s.mu.Lock()
	if e.commit != s.commit && len(s.events) >= streamEvents {
		s.lose()
	}
	s.commit = e.commit
	if !s.lost {
		s.events = append(s.events, *e)
	}
	s.mu.Unlock()
	wakeStream(s)
}

// lose ends the stream because it fell behind. s.mu must be held.
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
	of := h.accs[s.acc]
	delete(of.streams, s)
	if len(of.streams) == 0 {
		delete(h.accs, s.acc)
		h.ends.Drop(s.acc)
	}
	h.n.Store(int64(len(h.accs)))
	h.mu.Unlock()
	h.open.Add(-1)
	h.d.watchers.end()
}
