package db

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
)

// After a batch is applied, the leader makes events of what it has touched in accounts
// that have listeners. One goroutine hands them to the streams. A stream that takes its
// events too slowly is ended and told that it lost some.

// Event is one change.
type Event struct {
	N       uint64 // grows with each event
	Kind    ListKind
	ID      string
	Op      string // set, ttl, delete or expire
	Value   int64  // of a sequence or a counter; of a rate the milliseconds until it is full again
	Version int64  // of a value
	Token   int64  // of a lock

	acc    string
	ends   int64  // for an expiry: when it was due
	commit uint64 // events of the same commit have the same number
}

// hubEvents is how many events may wait to be handed to the streams. Those of one commit may
// exceed it.
const hubEvents = 100_000

// listAgain is the time after which values are listed again while the index of names is
// rebuilt.
const listAgain = 100 * time.Millisecond

// eventHub has all streams.
type eventHub struct {
	d    *DB
	n    atomic.Int64  // accounts that have listeners
	open atomic.Int64  // open streams
	lost atomic.Uint64 // streams that fell behind, since Open
	wake chan struct{}
	done chan struct{} // closed when run has ended
	stop chan struct{}

	mu      sync.Mutex           // guards what follows; held for a moment
	last    uint64               // number of the last event
	commit  uint64               // number of the last commit with listeners
	accs    map[string]*listened // the accounts that have listeners
	pending []Event
	flood   bool               // pending overflowed: all streams lost events
	ends    commit.Due[string] // for each account in which a value ends: when the first one does
}

// listened is an account that has listeners. The hub's mu guards it.
type listened struct {
	streams map[*Stream]bool
	ends    commit.Due[string] // when its values end
}

func newEventHub(d *DB) *eventHub {
	return &eventHub{
		d: d, wake: make(chan struct{}, 1), done: make(chan struct{}), stop: make(chan struct{}),
		last: uint64(time.Now().UnixMicro()), accs: make(map[string]*listened),
	}
}

// Listen begins a stream of the events of an account from now on, of one kind or of all.
// The error is ErrWatchers or ErrStopping. Without an error the caller has to call Close.
func (d *DB) Listen(acc string, kind ListKind, all bool, prefix string) (*Stream, error) {
	if d.draining.Load() {
		return nil, ErrStopping
	}
	if err := d.watchers.begin(); err != nil {
		return nil, err
	}
	h := d.events
	h.open.Add(1)
	s := &Stream{hub: h, acc: acc, kind: kind, all: all, prefix: prefix, began: d.store.Clock.Now(), wake: make(chan struct{}, 1)}
	h.mu.Lock()
	s.since = h.last
	of := h.accs[acc]
	first := of == nil
	if first {
		of = &listened{streams: make(map[*Stream]bool)}
		h.accs[acc] = of
	}
	of.streams[s] = true
	h.n.Store(int64(len(h.accs)))
	h.mu.Unlock()
	d.awaitPublished() // a batch that was applied before may not have seen the stream
	if first {
		go h.findEnds(acc, of, s.began)
	}
	return s, nil
}

// Drained is closed once the server stops.
func (d *DB) Drained() <-chan struct{} { return d.watchers.drained }

// publish makes events of the changes of a durable batch.
func (h *eventHub) publish(at commit.Moment, touched []commit.Touched) {
	if h.n.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) >= hubEvents {
		h.pending, h.flood = nil, true
	}
	h.commit++
	for i := range touched {
		t := &touched[i]
		of := h.accs[t.Acc]
		if of == nil || t.Handed || t.ID == "" || t.ID[0] == 0 {
			continue
		}
		e, ok := eventOf(at.Now, t)
		if !ok {
			continue
		}
		if t.Kind == valueKind {
			ends := t.Expires
			if t.Gone {
				ends = 0
			}
			h.noteEnd(t.Acc, of, t.ID, ends)
		}
		h.last++
		e.N, e.commit = h.last, h.commit
		h.pending = append(h.pending, e)
	}
	h.signal()
}

func (h *eventHub) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// eventOf returns the event of a change.
func eventOf(now int64, t *commit.Touched) (e Event, ok bool) {
	e = Event{ID: t.ID, acc: t.Acc, Op: "set", ends: now}
	switch {
	case t.Gone && t.Expired:
		e.Op = "expire"
		if t.Expires != 0 {
			e.ends = t.Expires
		}
	case t.Gone:
		e.Op = "delete"
	case t.EndOnly, t.Kind == kindLock && !t.Created:
		e.Op = "ttl"
	}
	switch t.Kind {
	case valueKind:
		e.Kind, e.Version = ListValues, int64(t.Version)
	case kindSequence:
		e.Kind = ListSequences
	case kindCounter:
		e.Kind = ListCounters
	case kindRate:
		e.Kind = ListRates
	case kindLock:
		e.Kind, e.Token = ListLocks, int64(t.Sub)
	default:
		return e, false
	}
	if len(t.Payload) >= numberSize {
		switch n := int64(le.Uint64(t.Payload)); t.Kind {
		case kindSequence, kindCounter:
			e.Value = n
		case kindRate:
			e.Value = max(0, time.Duration(n-now).Milliseconds())
		}
	}
	return e, true
}

// run hands events to the streams and expires values when they are due.
func (h *eventHub) run() {
	defer close(h.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-h.wake:
		case <-timer.C:
		}
		h.deliver()
		timer.Reset(h.expire())
	}
}

func (h *eventHub) deliver() {
	h.mu.Lock()
	events, flood := h.pending, h.flood
	h.pending, h.flood = nil, false
	byAcc := make(map[string][]*Stream)
	add := func(acc string) {
		if of := h.accs[acc]; of != nil {
			byAcc[acc] = slices.Collect(maps.Keys(of.streams))
		}
	}
	for i := range events {
		if acc := events[i].acc; byAcc[acc] == nil {
			add(acc)
		}
	}
	if flood {
		for acc := range h.accs {
			add(acc)
		}
	}
	h.mu.Unlock()
	if flood {
		for _, streams := range byAcc {
			for _, s := range streams {
				s.mu.Lock()
				s.lose()
				s.mu.Unlock()
				wakeStream(s)
			}
		}
	}
	for i := range events {
		for _, s := range byAcc[events[i].acc] {
			s.give(&events[i])
		}
	}
}

// noteEnd notes when a value of an account ends; 0: it has no end, or is gone. h.mu must be held.
func (h *eventHub) noteEnd(acc string, of *listened, id string, ends int64) {
	if ends == 0 {
		of.ends.Drop(id)
	} else {
		of.ends.Set(id, ends)
	}
	if _, at, ok := of.ends.First(); ok {
		h.ends.Set(acc, at)
	} else {
		h.ends.Drop(acc)
	}
}

// findEnds finds the values of an account that have an end, and removes those that ended
// since a stream began.
func (h *eventHub) findEnds(acc string, of *listened, began int64) {
	r := ListRequest{Kind: ListValues, Acc: acc, Limit: 1000, missing: func(id string) {
		_ = h.d.Do(&valueExpire{Key: Key{acc, id}, After: began}) // an error as in expire
	}}
	for {
		p, err := h.d.List(context.Background(), r)
		if rebuilding := (*ListingError)(nil); errors.As(err, &rebuilding) {
			select {
			case <-h.stop:
				return
			case <-time.After(listAgain):
			}
		} else if err != nil {
			return // such a value gets its event when something meets it after its end
		}
		h.mu.Lock()
		if h.accs[acc] != of { // nobody listens any more
			h.mu.Unlock()
			return
		}
		for _, x := range p.Items {
			if _, known := of.ends.At(x.ID); !known && x.ends != 0 {
				h.noteEnd(acc, of, x.ID, x.ends)
			}
		}
		h.mu.Unlock()
		h.signal()
		if err != nil {
			continue
		}
		if r.After = p.Next; r.After == "" {
			return
		}
	}
}

// expire submits the removal of values that are due, and returns the time until the next
// one is.
func (h *eventHub) expire() time.Duration {
	for {
		now := h.d.store.Clock.Now()
		h.mu.Lock()
		acc, at, ok := h.ends.First()
		if !ok {
			h.mu.Unlock()
			return time.Hour
		}
		if left := at - now; left > 0 {
			h.mu.Unlock()
			return min(time.Duration(left), commit.ClockTick) // the timer stands still while the machine sleeps
		}
		of := h.accs[acc]
		id, _, _ := of.ends.First()
		h.noteEnd(acc, of, id, 0)
		h.mu.Unlock()
		// On an error the disk is full or has failed, or the server stops. The value has
		// expired anyway.
		_ = h.d.Do(&valueExpire{Key: Key{acc, id}})
	}
}

// valueExpire is the operation that removes an expired value.
type valueExpire struct {
	Key    Key
	After  int64 // only if it ended after that, in database time
	lookup lookup
}

// Size returns the most bytes that the operation adds to the log.
func (o *valueExpire) Size() int { return (&ValueDelete{Key: o.Key}).Size() }

// Frees is true.
func (o *valueExpire) Frees() bool { return true }

func (*valueExpire) account() string { return "" }

func (o *valueExpire) prepare(d *DB) error { return o.lookup.prepare(d, o.Key) }

// Decide removes the value if it has expired.
func (o *valueExpire) Decide(tx *commit.Tx) error {
	e, err := o.lookup.entry(tx, false)
	if err != nil {
		return err
	}
	if f := e.Found(); f.OK && !e.Live(tx.Now()) && f.Expires > o.After {
		tx.Date()
		tx.RemoveValue(e, true, 0)
	}
	return nil
}
