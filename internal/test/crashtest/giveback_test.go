package crashtest

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// TestStandbyThatCannotOpenItsDataGivesTheElectionBack damages the data of a standby and kills
// the primary. The standby is elected and ends, and the primary takes its place again.
func TestStandbyThatCannotOpenItsDataGivesTheElectionBack(t *testing.T) {
	begin(t)
	t.Parallel()
	e := newEtcds(t, 1)
	dir := t.TempDir()
	a := setup{binary: *binary, data: filepath.Join(dir, "a"), config: e.config("a"), listen: freeAddress(t)}
	b := setup{binary: *binary, data: filepath.Join(dir, "b"), config: e.config("b"), listen: freeAddress(t)}
	sa := serve(t, a)
	isPrimary(t, sa)
	sb := serve(t, b)
	setups := map[*server]setup{sa: a, sb: b}
	primary, standby := elected(t, sa, sb)
	res, err := http.Post("http://"+primary.addr+"/db/1/sequence/s", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if err := os.Remove(filepath.Join(setups[standby].data, "slots-64")); err != nil {
		t.Fatal(err)
	}
	e.pauseInSync(t, primary, filepath.Base(setups[standby].data))
	primary.kill()
	if code, err := standby.wait(patience); err != nil || code != 1 {
		t.Fatalf("the standby, which lacks a file: exit code %d, %v:\n%s", code, err, standby.output())
	}
	again := serve(t, setups[primary])
	if err := eventually("the primary is elected again", func() bool { return answers(again) }); err != nil {
		t.Errorf("%v:\n%s\nthe standby says:\n%s", err, again.output(), standby.output())
	}
}
