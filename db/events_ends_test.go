package db

import (
	"slices"
	"testing"
	"time"
)

// knowsEnd waits until the streams know when a value ends.
func knowsEnd(t *testing.T, d *DB, k Key, end int64) {
	t.Helper()
	await(t, "the end of "+k.ID+" is known", func() bool {
		at, known := d.events.endOf(k)
		return known && at == end
	})
}

// setFor stores a value that ends after ttl, and returns when that is.
func setFor(t *testing.T, d *DB, k Key, ttl time.Duration) (end int64) {
	t.Helper()
	_, err := d.Set(SetRequest{Key: k, Check: AnyVersion, TTL: ttl})
	wantDone(t, "set", err)
	return d.Time() + int64(ttl)
}

func listen(t *testing.T, d *DB, acc string) *Stream {
	t.Helper()
	s, err := d.Listen(acc, ListValues, false, "")
	wantDone(t, "listen", err)
	return s
}

// A value gets a new end while nobody listens to its account, but somebody to another one.
func TestEndThatChangesBetweenTwoStreamsIsTold(t *testing.T) {
	for _, ttl := range []time.Duration{3 * time.Minute, 30 * time.Second} {
		d, _, clock := memoryDB(t)
		other := listen(t, d, "other")
		defer other.Close()
		k := Key{"acc", "k"}
		first := listen(t, d, "acc")
		setFor(t, d, k, time.Minute)
		told(t, first, 1)
		first.Close()
		end := setFor(t, d, k, ttl)
		s := listen(t, d, "acc")
		defer s.Close()
		knowsEnd(t, d, k, end)
		clock.pass(ttl)
		d.events.signal()
		if got, want := told(t, s, 1), []string{"0 k expire 0"}; !slices.Equal(got, want) {
			t.Errorf("after %v: got %q, want %q", ttl, got, want)
		}
	}
}

// A value that gets a new end again and again takes the place of one end.
func TestEndsOfOneValueAreKeptOnce(t *testing.T) {
	d, _, clock := memoryDB(t)
	s := listen(t, d, "acc")
	for range 100 {
		clock.pass(time.Second)
		setFor(t, d, Key{"acc", "k"}, time.Hour)
	}
	if n := d.events.endCount(); n != 1 {
		t.Errorf("%d ends are kept, want 1", n)
	}
	wantDone(t, "delete", d.DeleteValue(Key{"acc", "k"}, AnyVersion))
	setFor(t, d, Key{"acc", "l"}, time.Hour)
	if n := d.events.endCount(); n != 1 {
		t.Errorf("%d ends are kept after a delete, want 1", n)
	}
	other := listen(t, d, "other")
	s.Close()
	if n := d.events.endCount(); n != 0 {
		t.Errorf("%d ends are kept for nobody", n)
	}
	other.Close()
}

// endOf returns when a value ends, if the streams know.
func (h *eventHub) endOf(k Key) (at int64, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	of := h.accs[k.Acc]
	if of == nil {
		return 0, false
	}
	return of.ends.At(k.ID)
}

// endCount returns how many ends are kept.
func (h *eventHub) endCount() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, of := range h.accs {
		n += of.ends.Len()
	}
	return max(n, h.ends.Len())
}
