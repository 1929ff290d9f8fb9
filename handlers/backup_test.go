package handlers

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"clouddragon/internal/archive"
	"clouddragon/internal/replica"
)

func TestBackupIsSentWhole(t *testing.T) {
	r := newRig(t, func(o *Options, h *http.Server) {
		guarded(o, h)
		o.Program = "v7"
	})
	r.put("/db/shop/kv/a", "value", bear("all"))
	a := r.want(200, "*", "GET", "/backup", bear("all"))
	if got := a.header.Get("Content-Type"); got != "application/x-tar" {
		t.Errorf("Content-Type is %q", got)
	}
	m, err := archive.Read(strings.NewReader(a.body), nil)
	if err != nil || m.Program != "v7" || m.Version == 0 {
		t.Errorf("got %+v, %v", m, err)
	}
	if a := r.want(200, "", "HEAD", "/backup", bear("all")); a.header.Get("Content-Type") != "application/x-tar" {
		t.Errorf("HEAD: %v", a)
	}
	if at := r.db.Stats().BackedUp; time.Since(at) > time.Hour {
		t.Errorf("the last backup was at %v", at)
	}
	// A standby's copy is no backup.
	before := r.db.Stats().BackedUp
	r.want(200, "*", "GET", "/backup", bear("all"), replica.CopyHeader+": true")
	if at := r.db.Stats().BackedUp; !at.Equal(before) {
		t.Errorf("after the copy of a standby the last backup was at %v, before it at %v", at, before)
	}
	r.refused(401, "token", "GET", "/backup")
	for _, token := range []string{"shop only", "reader", "shop reader"} {
		r.refused(403, "a backup holds everything", "GET", "/backup", bear(token))
	}
	r.refused(400, "unknown parameter", "GET", "/backup?x=1", bear("all"))
	r.refused(405, "not allowed", "POST", "/backup", bear("all"))
}

// ask asks for a backup and reads no more than the beginning of the answer.
func (r *rig) askBackup() (net.Conn, *bufio.Reader) {
	r.t.Helper()
	c := r.dial()
	if _, err := io.WriteString(c, request("GET", "/backup", "")); err != nil {
		r.t.Fatal(err)
	}
	b := bufio.NewReader(c)
	if line, err := b.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 200") {
		r.t.Fatalf("%q, %v", line, err)
	}
	return c, b
}

// fill stores more than fits into the buffers of a connection.
func (r *rig) fill() {
	r.t.Helper()
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		if a := r.put("/db/1/kv/"+id, strings.Repeat(id, 1900<<10)); a.status != 200 {
			r.t.Fatal(a)
		}
	}
}

func TestBackupsBeyondFourAreRefused(t *testing.T) {
	r := newRig(t, nil)
	r.fill()
	for range 4 {
		r.askBackup()
	}
	r.refused(503, "too many backups", "GET", "/backup")
}

// TestSlowReaderOfABackupIsDropped has a reader so slow that the server would keep its log for
// ever.
func TestSlowReaderOfABackupIsDropped(t *testing.T) {
	r := newRig(t, nil)
	r.fill()
	r.server.pace.idle = time.Second
	c, b := r.askBackup()
	if o := r.observeBackup(); o.code != codeGone {
		t.Errorf("observed %v", o)
	}
	if !strings.Contains(r.log.String(), "a backup was cut off") {
		t.Errorf("the log says %s", r.log)
	}
	// The part that was sent is not taken for a whole backup.
	rest, _ := io.ReadAll(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\n"), b))
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(rest))), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Read(resp.Body, nil); err == nil {
		t.Error("it is whole")
	}
	c.Close()
	r.server.pace.idle = defaultPace.idle
	r.want(200, "*", "GET", "/backup")
}

// A reader that has stopped is dropped after backup.time, if that is sooner.
func TestStoppedReaderOfABackupIsDroppedInTime(t *testing.T) {
	r := newRig(t, nil)
	r.server.pace.idle = time.Hour
	r.fill()
	r.server.limits.Backup = 3 * time.Second // it has to begin in that time
	_, _ = r.askBackup()
	if o := r.observeBackup(); o.code != codeGone {
		t.Errorf("observed %v", o)
	}
	if !strings.Contains(r.log.String(), errTooLong.Error()) {
		t.Errorf("the log says %s", r.log)
	}
}

func (r *rig) observeBackup() observed {
	r.t.Helper()
	for {
		if o := r.observe(); o.api == Backup {
			return o
		}
	}
}

func TestBackupThatTakesTooLongIsDropped(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Limits.Backup = time.Nanosecond })
	c := r.dial()
	if _, err := io.WriteString(c, request("GET", "/backup", "")); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, c) }() // ends with the connection
	r.observeBackup()                             // it may be refused before its first byte
	if !strings.Contains(r.log.String(), errTooLong.Error()) {
		t.Errorf("the log says %s", r.log)
	}
}

func TestStopEndsABackup(t *testing.T) {
	draining := make(chan struct{})
	r := newRig(t, func(o *Options, _ *http.Server) { o.Draining = draining })
	r.fill()
	_, b := r.askBackup()
	close(draining)
	if _, err := io.Copy(io.Discard, b); err != nil && err != io.ErrUnexpectedEOF {
		t.Logf("the client sees: %v", err)
	}
	if o := r.observeBackup(); o.code != codeGone {
		t.Errorf("observed %v", o)
	}
}
