package crashtest

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOutOfMemoryKillLosesNothingAcknowledged has the kernel kill the server
// under load, as it uses up the memory that it has.
func TestOutOfMemoryKillLosesNothingAcknowledged(t *testing.T) {
	begin(t)
	t.Parallel()
	mib := int64(64)
	if raceEnabled {
		mib = 256
	}
	g := newMemoryGroup(t, mib)
	rng := rand.New(rand.NewPCG(*seed, 6))
	l := &load{ledger: newLedger(), clients: 32, valueSize: 4 << 10, seed: *seed}
	o := setup{binary: *binary, data: filepath.Join(t.TempDir(), "data"), config: "log: {segment: 4MiB}\nlimits: {value: 2MiB}", group: g.dir}
	acks, want := 0, atMost(max(*rounds/5, 2), 2)
	for round := range want {
		s := serve(t, o)
		if err := l.check(s.addr); err != nil {
			t.Fatal(err)
		}
		full := l.ledger.round(1 + rng.IntN(600))
		l.start(s.addr, round)
		waitFor(t, s, full)
		// Values of which the last byte does not come stay in memory. The server
		// ends amid this, so that an error tells nothing.
		hungry, _ := crowdOf(s.addr, 100, func(i int) string {
			return fmt.Sprintf("PUT /db/1/kv/hungry-%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", i, 2<<20) + strings.Repeat("h", 2<<20-1)
		})
		if _, err := s.wait(patience); err != nil {
			t.Fatal(err)
		}
		hangUp(hungry)
		l.stop()
		how := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if kills, err := g.kills(); err != nil || kills != round+1 || !how.Signaled() || how.Signal() != syscall.SIGKILL {
			t.Fatalf("it ended with %v, and the kernel has killed %d processes for want of memory, want %d: %v\n%s",
				s.cmd.ProcessState, kills, round+1, err, s.output())
		}
		acks += l.ledger.acks
		report(t, round, l, s)
	}
	o.group = ""
	s := serve(t, o)
	if err := l.check(s.addr); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	report(t, want, l, s)
	t.Logf("%d kills for want of memory, %d acknowledged writes", want, acks)
}
