package crashtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mustBe checks the status of a call and returns the answer.
func mustBe(t *testing.T, c *client, status int, method, target, body string) answer {
	t.Helper()
	a, err := c.do(method, target, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, brief(target), err)
	}
	if a.status != status {
		t.Fatalf("%s %s: %v, want %d", method, brief(target), a, status)
	}
	return a
}

// fill takes all the room that is left on a volume. It returns a function that gives it back.
func fill(t *testing.T, v *volume) (free func()) {
	t.Helper()
	name := filepath.Join(v.dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for piece := 1 << 20; piece >= 512; {
		_, err := f.Write(make([]byte, piece))
		if errors.Is(err, unix.ENOSPC) {
			piece /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	// Delayed allocation may find the disk full only here. The room that was taken stays
	// taken.
	if err := f.Sync(); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		// Freed blocks count once the journal says so.
		if err := v.control(unix.Syncfs); err != nil {
			t.Fatal(err)
		}
	}
}

// wholeOrNot stores a value or is told that the disk is full. It may succeed because
// compaction may have freed room.
func wholeOrNot(t *testing.T, c *client, target, value string) {
	t.Helper()
	a, err := c.do("PUT", target, value)
	if err != nil || a.status != 200 && a.status != 507 {
		t.Fatalf("PUT %s on a full disk: %v, %v", target, a, err)
	}
}

// TestFullDiskRefusesWritesAndKeepsTheRest fills the disk of a server, restarts the server on
// the full disk, and makes room again.
func TestFullDiskRefusesWritesAndKeepsTheRest(t *testing.T) {
	begin(t)
	t.Parallel()
	onEach(t, fullDisk)
}

func fullDisk(t *testing.T, fs fileSystem) {
	v := newVolume(t, fs, 64)
	o := setup{binary: *binary, data: filepath.Join(v.dir, "data"), config: "log: {segment: 1MiB}\nlimits: {value: 256KiB}"}
	s := serve(t, o)
	c := &client{addr: s.addr}
	mustBe(t, c, 200, "POST", "/db/1/sequence/a?n=10", "")
	mustBe(t, c, 200, "POST", "/db/1/counter/a?add=10", "")
	mustBe(t, c, 200, "POST", "/db/1/lock/a?dur=1h&id=me", "")
	mustBe(t, c, 200, "POST", "/db/1/lock/b?dur=1h", "")
	free := fill(t, v)

	// Store values until there is no room for one more.
	value := strings.Repeat("v", 100<<10)
	var stored []string
	for n := 0; ; n++ {
		target := fmt.Sprintf("/db/1/kv/%d", n)
		a, err := c.do("PUT", target, value)
		if err != nil || a.status != 200 && a.status != 507 {
			t.Fatalf("PUT on a full disk: %v, %v\n%s", a, err, s.output())
		}
		if a.status == 507 {
			mustBe(t, c, 404, "GET", target, "")
			break
		}
		stored = append(stored, target)
	}
	if len(stored) == 0 {
		t.Fatal("the log had no room ready")
	}
	// Existing numbers still count as long as the log has room. After that calls are refused,
	// and nothing is lost.
	sequence := int64(10)
	for n := 0; n < 20_000; n++ {
		a, err := c.do("POST", "/db/1/sequence/a", "")
		if err != nil || a.status != 200 && a.status != 507 {
			t.Fatalf("POST on a full disk: %v, %v\n%s", a, err, s.output())
		}
		if a.status == 507 {
			break
		}
		sequence++
	}
	if sequence == 10 && fs.name == ext4.name { // btrfs may have no room even for what was reserved
		t.Error("an id that exists did not count, though there was room for a delete")
	}
	still := func() {
		t.Helper()
		for _, target := range stored {
			if a := mustBe(t, c, 200, "GET", target, ""); a.body != value {
				t.Errorf("%s has %d bytes, want %d", target, len(a.body), len(value))
			}
		}
		if a := mustBe(t, c, 200, "GET", "/db/1/sequence/a", ""); a.body != fmt.Sprintf("%d\n", sequence) {
			t.Errorf("the sequence is %v, want %d", a, sequence)
		}
		mustBe(t, c, 200, "GET", "/db/1/counter/a", "")
		mustBe(t, c, 200, "GET", "/healthz", "")
		mustBe(t, c, 200, "POST", "/db/1/mlock/a?dur=0.001", "")
	}
	still()
	mustBe(t, c, 200, "GET", "/db/1/lock/b", "")
	mustBe(t, c, 204, "DELETE", "/db/1/lock/b", "")
	mustBe(t, c, 204, "DELETE", stored[0], "")
	stored = stored[1:]
	still()
	for range 2 {
		if err := s.stop(); err != nil {
			t.Fatalf("stop on a full disk: %v", err)
		}
		s = serve(t, o)
		c = &client{addr: s.addr}
		still()
		mustBe(t, c, 404, "GET", "/db/1/lock/b", "")
		mustBe(t, c, 200, "GET", "/db/1/lock/a", "")
		wholeOrNot(t, c, "/db/1/kv/large", strings.Repeat("l", 256<<10))
	}
	s.kill()
	s = serve(t, o)
	c = &client{addr: s.addr}
	still()
	mustBe(t, c, 204, "DELETE", "/db/1/counter/a", "")
	mustBe(t, c, 204, "DELETE", "/db/1/lock/a?id=me", "")
	wholeOrNot(t, c, "/db/1/kv/large", strings.Repeat("l", 256<<10))
	free()
	mustBe(t, c, 200, "PUT", "/db/1/kv/large", strings.Repeat("l", 256<<10))
	for n := range 100 {
		mustBe(t, c, 200, "PUT", fmt.Sprintf("/db/1/kv/more-%d", n), value)
	}
	if a := mustBe(t, c, 200, "POST", "/db/1/sequence/a", ""); a.body != fmt.Sprintf("%d\n", sequence+1) {
		t.Errorf("the sequence goes on with %v, want %d", a, sequence+1)
	}
	sequence++
	if a := mustBe(t, c, 200, "POST", "/db/1/counter/a", ""); a.body != "1\n" {
		t.Errorf("the deleted counter goes on with %v", a)
	}
	still()
	c.close()
	if err := errors.Join(s.stop(), s.trouble()); err != nil {
		t.Error(err)
	}
}

// givenBackWithin is how soon a write has to succeed after deletes that freed more room than
// it needs.
const givenBackWithin = patience

// TestDeletesMakeRoomOnAFullDisk stores values until the disk is full, deletes some, and then
// writes a third of the deleted bytes, each write within givenBackWithin.
func TestDeletesMakeRoomOnAFullDisk(t *testing.T) {
	begin(t)
	t.Parallel()
	onEach(t, givesBack)
}

func givesBack(t *testing.T, fs fileSystem) {
	rng := rand.New(rand.NewPCG(*seed, 5))
	mib := max(fs.mib, 24+rng.Int64N(40))
	v := newVolume(t, fs, mib)
	// Without room for several segments there is nothing to compact.
	segment := 1 + rng.IntN(int(min(8, mib/8)))
	largest := 20_000 + rng.IntN(segment<<20/3)
	o := setup{binary: *binary, data: filepath.Join(v.dir, "data"),
		config: fmt.Sprintf("log: {segment: %dMiB}\nlimits: {value: %d}", segment, largest)}
	s := serve(t, o)
	c := &client{addr: s.addr}
	defer c.close()
	value := func() string { return strings.Repeat("v", largest/2+rng.IntN(largest/2)) }
	var sizes []int
	for {
		data := value()
		a, err := c.do("PUT", fmt.Sprintf("/db/1/kv/%d", len(sizes)), data)
		if err != nil || a.status != 200 && a.status != 507 {
			t.Fatalf("PUT: %v, %v\n%s", a, err, s.output())
		}
		if a.status == 507 {
			break
		}
		sizes = append(sizes, len(data))
	}
	freed, share := 0, 3+rng.IntN(6)
	for n, size := range sizes {
		if n%10 < share {
			mustBe(t, c, 204, "DELETE", fmt.Sprintf("/db/1/kv/%d", n), "")
			freed += size
		}
	}
	t.Logf("%s of %d MiB, segments of %d MiB, values up to %d bytes: %d were stored, %d tenths deleted",
		fs.name, mib, segment, largest, len(sizes), share)
	for n, want := 0, freed/3; want > 0; n++ {
		data := value()
		if err := within(givenBackWithin, "a write has the room of what was deleted", func() bool {
			a, err := c.do("PUT", fmt.Sprintf("/db/1/kv/again-%d", n), data)
			return err == nil && a.status == 200
		}); err != nil {
			t.Fatalf("%v: %d of %d bytes are still to come back\n%s", err, want, freed, s.output())
		}
		want -= len(data)
	}
	c.close()
	if err := errors.Join(s.stop(), s.trouble()); err != nil {
		t.Error(err)
	}
}

// TestStalledDiskMakesWritesWaitAndReadsNot freezes the file system for a while.
func TestStalledDiskMakesWritesWaitAndReadsNot(t *testing.T) {
	begin(t)
	t.Parallel()
	v := newVolume(t, ext4, 128)
	s := serve(t, setup{binary: *binary, data: filepath.Join(v.dir, "data")})
	c := &client{addr: s.addr}
	defer c.close()
	mustBe(t, c, 200, "POST", "/db/1/sequence/a", "")
	mustBe(t, c, 200, "POST", "/db/1/counter/a", "")
	mustBe(t, c, 200, "PUT", "/db/1/kv/a", "value")
	writes := []struct{ method, target, body string }{
		{"POST", "/db/1/sequence/a", ""}, {"POST", "/db/1/counter/a", ""}, {"PUT", "/db/1/kv/a", "other"}, {"POST", "/db/1/lock/a", ""},
	}
	if err := v.freeze(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.thaw() }) // before the server is killed; it is thawed unless the test has failed
	type answered struct {
		target string
		answer answer
		err    error
	}
	answers := make(chan answered, len(writes))
	for _, w := range writes {
		go func() {
			c := &client{addr: s.addr}
			defer c.close()
			a, err := c.do(w.method, w.target, w.body)
			answers <- answered{w.target, a, err}
		}()
	}
	reads := 0
	for stalled := time.After(time.Second); stalled != nil; reads++ {
		for target, want := range map[string]string{"/db/1/sequence/a": "1\n", "/db/1/counter/a": "1\n", "/db/1/kv/a": "value"} {
			if a := mustBe(t, c, 200, "GET", target, ""); a.body != want {
				t.Errorf("%s is %v while the disk stalls, want %q", target, a, want)
			}
		}
		mustBe(t, c, 200, "GET", "/healthz", "")
		mustBe(t, c, 200, "POST", "/db/1/mlock/a?dur=0.001", "")
		select {
		case a := <-answers:
			t.Fatalf("%s was answered while the disk stalled: %v, %v", a.target, a.answer, a.err)
		case <-stalled:
			stalled = nil
		default:
		}
	}
	if err := v.thaw(); err != nil {
		t.Fatal(err)
	}
	for range writes {
		if a := <-answers; a.err != nil || a.answer.status != 200 {
			t.Errorf("%s after the stall: %v, %v", a.target, a.answer, a.err)
		}
	}
	t.Logf("%d times everything was read during the stall", reads)
	c.close()
	if err := errors.Join(s.stop(), s.trouble()); err != nil {
		t.Error(err)
	}
}
