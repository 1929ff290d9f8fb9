package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clouddragon/db"
	"clouddragon/internal/disk"
	"clouddragon/kvlog/wal"
)

// followed returns a rig whose standby has opened its copy but has not joined.
func followed(t *testing.T) *rig {
	r := newRig(t)
	r.mustAdd(30)
	r.newStandby()
	if err := r.sb.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.sb.close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) beat(b beatRequest) (int, string) {
	p, err := json.Marshal(b)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.post("/replica/beat", strings.NewReader(string(p)))
}

func TestStandbyThatLeftIsNotPromoted(t *testing.T) {
	r := followed(t)
	b := beatRequest{Epoch: 1, Answered: r.sb.f.End(), InSync: true}
	if code, line := r.beat(b); code != http.StatusOK || !r.state().InSync {
		t.Fatalf("beat: %d %s", code, line)
	}
	if err := r.sb.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A beat that was in flight.
	if code, line := r.beat(b); code != http.StatusServiceUnavailable || r.state().InSync {
		t.Errorf("a beat after the standby has left: %d %s, in sync: %v", code, line, r.state().InSync)
	}
	if _, err := r.sb.Promote(false); err == nil {
		t.Error("a standby that has left is promoted, and can lack what was answered since")
	}
}

// The primary's state names the standby that it waits for, but that standby may have lost its
// disk since.
func TestStandbyWithANewCopyIsInSyncOnlyOnceItHasAll(t *testing.T) {
	r := followed(t)
	end := r.sb.f.End()
	later := end
	later.Seq++
	for _, x := range []struct {
		name     string
		answered wal.Pos
		inSync   bool
		want     bool
	}{
		{"it lacks a batch", later, true, false},
		{"it has all", end, true, true},
		{"it had all, and nothing is answered without it", later, true, true},
		{"the primary goes on without it", end, false, false},
	} {
		if code, line := r.beat(beatRequest{Epoch: 1, Answered: x.answered, InSync: x.inSync}); code != http.StatusOK {
			t.Fatalf("%s: %d %s", x.name, code, line)
		}
		if got := r.state().InSync; got != x.want {
			t.Errorf("%s: in sync is %v, want %v", x.name, got, x.want)
		}
	}
	r.beat(beatRequest{Epoch: 1, Answered: end, InSync: true})
	if err := r.sb.close(); err != nil {
		t.Fatal(err)
	}
	if err := r.sb.putAside(); err != nil {
		t.Fatal(err)
	}
	if err := r.sb.fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.sb.Promote(false); err == nil {
		t.Error("a standby is promoted with a new copy that may lack what was answered")
	}
}

func TestBatchOfAnEarlierEpochIsRefused(t *testing.T) {
	r := followed(t)
	end := r.sb.f.End()
	if code, line := r.beat(beatRequest{Epoch: 5, Answered: end}); code != http.StatusOK {
		t.Fatalf("beat: %d %s", code, line)
	}
	if got := r.state().Epoch; got != 5 {
		t.Errorf("the epoch on disk is %d, want 5", got)
	}
	r.mustAdd(1)
	reader, err := r.d.Log().NewReader(end)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	f, err := reader.NextFrame(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	body := string(appendFrame(nil, f))
	if code, line := r.post("/replica/append?epoch=4", strings.NewReader(body)); code != http.StatusConflict || r.sb.f.End() != end {
		t.Errorf("an append of epoch 4: %d %s", code, line)
	}
	if code, line := r.post("/replica/append?epoch=5", strings.NewReader(body)); code != http.StatusOK || r.sb.f.End() == end {
		t.Errorf("an append of epoch 5: %d %s", code, line)
	}
	r.beat(beatRequest{Epoch: 5, Answered: r.sb.f.End(), InSync: true})
	if epoch, err := r.sb.Promote(false); epoch != 6 || err != nil {
		t.Fatalf("promoted: epoch %d, %v", epoch, err)
	}
	for _, epoch := range []int{5, 6, 7} {
		code, line := r.post(fmt.Sprint("/replica/append?epoch=", epoch), strings.NewReader(body))
		if code != http.StatusConflict {
			t.Errorf("an append of epoch %d to a server that was promoted: %d %s", epoch, code, line)
		}
	}
}

func TestBatchIsAppliedOnceItWasAnswered(t *testing.T) {
	r := followed(t)
	end := r.sb.f.End()
	if err := r.add("new"); err != nil {
		t.Fatal(err)
	}
	reader, err := r.d.Log().NewReader(end)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	f, err := reader.NextFrame(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read := func() (n int64) {
		r.sb.Read(func(d *db.DB) { n, err = d.Sequence(db.Key{Acc: "1", ID: "new"}) })
		if err != nil && !errors.Is(err, db.ErrNotFound) {
			t.Fatal(err)
		}
		return n
	}
	if code, line := r.post("/replica/append?epoch=1", strings.NewReader(string(appendFrame(nil, f)))); code != http.StatusOK {
		t.Fatalf("append: %d %s", code, line)
	}
	if n := read(); n != 0 {
		t.Errorf("the standby says %d before the primary has answered", n)
	}
	r.beat(beatRequest{Epoch: 1, Answered: end})
	if n := read(); n != 0 {
		t.Errorf("the standby says %d before the primary has answered", n)
	}
	r.beat(beatRequest{Epoch: 1, Answered: r.sb.f.End()})
	if n := read(); n != 1 {
		t.Errorf("the standby says %d after the primary has answered, want 1", n)
	}
}

// A standby can be promoted while its primary hangs in the middle of sending a batch.
func TestHungPrimaryDoesNotHoldUpItsReplacement(t *testing.T) {
	r := followed(t)
	r.beat(beatRequest{Epoch: 1, Answered: r.sb.f.End(), InSync: true})
	body, w := io.Pipe()
	arrived := make(chan struct{})
	watch := func(_ http.ResponseWriter, q *http.Request) bool {
		q.Body = &signalling{q.Body, arrived}
		return false
	}
	r.onWay.Store(&watch)
	ended := make(chan int, 1)
	go func() {
		code, _ := r.post("/replica/append?epoch=1", body)
		ended <- code
	}()
	if _, err := w.Write(make([]byte, frameHeader/2)); err != nil {
		t.Fatal(err)
	}
	<-arrived
	epoch, err := r.sb.Promote(false)
	if err != nil || epoch != 2 {
		t.Errorf("promoted: epoch %d, %v", epoch, err)
	}
	w.Close()
	if code := <-ended; code == http.StatusOK {
		t.Error("half a batch is answered as if it had been taken")
	}
}

// signalling is a reader that signals when the first bytes are read.
type signalling struct {
	io.ReadCloser
	arrived chan struct{}
}

func (s *signalling) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if n > 0 && s.arrived != nil {
		close(s.arrived)
		s.arrived = nil
	}
	return n, err
}

// lay makes a data directory from some of the files of another one.
func lay(t *testing.T, from, to string, only func(name string) bool) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), StateFile) || e.Name() == aside || strings.HasPrefix(e.Name(), fetched) || !only(e.Name()) {
			continue
		}
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// A standby that is killed while it moves its old data aside, or moves the copy to its place,
// continues from there.
func TestKilledStandbyFetchesItsCopyAgain(t *testing.T) {
	for name, kill := range map[string]func(t *testing.T, dir string){
		"the old data is half put aside": func(t *testing.T, dir string) {
			lay(t, dir, filepath.Join(dir, aside), func(n string) bool { return n == "CHECKPOINT" })
		},
		"the copy is half in its place": func(t *testing.T, dir string) {
			lay(t, dir, filepath.Join(dir, fetched), func(n string) bool { return n == "CHECKPOINT" })
		},
		"the copy is half in its place, after the old data was put aside": func(t *testing.T, dir string) {
			lay(t, dir, filepath.Join(dir, fetched), func(n string) bool { return n == "CHECKPOINT" })
			if err := os.Mkdir(filepath.Join(dir, aside), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, aside, "CHECKPOINT"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"the copy is in its place, and not tidied up": func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, fetched), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"the copy is half there": func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(dir, fetched, "log"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, fetched+".tar"), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := followed(t)
			if err := r.sb.close(); err != nil {
				t.Fatal(err)
			}
			kill(t, r.dir)
			r.newStandby()
			if err := r.sb.open(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, want := r.sb.f.End(), r.d.Log().Durable(); got != want {
				t.Errorf("the copy ends at %+v, the primary at %+v", got, want)
			}
			if strings.HasPrefix(name, "the old data") {
				for _, n := range []string{"CHECKPOINT", "log"} {
					if !exists(filepath.Join(r.dir, aside, n)) {
						t.Errorf("%s was not put aside", n)
					}
				}
			}
		})
	}
}

// The lock file of the process stays where the next process looks for it.
func TestLockOfAStandbyIsNotPutAside(t *testing.T) {
	r := followed(t)
	if err := r.sb.close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{StateFile + ".lock", StateFile} {
		if err := os.WriteFile(filepath.Join(r.dir, n), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.sb.putAside(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{StateFile + ".lock", StateFile} {
		if !exists(filepath.Join(r.dir, n)) {
			t.Errorf("%s was put aside", n)
		}
	}
}

func TestPromotedServerKnowsItsAddressOfBefore(t *testing.T) {
	s := State{Primary: true, Before: "http://a:1"}
	for of, want := range map[string]bool{"http://a:1": true, "http://a:1/": true, "": true, "http://b:1": false} {
		if s.IsPrimary(of) != want {
			t.Errorf("replica.of %q: primary is %v, want %v", of, !want, want)
		}
	}
}

// A standby does not put aside its data for that of a primary of an earlier epoch.
func TestStandbyOfALaterEpochKeepsItsData(t *testing.T) {
	r := followed(t)
	if err := r.sb.close(); err != nil {
		t.Fatal(err)
	}
	next := r.state()
	next.Epoch = 9
	if err := next.write(disk.OS{}, r.dir); err != nil {
		t.Fatal(err)
	}
	r.newStandby()
	err := r.sb.open(t.Context())
	refusal := (*statusError)(nil)
	if !errors.As(err, &refusal) || refusal.Status != http.StatusMisdirectedRequest {
		t.Errorf("open: %v, want the primary to say that it is over", err)
	}
	if exists(filepath.Join(r.dir, aside)) || !exists(filepath.Join(r.dir, "CHECKPOINT")) {
		t.Error("the data of epoch 9 was put aside for that of epoch 1")
	}
}
