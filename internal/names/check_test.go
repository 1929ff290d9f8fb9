package names

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"clouddragon/internal/test/memdisk"
)

func TestCheckReadsWhatWasSaved(t *testing.T) {
	r := newRig(t, 5)
	if _, err := Check(tiny(r.fs)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the first Save: %v, want that there is none", err)
	}
	for range 400 {
		r.step()
	}
	r.save()
	before := r.fs.Len()
	any := tiny(r.fs)
	any.ID = [16]byte{}
	for _, o := range []Options{tiny(r.fs), any} {
		rep, err := Check(o)
		if err != nil || rep.Seq != r.seq || rep.Runs != len(r.x.runs) || rep.Keys < uint64(len(r.model)) {
			t.Errorf("Check: %+v, %v; want Save %d, %d runs and at least %d keys", rep, err, r.seq, len(r.x.runs), len(r.model))
		}
	}
	other := tiny(r.fs)
	other.ID[0]++
	if _, err := Check(other); !errors.Is(err, ErrDamaged) {
		t.Errorf("the index of another directory: %v, want ErrDamaged", err)
	}
	if r.fs.Len() > before {
		t.Errorf("Check changed the disk: %v", r.fs.Journal()[before:])
	}
}

// TestCheckFindsKeysOutOfOrder writes runs that only a faulty program could have written.
func TestCheckFindsKeysOutOfOrder(t *testing.T) {
	for _, c := range []struct {
		want string
		keys []string
	}{{"is not after", []string{"b", "a"}}, {"is not after", []string{"a", "a"}}, {"", []string{"a", "b"}}} {
		o := tiny(memdisk.New())
		if err := errors.Join(o.FS.MkdirAll(o.Dir), o.FS.SyncDir(".")); err != nil {
			t.Fatal(err)
		}
		w, err := createRun(&o, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range c.keys {
			if err := w.add(entry{key: k}); err != nil {
				t.Fatal(err)
			}
		}
		r, err := w.finish()
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join((&manifest{seq: 1, runs: []runRef{{1, r.size}}}).write(&o), r.release())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Check(o); c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("keys %q: %v, want %q", c.keys, err, c.want)
		}
	}
}
