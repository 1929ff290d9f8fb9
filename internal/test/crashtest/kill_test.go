package crashtest

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// smallFiles is a configuration with which rotation, checkpoints and compaction happen all the
// time.
const smallFiles = "log: {segment: 64KiB}\nlimits: {value: 16KiB}"

// TestKillLosesNothingAcknowledged kills the server under load at instants that the seed
// chooses, sometimes again while it starts, and starts it again. A few times it stops the
// server instead, under load too.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	begin(t)
	t.Parallel()
	kills(t, filepath.Join(t.TempDir(), "data"), *rounds)
}

// TestKillLosesNothingWhereWritesAreCopied does the same on file systems that copy
// on write, while copies share the blocks of the data directory.
func TestKillLosesNothingWhereWritesAreCopied(t *testing.T) {
	begin(t)
	t.Parallel()
	for _, fs := range []fileSystem{xfs, btrfs} {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t, fs, 300)
			kills(t, filepath.Join(v.dir, "data"), max(1, *rounds/4))
		})
	}
}

// kills kills the server the given number of times, at most 5 with the race detector.
func kills(t *testing.T, data string, rounds int) {
	rounds = atMost(rounds, 5)
	rng := rand.New(rand.NewPCG(*seed, 1))
	ledger := newLedger()
	l := &load{ledger: ledger, clients: 32, valueSize: 4 << 10, seed: *seed}
	o := setup{binary: *binary, data: data, config: smallFiles}
	acks, whole := 0, 0
	for round := range rounds {
		s := serve(t, o)
		if err := l.check(s.addr); err != nil {
			t.Fatal(err)
		}
		full := ledger.round(1 + rng.IntN(600))
		l.start(s.addr, round)
		taken := l.takeBackups(s.addr)
		select {
		case <-full:
		case <-s.exited:
			t.Errorf("the server ended by itself:\n%s", s.output())
		case <-time.After(patience):
			t.Errorf("only %d writes were acknowledged in %v", ledger.acked(), patience)
		}
		if rng.IntN(8) == 0 {
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		}
		s.kill()
		l.stop()
		if taken.check(t, l) {
			whole++
		}
		if copied := data + "-copy"; rng.IntN(2) == 0 {
			if err := os.RemoveAll(copied); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("cp", "-a", data, copied).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v: %s", err, out)
			}
		}
		for rng.IntN(3) == 0 {
			killWhileStarting(t, o, rng.Int64N(300))
		}
		acks += ledger.acks
		report(t, round, l, s)
	}
	s := serve(t, o)
	if err := l.check(s.addr); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	report(t, rounds, l, s)
	t.Logf("%d kills, %d acknowledged writes, %d backups restored", rounds, acks, whole)
}

// killWhileStarting kills a server once it has made the given number of calls that read or
// write.
func killWhileStarting(t *testing.T, o setup, calls int64) {
	t.Helper()
	s := launch(t, o)
	s.reaches(calls)
	s.kill()
	if err := s.trouble(); err != nil {
		t.Error(err)
	}
}

// report ends the test if a promise was broken.
func report(t *testing.T, round int, l *load, s *server) {
	t.Helper()
	for _, x := range l.broken() {
		t.Errorf("round %d: %s", round, x)
	}
	if err := s.trouble(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Fatalf("the server's log:\n%s", s.output())
	}
}
