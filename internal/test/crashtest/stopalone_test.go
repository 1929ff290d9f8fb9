package crashtest

import (
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// TestPrimaryWhoseStandbyIsAwayStopsCleanly stops the primary while a write waits for a standby that
// hangs. The write was answered as unknown, and the next start reads it from the log.
func TestPrimaryWhoseStandbyIsAwayStopsCleanly(t *testing.T) {
	begin(t)
	t.Parallel()
	dir := t.TempDir()
	o := setup{binary: *binary, data: filepath.Join(dir, "1"), config: smallFiles}
	primary := serve(t, o)
	standby := serve(t, setup{binary: *binary, data: filepath.Join(dir, "2"), config: standbyOf(primary.addr)})
	inSync(t, primary, standby)
	if err := standby.pause(); err != nil {
		t.Fatal(err)
	}
	if err := eventually("a write waits for the standby", func() bool { return waitsForStandby(t, primary) }); err != nil {
		t.Fatal(err)
	}
	if err := primary.stop(); err != nil {
		t.Error(err)
	}
	serve(t, o)
}

// waitsForStandby reports whether a write waits for the standby, which hangs or is about to, until its outcome
// is unknown. Reads on other connections have to be answered before that.
func waitsForStandby(t *testing.T, primary *server) bool {
	t.Helper()
	written := make(chan int, 1)
	go func() {
		res, err := http.Post("http://"+primary.addr+"/db/1/sequence/s", "", nil)
		if err != nil {
			t.Error(err)
			written <- 0
			return
		}
		res.Body.Close()
		written <- res.StatusCode
	}()
	var conns []*client
	for range 16 { // some of them in the event loop of the write
		c := &client{addr: primary.addr}
		defer c.close()
		conns = append(conns, c)
	}
	// The reads take much less than the five seconds after which the write is answered, on a busy machine
	// too, unless they wait for it.
	began := time.Now()
	for n := 0; n < 10 && time.Since(began) < time.Second; n++ {
		for _, c := range conns {
			for _, path := range []string{"/db/1/sequence/other", "/healthz"} {
				a, err := c.do("GET", path, "")
				if err != nil || a.status != http.StatusOK && a.status != http.StatusNotFound {
					t.Fatalf("GET %s beside a write that waits: %v, %v", path, a, err)
				}
			}
		}
	}
	select {
	case status := <-written:
		if status == http.StatusServiceUnavailable {
			t.Error("reads beside a write were answered only after it")
		}
		return false
	default:
		return <-written == http.StatusServiceUnavailable
	}
}
