package handlers

import (
	"bufio"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog/wal"
)

// TestStalledDiskHoldsUpItsWritesAlone stops the disk in the middle of a commit. Until the
// disk continues, those writes are neither answered nor visible, and everything else is
// served.
func TestStalledDiskHoldsUpItsWritesAlone(t *testing.T) {
	fs := memdisk.New()
	stallOf(t, db.Options{FS: fs}, func() (reached <-chan struct{}, open func()) {
		g := fs.NewBarrier()
		return g.Reached, g.Open
	})
}

// slowMirror is a standby that hangs as long as its lock is held.
type slowMirror struct {
	sync.Mutex
	reached chan struct{} // receives a token when a batch has to wait
}

func (*slowMirror) Begin(wal.Frame) {}
func (*slowMirror) Cancel()         {}

func (m *slowMirror) End(wal.Pos) error {
	select {
	case m.reached <- struct{}{}:
	default:
	}
	m.Lock()
	defer m.Unlock()
	return nil
}

// TestHungStandbyHoldsUpItsWritesAlone is the same with a standby that hangs.
func TestHungStandbyHoldsUpItsWritesAlone(t *testing.T) {
	m := &slowMirror{reached: make(chan struct{}, 1)}
	stallOf(t, db.Options{FS: memdisk.New(), Mirror: m}, func() (reached <-chan struct{}, open func()) {
		m.Lock()
		select {
		case <-m.reached: // by a batch before
		default:
		}
		return m.reached, m.Unlock
	})
}

// stallOf stops commits with begin in the middle of one, and checks that everything else is served.
func stallOf(t *testing.T, o db.Options, begin func() (reached <-chan struct{}, open func())) {
	t.Helper()
	r := newRigOn(t, o, nil)
	const sequence = "/db/1/sequence/a"
	r.want(200, "1\n", "POST", sequence)
	r.stored(r.put("/db/1/kv/a", "value"))
	reached, open := begin()
	c := r.dial()
	// The read behind the writes waits for them.
	if _, err := io.WriteString(c, request("POST", sequence, "")+request("POST", sequence, "")+request("GET", sequence, "")); err != nil {
		t.Fatal(err)
	}
	<-reached
	// These stall the loop once more, so its owner changes again and again.
	for range 3 {
		r.want(200, "1\n", "GET", sequence)
		r.want(200, "value", "GET", "/db/1/kv/a")
		r.want(404, "*", "GET", "/db/1/counter/a")
		r.want(400, "*", "POST", sequence+"?typo=1")
		r.want(200, "ok\n", "GET", "/healthz")
		r.want(200, "*", "POST", "/db/1/mlock/m?wait=0&id=me")
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	b := bufio.NewReader(c)
	if got, err := b.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v is answered before it is on disk", got, err)
	}
	open()
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2\n", "3\n", "3\n"} {
		if a := r.read(b, "POST"); a.status != 200 || a.body != want {
			t.Errorf("got %v, want %q", a, want)
		}
	}
}
