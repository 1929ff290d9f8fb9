package replica

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"clouddragon/internal/disk"
)

// TestOnlyAServerThatHasNotServedGivesItsElectionBack ends an elected server at different
// moments.
func TestOnlyAServerThatHasNotServedGivesItsElectionBack(t *testing.T) {
	const both, alone = `{"Epoch":4,"InSync":["a","b"]}`, `{"Epoch":4,"InSync":["a"]}`
	cases := []struct {
		name          string
		before, after func(*Elector, *fakeEtcd) // the election
		want          []string
	}{
		{name: "the data cannot be opened", want: []string{alone, both}},
		{name: "the database was open", want: []string{alone}, after: func(e *Elector, _ *fakeEtcd) { e.setOpen(true); e.setOpen(false) }},
		{name: "the database was open already", want: []string{alone}, before: func(e *Elector, _ *fakeEtcd) { e.setOpen(true) }, after: func(e *Elector, _ *fakeEtcd) { e.setOpen(false) }},
		{name: "the list was changed since", want: []string{alone}, after: func(_ *Elector, f *fakeEtcd) { f.config = `{"Epoch":4,"InSync":["a","c"]}` }},
		{name: "the lease was lost", want: []string{alone}, after: func(e *Elector, _ *fakeEtcd) { e.lost() }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "CHECKPOINT"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			e, etcd := newTestElector(t, disk.OS{}, dir)
			etcd.config = `{"Epoch":3,"InSync":["a","b"]}`
			if c.before != nil {
				c.before(e, etcd)
			}
			if err := e.step(t.Context()); err != nil {
				t.Fatal(err)
			}
			if c.after != nil {
				c.after(e, etcd)
			}
			if err := e.GiveBack(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(etcd.put, c.want) {
				t.Errorf("etcd has got %q, want %q", etcd.put, c.want)
			}
		})
	}
}
