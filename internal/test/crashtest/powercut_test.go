package crashtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// deepest is how many starts in a row are cut off, each on what the one before has left.
const deepest = 3

// TestPowerCutLosesNothingAcknowledged cuts the power under load, at moments of
// every kind in turn, and then during the starts that follow.
func TestPowerCutLosesNothingAcknowledged(t *testing.T) {
	begin(t)
	t.Parallel()
	onEach(t, powerCuts)
}

func powerCuts(t *testing.T, fs fileSystem) {
	if !fs.cut {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: %s has no call that cuts the power", fs.name)
	}
	v := newVolume(t, fs, 256)
	rng := rand.New(rand.NewPCG(*seed, 2))
	l := &load{ledger: newLedger(), clients: 32, valueSize: 4 << 10, seed: *seed}
	o := setup{binary: *binary, data: filepath.Join(v.dir, "data"), config: smallFiles}
	want := atMost(*cuts, 8)
	acks, underLoad, atStart, beforeServing, alone, whole, missed := 0, 0, 0, 0, 0, 0, 0
	calls := int64(1000) // that a start makes
	began, tenth := time.Now(), 1
	for round := 0; underLoad+atStart < want; round++ {
		s := serve(t, o)
		calls = max(100, s.calls())
		if err := l.check(s.addr); err != nil {
			t.Fatal(err)
		}
		report(t, round, l, s)
		full := l.ledger.round(1 + rng.IntN(400))
		l.start(s.addr, round)
		var taken *backups
		if round/len(moments)%2 == 0 { // beside each kind of moment
			taken = l.takeBackups(s.addr)
		}
		waitFor(t, s, full)
		if m := moments[round%len(moments)]; m.come != nil {
			if err := m.come(s); err != nil && s.trouble() == nil && s.calls() > 0 {
				t.Logf("round %d: %v: the machine is too busy to see it, and the power is cut all the same", round, err)
				missed++
			} else if err != nil {
				t.Fatalf("%v\n%s", err, s.output())
			}
		}
		l.stopped.Store(0)
		l.ledger.fails()
		cutPower(t, v)
		l.ledger.wasCut()
		ends := rng.IntN(2) == 0
		if ends {
			// Its clients go on, so it learns of it.
			alone++
			endsByItself(t, s)
		}
		s.kill()
		l.stop()
		if ends && l.stopped.Load() == 0 { // the last answer may be read only now
			t.Errorf("nobody was told that the disk has failed:\n%s", s.output())
		}
		if taken != nil && taken.check(t, l) {
			whole++
		}
		underLoad++
		acks += l.ledger.acks
		if done := underLoad + atStart; done >= tenth*want/10 {
			t.Logf("%d cuts after %.0f s, %d acknowledged writes", done, time.Since(began).Seconds(), acks)
			tenth = done*10/want + 1
		}
		powerUp(t, v)
		for range rng.IntN(deepest + 1) {
			if cutWhileStarting(t, v, o, rng.Int64N(calls)) {
				beforeServing++
			}
			atStart++
		}
	}
	took := time.Since(began)
	s := serve(t, o)
	if err := l.check(s.addr); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	report(t, underLoad, l, s)
	if missed > underLoad/4 && !raceEnabled {
		t.Errorf("%d of %d cuts under load missed their moment", missed, underLoad)
	}
	for i, m := range moments {
		t.Logf("%d of the cuts under load %s", (underLoad-i+len(moments)-1)/len(moments), m.name)
	}
	t.Logf("%d power cuts in %.0f s: %d under load, of which the server ended by itself after %d, and %d at starts, %d of them before it served; %d acknowledged writes, 0 lost, %d backups restored",
		underLoad+atStart, took.Seconds(), underLoad, alone, atStart, beforeServing, acks, whole)
}

// TestPowerCutWhileTheDirectoryIsMade cuts off the very first start.
func TestPowerCutWhileTheDirectoryIsMade(t *testing.T) {
	begin(t)
	t.Parallel()
	v := newVolume(t, ext4, 256)
	rng := rand.New(rand.NewPCG(*seed, 3))
	for n := range atMost(max(*cuts/25, 3), 2) {
		o := setup{binary: *binary, data: filepath.Join(v.dir, strconv.Itoa(n)), config: smallFiles}
		for range 1 + rng.IntN(deepest) {
			cutWhileStarting(t, v, o, rng.Int64N(200))
		}
		for want := range 3 {
			s := serve(t, o)
			c := client{addr: s.addr}
			if a, err := c.do("POST", "/db/1/sequence/a", ""); err != nil || a.body != fmt.Sprintf("%d\n", want+1) {
				t.Errorf("after %d cuts the next value is %v, %v\n%s", want, a, err, s.output())
			}
			c.close()
			cutPower(t, v)
			s.kill()
			powerUp(t, v)
		}
		if err := os.RemoveAll(o.data); err != nil {
			t.Fatal(err)
		}
	}
}

// waitFor waits until enough is acknowledged.
func waitFor(t *testing.T, s *server, full <-chan struct{}) {
	t.Helper()
	select {
	case <-full:
	case <-s.exited:
		t.Fatalf("the server ended by itself, %v:\n%s", s.cmd.ProcessState, s.output())
	case <-time.After(patience):
		t.Fatalf("too few writes were acknowledged in %v:\n%s", patience, s.output())
	}
}

// endsByItself waits for a server whose disk has failed.
func endsByItself(t *testing.T, s *server) {
	t.Helper()
	code, err := s.wait(patience)
	if err != nil {
		t.Fatalf("its disk has failed: %v", err)
	}
	if code != 1 {
		t.Errorf("exit code %d after the disk failed, want 1:\n%s", code, s.output())
	}
}

// cutWhileStarting starts the server and cuts the power once it has made so many
// calls that read or write. It says whether that was before it served.
func cutWhileStarting(t *testing.T, v *volume, o setup, calls int64) (before bool) {
	t.Helper()
	s := launch(t, o)
	s.reaches(calls)
	cutPower(t, v)
	select {
	case <-s.up:
	default:
		before = true
	}
	s.kill()
	if code := s.cmd.ProcessState.ExitCode(); code != -1 && code != 1 {
		t.Errorf("exit code %d after the disk failed at the start, want 1:\n%s", code, s.output())
	}
	if err := s.trouble(); err != nil {
		t.Error(err)
	}
	powerUp(t, v)
	return before
}

func cutPower(t *testing.T, v *volume) {
	t.Helper()
	if err := v.cut(); err != nil {
		t.Fatalf("cut the power: %v", err)
	}
}

// powerUp mounts what the cut has left. The server is gone.
func powerUp(t *testing.T, v *volume) {
	t.Helper()
	if err := v.unmount(); err != nil {
		t.Fatal(err)
	}
	if err := v.mount(); err != nil {
		t.Fatal(err)
	}
}

// reaches waits until it has made so many calls that read or write, it serves or it has ended.
func (s *server) reaches(calls int64) {
	for s.calls() < calls {
		select {
		case <-s.up:
			return
		case <-s.exited:
			return
		default:
		}
	}
}

var callsPattern = regexp.MustCompile(`sysc[rw]: (\d+)`)

// calls is how many calls that read or write it has made; 0 once it is gone.
func (s *server) calls() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	sum := int64(0)
	for _, m := range callsPattern.FindAllSubmatch(b, -1) {
		n, err := strconv.ParseInt(string(m[1]), 10, 64)
		if err != nil {
			return 0
		}
		sum += n
	}
	return sum
}
