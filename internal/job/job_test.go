package job

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"clouddragon/internal/client"
)

// The command gets TERM and KILL before the lock expires. Before that, at least one renewal
// that times out can be retried.
func TestTimesOfALock(t *testing.T) {
	for _, dur := range []time.Duration{time.Second, 6 * time.Second, time.Minute, 10 * time.Minute, 24 * time.Hour} {
		for _, killAfter := range []time.Duration{0, time.Second, 10 * time.Second, time.Hour} {
			m := newTerm(dur, killAfter)
			m.end = 100*time.Hour + dur // granted after 100 hours
			limit := (&client.Lock{Dur: dur}).CallLimit()
			if got, want := m.renewAt(), 100*time.Hour+dur/3; got != want {
				t.Errorf("-dur %v: renewed at %v, want %v", dur, got, want)
			}
			if m.killAfter > dur/3 || m.killAfter > killAfter {
				t.Errorf("-dur %v -kill-after %v: KILL comes %v after TERM", dur, killAfter, m.killAfter)
			}
			if m.killAt() >= m.end || m.stopAt()+m.killAfter != m.killAt() {
				t.Errorf("-dur %v -kill-after %v: TERM at %v, KILL at %v, the end is at %v", dur, killAfter, m.stopAt(), m.killAt(), m.end)
			}
			if again := m.renewAt() + limit + m.retry(); again >= m.stopAt() {
				t.Errorf("-dur %v -kill-after %v: a renewal is tried again at %v, and TERM comes at %v", dur, killAfter, again, m.stopAt())
			}
		}
	}
}

func TestWitnessRecognisesSignalsForTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w witness
		due := func() []syscall.Signal {
			<-w.due()
			return w.alone()
		}
		w.saw(syscall.SIGINT) // before the front
		w.passed(syscall.SIGINT)
		if got := due(); got != nil {
			t.Errorf("a signal for the group is passed on: %v", got)
		}
		w.passed(syscall.SIGTERM)
		<-time.After(sameSignal / 2) // of the bubble's clock
		w.saw(syscall.SIGTERM)       // after the front
		w.passed(syscall.SIGUSR1)
		if got := due(); got != nil {
			t.Errorf("a signal for the group is passed on: %v", got)
		}
		if got := due(); !reflect.DeepEqual(got, []syscall.Signal{syscall.SIGUSR1}) {
			t.Errorf("of a signal for the front alone: %v", got)
		}
		if w.due() != nil {
			t.Error("it is due without a signal")
		}
		w.passed(syscall.SIGINT) // long after the one for the group
		if got := due(); !reflect.DeepEqual(got, []syscall.Signal{syscall.SIGINT}) {
			t.Errorf("of a second signal for the front alone: %v", got)
		}
	})
}

func TestLookUpFindsWhatAShellFinds(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"first/plain": 0o600, "second/plain": 0o700, "first/only": 0o600, "second/tool": 0o700} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=/none", "PATH=" + dir + "/first:" + dir + "/second"}
	for _, c := range []struct {
		name, path string
		code       int
	}{
		{"tool", "second/tool", 0},
		{"plain", "second/plain", 0}, // the first one is not executable
		{"only", "", 126},
		{"none", "", 127},
		{"", "", 127},
		{dir + "/first", "", 126}, // a directory
		{dir + "/second/tool", "second/tool", 0},
		{dir + "/second/tool/x", "", 127},
	} {
		path, err := lookUp(c.name, env)
		var e *startError
		switch {
		case c.code == 0 && (err != nil || path != filepath.Join(dir, c.path)):
			t.Errorf("%q: %q, %v, want %s", c.name, path, err, c.path)
		case c.code != 0 && (!errors.As(err, &e) || e.code != c.code):
			t.Errorf("%q: %v, want exit code %d", c.name, err, c.code)
		}
	}
}

func TestGrantKeepsAnyBytes(t *testing.T) {
	sent := &granted{Name: []byte("a\xffb"), Dur: 5, KillAfter: 3}
	b, err := json.Marshal(report{Granted: sent})
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Granted, sent) {
		t.Errorf("%+v arrives as %+v", sent, got.Granted)
	}
}

// Messages that a process sent before it ended arrive, even if it did not read those that were
// sent to it.
func TestLastMessageArrives(t *testing.T) {
	ours, fd, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := connection(fd)
	if err == nil {
		err = errors.Join(send(ours, order{Go: true}), send(theirs, report{Done: &Outcome{Code: 7}}), theirs.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	reports := make(chan report, 2)
	receive(ours, reports)
	if r := <-reports; r.Done == nil || r.Done.Code != 7 {
		t.Errorf("received %+v", r)
	}
}

func TestStatReadsAnyName(t *testing.T) {
	p, ok := stat(os.Getpid())
	if !ok || p.parent != os.Getppid() {
		t.Errorf("of this process: %+v, %v", p, ok)
	}
	if _, ok := stat(-1); ok {
		t.Error("there is a process -1")
	}
	env := withEnv([]string{"A=1", "B=2", "A=3"}, "A", "4")
	if strings.Join(env, " ") != "B=2 A=4" {
		t.Errorf("A set to 4: %v", env)
	}
}
