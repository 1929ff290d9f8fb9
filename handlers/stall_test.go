package handlers

import (
	"bufio"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"clouddragon/db"
	"clouddragon/internal/test/memdisk"
)

// TestStalledDiskHoldsUpItsWritesAlone stops the disk in the middle of a commit. Until the
// disk continues, those writes are neither answered nor visible, and everything else is
// served.
func TestStalledDiskHoldsUpItsWritesAlone(t *testing.T) {
	fs := memdisk.New()
	r := newRigOn(t, db.Options{FS: fs}, nil)
	const sequence = "/db/1/sequence/a"
	r.want(200, "1\n", "POST", sequence)
	r.stored(r.put("/db/1/kv/a", "value"))
	g := fs.NewBarrier()
	c := r.dial()
	// The read behind the writes waits for them.
	if _, err := io.WriteString(c, request("POST", sequence, "")+request("POST", sequence, "")+request("GET", sequence, "")); err != nil {
		t.Fatal(err)
	}
	<-g.Reached
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
	g.Open()
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2\n", "3\n", "3\n"} {
		if a := r.read(b, "POST"); a.status != 200 || a.body != want {
			t.Errorf("got %v, want %q", a, want)
		}
	}
}
