package crashtest

import (
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
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
	if err := standby.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	err := eventually("a write waits for the standby", func() bool {
		res, err := http.Post("http://"+primary.addr+"/db/1/sequence/s", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode == http.StatusServiceUnavailable
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := primary.stop(); err != nil {
		t.Error(err)
	}
	serve(t, o)
}
