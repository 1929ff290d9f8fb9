package crashtest

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// replicaStatus is what a server reports about its role.
type replicaStatus struct {
	Role    string
	Primary string
	InSync  bool `json:"in_sync"`
	Live    bool
}

func statusOf(addr string) (s replicaStatus, err error) {
	res, err := http.Get("http://" + addr + "/replica/status")
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// standbyOf is the configuration of a standby of a server.
func standbyOf(addr string) string {
	return smallFiles + "\nreplica: {of: \"http://" + addr + "\", sync: true}"
}

// inSync waits until no write is answered without the standby.
func inSync(t *testing.T, primary, standby *server) {
	t.Helper()
	err := eventually("the standby is in sync", func() bool {
		a, err := statusOf(primary.addr)
		b, err2 := statusOf(standby.addr)
		return err == nil && err2 == nil && a.InSync && b.InSync
	})
	if err != nil {
		t.Fatalf("%v; the primary says:\n%s\nthe standby says:\n%s", err, primary.output(), standby.output())
	}
}

// promote promotes a server with the command.
func promote(t *testing.T, data string, force bool) {
	t.Helper()
	args := []string{"promote", "-data", data}
	if force {
		args = append(args, "-force")
	}
	if out, err := exec.Command(*binary, args...).CombinedOutput(); err != nil {
		t.Fatalf("promote: %v: %s", err, out)
	}
}

// isPrimary waits until a server answers as the primary.
func isPrimary(t *testing.T, s *server) {
	t.Helper()
	if err := eventually("the server is the primary", func() bool { return answers(s) }); err != nil {
		t.Fatalf("%v:\n%s", err, s.output())
	}
}

// answers reports whether a server is the primary and may answer.
func answers(s *server) bool {
	res, err := http.Get("http://" + s.addr + "/healthz?role=primary")
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// TestStandbyTakesOverAndLosesNothing kills, or stops and continues, the primary under
// load, promotes the standby, and makes the old primary the standby of the new one. In
// some rounds the standby is killed first, and comes back.
func TestStandbyTakesOverAndLosesNothing(t *testing.T) {
	begin(t)
	t.Parallel()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(*seed, 7))
	ledger := newLedger()
	ledger.prolonged = promotionGrace
	l := &load{ledger: ledger, clients: 16, valueSize: 2 << 10, seed: *seed}
	number := 0
	begun := func(config string) (setup, *server) {
		number++
		o := setup{binary: *binary, data: filepath.Join(dir, fmt.Sprint(number)), config: config, listen: freeAddress(t)}
		return o, serve(t, o)
	}
	first, primary := begun(smallFiles)
	second, standby := begun(standbyOf(primary.addr))
	rounds := atMost(*rounds, 4)
	var away outages
	for round := range rounds {
		inSync(t, primary, standby)
		if err := l.check(primary.addr); err != nil {
			t.Fatalf("%v; the primary says:\n%s", err, primary.output())
		}
		full := ledger.round(1 + rng.IntN(400))
		l.start(primary.addr, round)
		reached := func() {
			select {
			case <-full:
			case <-time.After(patience):
				t.Errorf("only %d writes were acknowledged in %v", ledger.acked(), patience)
			}
		}
		reached()
		if rng.IntN(3) == 0 {
			// The primary answers no write until the standby is back.
			standby.kill()
			standby = serve(t, second)
			inSync(t, primary, standby)
		}
		hangs := rng.IntN(3) == 0
		if hangs {
			if err := primary.pause(); err != nil {
				t.Fatal(err)
			}
		} else {
			primary.kill()
		}
		began := time.Now()
		promote(t, second.data, false)
		isPrimary(t, standby)
		away = append(away, time.Since(began))
		if hangs {
			if err := primary.goOn(); err != nil {
				t.Fatal(err)
			}
			err := eventually("the old primary knows that it was replaced", func() bool {
				s, err := statusOf(primary.addr)
				return err == nil && s.Role == "replaced"
			})
			if err != nil {
				t.Errorf("%v; it says:\n%s", err, primary.output())
			}
			primary.kill()
		}
		l.stop()
		if err := l.check(standby.addr); err != nil {
			t.Fatalf("%v; the new primary says:\n%s", err, standby.output())
		}
		report(t, round, l, standby)
		if err := primary.trouble(); err != nil {
			t.Error(err)
		}
		// The old one follows the new one.
		first.config = standbyOf(standby.addr)
		old := serve(t, first)
		primary, standby, first, second = standby, old, second, first
	}
	inSync(t, primary, standby)
	away.log(t, "promotions by hand")
	t.Logf("%d failovers, %d acknowledged writes in the last round", rounds, ledger.acks)
	if err := standby.stop(); err != nil {
		t.Error(err)
	}
	// Without its standby, which has left, the primary goes on.
	if err := l.check(primary.addr); err != nil {
		t.Error(err)
	}
	if err := primary.stop(); err != nil {
		t.Error(err)
	}
	for _, o := range []setup{first, second} {
		if out, err := exec.Command(*binary, "verify", o.data).CombinedOutput(); err != nil {
			t.Errorf("verify: %v: %s", err, out)
		}
	}
}
