package crashtest

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestLockSurvivesTheFailoverToAServerWhoseClockIsAhead has a standby whose clock is an hour ahead
// take over from its primary, which has granted a lock for ten minutes.
func TestLockSurvivesTheFailoverToAServerWhoseClockIsAhead(t *testing.T) {
	begin(t)
	if !built {
		t.Skip("it needs a program of this tree, and -binary names one")
	}
	t.Parallel()
	dir := t.TempDir()
	step := filepath.Join(dir, "step")
	if err := os.WriteFile(step, []byte(strconv.FormatInt(int64(time.Hour), 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	primary := serve(t, setup{binary: *binary, data: filepath.Join(dir, "1"), config: smallFiles})
	o := setup{binary: buildSteppable(t), data: filepath.Join(dir, "2"), config: standbyOf(primary.addr), step: step, listen: freeAddress(t)}
	standby := serve(t, o)
	inSync(t, primary, standby)
	const lock = "/db/1/lock/l"
	res, err := http.Post("http://"+primary.addr+lock+"?id=me&dur=600", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s", lock, res.Status)
	}
	primary.kill()
	promote(t, o.data, false)
	isPrimary(t, standby)
	if res, err = http.Get("http://" + standby.addr + lock); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("a lock of ten minutes after the failover: %s; the server says:\n%s", res.Status, standby.output())
	}
}
