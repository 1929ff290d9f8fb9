package crashtest

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFullDiskWithASharedCopyGoesOn fills a disk on which a copy, made while the server
// runs, shares the blocks of the data directory: overwriting them needs room.
func TestFullDiskWithASharedCopyGoesOn(t *testing.T) {
	begin(t)
	t.Parallel()
	for _, fs := range []fileSystem{xfs, btrfs} {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			sharedCopy(t, newVolume(t, fs, 300))
		})
	}
}

func sharedCopy(t *testing.T, v *volume) {
	o := setup{binary: *binary, data: filepath.Join(v.dir, "data"), config: "log: {segment: 1MiB}\nlimits: {value: 256KiB}"}
	s := serve(t, o)
	c := &client{addr: s.addr}
	value := strings.Repeat("v", 100<<10)
	for n := range 12 {
		mustBe(t, c, 200, "PUT", fmt.Sprintf("/db/1/kv/%d", n), value)
	}
	sequence := int64(10)
	mustBe(t, c, 200, "POST", "/db/1/sequence/a?n=10", "")
	mustBe(t, c, 200, "POST", "/db/1/lock/a?dur=1h&id=me", "")
	shared := exec.Command("cp", "-a", "--reflink=always", o.data, filepath.Join(v.dir, "copy"))
	if v.fs.name == btrfs.name { // no copy shares files that are not copied on write, but a snapshot does
		shared = exec.Command("btrfs", "subvolume", "snapshot", v.dir, filepath.Join(v.dir, "copy"))
	}
	// The server is paused, because cp fails if a file is renamed or removed before cp opens it.
	if err := s.pause(); err != nil {
		t.Fatal(err)
	}
	out, err := shared.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %v: %s", shared, err, out)
	}
	if err := s.goOn(); err != nil || t.Failed() {
		t.FailNow()
	}
	free := fill(t, v)
	// done makes a call that may be refused for want of room, and reports whether it was
	// done.
	done := func(method, target, body string) bool {
		t.Helper()
		a, err := c.do(method, target, body)
		if err != nil || a.status != 200 && a.status != 204 && a.status != 507 {
			t.Fatalf("%s %s on a full disk: %v, %v\n%s", method, target, a, err, s.output())
		}
		return a.status != 507
	}
	held, deleted := true, false
	use := func() {
		t.Helper()
		for range 300 {
			if done("POST", "/db/1/sequence/a", "") {
				sequence++
			}
		}
		for n := range 20 {
			done("PUT", fmt.Sprintf("/db/1/kv/more-%d", n), value)
		}
		if held && done("DELETE", "/db/1/lock/a?id=me", "") {
			held = false
		}
		deleted = done("DELETE", "/db/1/kv/0", "") || deleted
	}
	still := func() {
		t.Helper()
		for n := range 12 {
			if n == 0 && deleted {
				mustBe(t, c, 404, "GET", "/db/1/kv/0", "")
			} else if a := mustBe(t, c, 200, "GET", fmt.Sprintf("/db/1/kv/%d", n), ""); a.body != value {
				t.Errorf("value %d has %d bytes, want %d", n, len(a.body), len(value))
			}
		}
		if a := mustBe(t, c, 200, "GET", "/db/1/sequence/a", ""); a.body != fmt.Sprintf("%d\n", sequence) {
			t.Errorf("the sequence is %v, want %d", a, sequence)
		}
		mustBe(t, c, map[bool]int{true: 200, false: 404}[held], "GET", "/db/1/lock/a", "")
		mustBe(t, c, 200, "GET", "/healthz", "")
	}
	use()
	still()
	for range 2 {
		if err := s.stop(); err != nil {
			t.Fatalf("stop on a full disk: %v", err)
		}
		s = serve(t, o)
		c = &client{addr: s.addr}
		still()
		use()
		s.kill()
		s = serve(t, o)
		c = &client{addr: s.addr}
		still()
		use()
	}
	free()
	if err := eventually("a write works again", func() bool { return done("PUT", "/db/1/kv/again", value) }); err != nil {
		t.Fatalf("%v\n%s", err, s.output())
	}
	still()
	c.close()
	if err := errors.Join(s.stop(), s.trouble()); err != nil {
		t.Error(err)
	}
}
