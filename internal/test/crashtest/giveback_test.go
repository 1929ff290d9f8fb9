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
	a := setup{binary: *binary, data: filepath.Join(dir, "a"), config: e.config("a")}
	b := setup{binary: *binary, data: filepath.Join(dir, "b"), config: e.config("b")}
	sa := serve(t, a)
	isPrimary(t, sa)
	sb := serve(t, b)
	primary, standby := elected(t, sa, sb)
	if primary != sa {
		t.Fatal("the first server is not the primary")
	}
	res, err := http.Post("http://"+sa.addr+"/db/1/sequence/s", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if err := os.Remove(filepath.Join(b.data, "slots-64")); err != nil {
		t.Fatal(err)
	}
	primary.kill()
	if code, err := standby.wait(patience); err != nil || code != 1 {
		t.Fatalf("the standby, which lacks a file: exit code %d, %v:\n%s", code, err, standby.output())
	}
	again := serve(t, a)
	if err := eventually("the primary is elected again", func() bool { return answers(again) }); err != nil {
		t.Errorf("%v:\n%s\nthe standby says:\n%s", err, again.output(), standby.output())
	}
}
