package db

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"clouddragon/db/store"
	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// TestVerifySaysWhatAStartDoesWithTheIndexOfNames gives a data directory the index of
// names of another moment or of another server.
func TestVerifySaysWhatAStartDoesWithTheIndexOfNames(t *testing.T) {
	life := func(fs *memdisk.FS, id string) *memdisk.FS {
		d := mustOpen(t, tiny(fs, newTestClock()))
		makeOne(t, d, Key{"acc", id})
		mustClose(t, d)
		return fs.Clone()
	}
	fs := memdisk.New()
	first, second, other := life(fs, "a"), life(fs, "b"), life(memdisk.New(), "a")
	for _, c := range []struct {
		name           string
		dir, names     *memdisk.FS // names has the index; nil: there is none
		damaged, stale string
		rebuilt        bool
	}{
		{"its own", second, second, "", "", false},
		{"none", second, nil, "", "", true},
		{"an older one", second, first, "", "CHECKPOINT with", true},
		{"a newer one", first, second, "", "the log with", true},
		{"another server's", second, other, "belongs to another data directory", "", true},
	} {
		fs := c.dir.Clone()
		o := tiny(fs, newTestClock())
		for _, from := range []*memdisk.FS{fs, c.names} {
			if from == nil {
				continue
			}
			for _, name := range from.Files() {
				if !strings.HasPrefix(name, o.Dir+"/names/") {
					continue
				}
				b, err := from.ReadFile(name)
				if from == fs {
					err = fs.Remove(name)
				} else if err == nil {
					err = fs.WriteFile(name, b)
				}
				wantDone(t, name, err)
			}
		}
		var damage []string
		r, err := store.VerifyWith(store.Options{FS: fs, Dir: o.Dir, Segment: o.Segment, Extent: o.Extent}, func(d *disk.Damage) { damage = append(damage, d.Error()) })
		wantDone(t, c.name, err)
		if got := strings.Join(damage, "\n"); !strings.Contains(got, c.damaged) || (c.damaged == "") != (got == "") {
			t.Errorf("%s: damage %q, want %q", c.name, got, c.damaged)
		}
		if c.stale == "" && r.Stale != nil || c.stale != "" && (r.Stale == nil || !strings.Contains(r.Stale.Error(), c.stale)) {
			t.Errorf("%s: stale %v, want %q", c.name, r.Stale, c.stale)
		}
		if good := r.Names != nil && r.Stale == nil; good == c.rebuilt {
			t.Errorf("%s: verify calls it good: %v", c.name, good)
		}
		d := mustOpen(t, o)
		awaitNames(t, d)
		if got := d.Stats().Names.Rebuilds > 0; got != c.rebuilt {
			t.Errorf("%s: a start rebuilds it: %v, want %v", c.name, got, c.rebuilt)
		}
		if got := ids(t, d, ListRequest{Kind: ListValues, Acc: "acc", Limit: 9}); !slices.Contains(got, "a") || slices.Contains(got, "b") != (c.dir == second) {
			t.Errorf("%s: the values %q are listed", c.name, got)
		}
		mustClose(t, d)
	}
}

// TestVerifyNamesThePlaceOfADamagedValueOnce flips a byte of a value.
func TestVerifyNamesThePlaceOfADamagedValueOnce(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	d := mustOpen(t, o)
	_, err := d.Set(SetRequest{Key: Key{"acc", "v"}, Data: []byte("a value to be damaged"), Check: AnyVersion})
	wantDone(t, "set", err)
	wantDone(t, "another", func() error { _, err := d.AddSequence(Key{"acc", "s"}, 1); return err }())
	mustClose(t, d)
	name := o.Dir + "/log/00000001.seg"
	b, err := fs.ReadFile(name)
	wantDone(t, "read", err)
	b[bytes.Index(b, []byte("a value to be damaged"))] ^= 1
	wantDone(t, "write", fs.WriteFile(name, b))
	told := false
	_, err = store.VerifyWith(store.Options{FS: fs, Dir: o.Dir, Segment: o.Segment, Extent: o.Extent}, func(d *disk.Damage) {
		if strings.Contains(d.Lost, `the value "v" of account "acc"`) {
			told = true
			if strings.Count(d.Error(), "00000001.seg") != 1 || strings.Contains(d.Error(), "offset") {
				t.Errorf("the place is told twice: %v", d)
			}
		}
	})
	if err != nil || !told {
		t.Errorf("verify does not tell of the value: %v", err)
	}
}
