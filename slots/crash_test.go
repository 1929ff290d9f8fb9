package slots

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"
)

// durable is what the checkpoint and the log contain at some moment, and what must be
// recovered from them after a power cut.
type durable struct {
	checkpoint
	log  map[Ref][]byte
	want map[Key]string
}

// script runs commits and checkpoints, and marks in the disk's journal from where on
// something is durable.
type script struct {
	*writer
	t    *testing.T
	fs   *memdisk.FS
	rnd  *rand.Rand
	last checkpoint
	keys []Key
	want map[Key]string
}

func newScript(t *testing.T, fs *memdisk.FS) *script {
	s := &script{t: t, fs: fs, rnd: rand.New(rand.NewPCG(3, 4)), keys: someKeys(40), want: make(map[Key]string)}
	s.last.sizes = initial
	s.writer = newWriter(recovered(t, fs, s.last, nil))
	s.mark()
	return s
}

func (s *script) mark() {
	s.fs.Mark(durable{s.last, maps.Clone(s.log), maps.Clone(s.want)})
}

// step is one commit. It also allocates a slot and then does not use it.
func (s *script) step() {
	refused := s.alloc(s.t, s.rnd.IntN(4))
	for _, i := range s.rnd.Perm(len(s.keys))[:4] {
		if k := s.keys[i]; s.rnd.IntN(3) > 0 {
			s.want[k] = strings.Repeat("p", s.rnd.IntN(100))
			s.set(s.t, k, s.want[k])
		} else {
			delete(s.want, k)
			s.remove(k)
		}
	}
	s.Release(refused)
	s.logged()
	s.mark()
	s.commit()
}

// checkpoint commits twice while it syncs.
func (s *script) checkpoint() error {
	s.next = make(map[Ref][]byte)
	sizes, used := s.Sizes(), s.Used()
	s.step()
	stepped := false
	s.fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.SyncMap && !stepped {
			stepped = true
			s.step()
		}
		return nil
	})
	defer s.fs.Fail(nil)
	if err := s.Sync(); err != nil {
		return err
	}
	s.last, s.log, s.next = checkpoint{sizes, used}, s.next, nil
	s.mark()
	return nil
}

// check recovers from what a power cut left.
func (d durable) check(t *testing.T, fs *memdisk.FS, keys []Key) {
	t.Helper()
	tables := recovered(t, fs, d.checkpoint, d.log)
	holds(t, tables, keys, d.want)
	must(t, tables.Sync())
	must(t, tables.Close())
}

func TestAPowerCutAtAnyMomentLosesNothing(t *testing.T) {
	fs := created(t)
	s := newScript(t, fs)
	for range 4 {
		for range 4 {
			s.step()
		}
		must(t, s.checkpoint())
	}
	s.step()
	must(t, s.Close())

	rnd := rand.New(rand.NewPCG(5, 6))
	states, cuts := 0, 0
	for cut := range fs.Cuts() {
		marks := cut.Marks()
		if len(marks) == 0 {
			continue
		}
		d := marks[len(marks)-1].(durable)
		for _, left := range []*memdisk.FS{cut.Nothing(), cut.Everything(), cut.Random(rnd)} {
			d.check(t, left, s.keys)
			states++
		}
		// And again, during the recovery.
		if cuts++; cuts%16 == 0 {
			left := cut.Random(rnd)
			d.check(t, left, s.keys)
			for again := range left.Cuts() {
				d.check(t, again.Random(rnd), s.keys)
				states++
			}
		}
	}
	t.Logf("%d states after %d cuts", states, cuts)
	if cuts < 100 {
		t.Errorf("only %d cuts: the script is too short", cuts)
	}
}

func TestRewritingHealsWhatAFailedSyncLost(t *testing.T) {
	fs := created(t)
	s := newScript(t, fs)
	for range 4 {
		s.step()
	}
	must(t, s.checkpoint())
	for range 4 {
		s.step()
	}
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.SyncMap {
			return syscall.EIO
		}
		return nil
	})
	if s.Sync() == nil {
		t.Fatal("Sync says that it succeeded")
	}
	fs.Fail(nil)
	must(t, s.Close())

	// The page cache still has what the disk lost.
	again := fs.Reopen()
	tables := recovered(t, again, s.last, s.log)
	must(t, tables.Sync())
	next := checkpoint{tables.Sizes(), tables.Used()}
	must(t, tables.Close())
	durable{next, nil, s.want}.check(t, again.Cut(again.Len()).Nothing(), s.keys)
}

// stored commits some keys, in fs with a checkpoint after them.
func stored(t *testing.T, fs *memdisk.FS, keys ...Key) (checkpoint, map[Key]Ref) {
	t.Helper()
	w := newWriter(recovered(t, fs, checkpoint{sizes: initial}, nil))
	refs := make(map[Key]Ref)
	for _, k := range keys {
		w.put(t, k, "payload")
		refs[k], _, _ = w.Lookup(k, k.Hash())
	}
	must(t, w.Sync())
	c := checkpoint{w.Sizes(), w.Used()}
	must(t, w.Close())
	return c, refs
}

func TestAnyChangedByteOfASlotIsDamage(t *testing.T) {
	keys := []Key{{Kind: 1, Acc: "a", ID: "short"}, {Kind: 1, Acc: "a", ID: strings.Repeat("m", 60)}, {Kind: 1, Acc: "a", ID: strings.Repeat("l", 120)}, {Kind: 1, Acc: "a", ID: strings.Repeat("x", 250)}}
	fs := created(t)
	c, refs := stored(t, fs, keys...)
	// A slot that is free again, at 1 in slots-64.
	w := newWriter(recovered(t, fs, c, nil))
	w.put(t, Key{Kind: 1, Acc: "a", ID: "gone"}, "")
	w.remove(Key{Kind: 1, Acc: "a", ID: "gone"})
	w.commit()
	must(t, w.Sync())
	c = checkpoint{w.Sizes(), w.Used()}
	must(t, w.Close())
	places := append(slices.Collect(maps.Values(refs)), MakeRef(0, 1))
	if len(slices.Compact(slices.Sorted(slices.Values(places)))) != 5 {
		t.Fatalf("the slots are at %v", places)
	}

	for _, r := range places {
		name, at := FileName(r.Class()), r.offset()
		whole, err := fs.ReadFile("data/" + name)
		must(t, err)
		for i := range r.Size() {
			b := slices.Clone(whole)
			b[at+int64(i)] ^= 1 << (i % 8)
			left := fs.Clone()
			must(t, left.WriteFile("data/"+name, b))
			tables, damage := load(t, left, c, nil)
			if len(damage) != 1 || damage[0].File != name || damage[0].Offset != at || damage[0].What == "" {
				t.Errorf("%s, byte %d of the slot at %d: %v", name, i, at, damage)
			}
			must(t, tables.Close())
		}
	}
}

func TestMisplacedSlotIsDamage(t *testing.T) {
	keys := []Key{{Kind: 1, Acc: "a", ID: "0"}, {Kind: 1, Acc: "a", ID: "1"}, {Kind: 1, Acc: "a", ID: "2"}}
	at := func(n int) int { return headerSize + 64*n }
	for _, c := range []struct {
		name  string
		spoil func(b []byte)
		says  string
	}{
		{"zeros below the mark", func(b []byte) { clear(b[at(1):at(2)]) }, "zeros"},
		{"moved from another place", func(b []byte) { copy(b[at(1):at(2)], b[at(0):]) }, "checksum"},
		{"from another directory", func(b []byte) {
			Codec{ID: [16]byte{1}}.Encode(b[at(1):at(2)], MakeRef(0, 1), keys[1], nil)
		}, "checksum"},
		{"a duplicate key", func(b []byte) {
			codec.Encode(b[at(1):at(2)], MakeRef(0, 1), keys[2], nil)
		}, `"2"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := created(t)
			cp, _ := stored(t, fs, keys...)
			edit(t, fs, "slots-64", func(b []byte) []byte { c.spoil(b); return b })
			tables, damage := load(t, fs, cp, nil)
			defer func() { must(t, tables.Close()) }()
			if len(damage) != 1 {
				t.Fatalf("the damage is %v, wanted one", damage)
			}
			d := damage[0]
			if d.File != "slots-64" || d.Offset != int64(at(1)) || !strings.Contains(d.Error(), c.says) {
				t.Errorf("the damage is %q, wanted slots-64 at %d and %q", d, at(1), c.says)
			}
			if _, ok := tables.Get(keys[0], keys[0].Hash(), nil); !ok {
				t.Error("an undamaged slot cannot be read")
			}
		})
	}
}

func TestDamageInASlotThatTheLogHoldsIsHealed(t *testing.T) {
	k := Key{Kind: 1, Acc: "a", ID: "0"}
	fs := created(t)
	c, refs := stored(t, fs, k)
	edit(t, fs, "slots-64", func(b []byte) []byte { b[headerSize+20] ^= 1; return b })
	tables := recovered(t, fs, c, map[Ref][]byte{refs[k]: image(refs[k], k, "new")})
	if got, _ := tables.Get(k, k.Hash(), nil); string(got) != "new" {
		t.Errorf("the payload is %q, wanted the log's", got)
	}
	must(t, tables.Sync())
	must(t, tables.Close())
	open(t, fs, c)
}

func TestASlotBeyondTheFileIsDamage(t *testing.T) {
	fs := created(t)
	far := MakeRef(2, 16)
	for name, c := range map[string]struct {
		used [4]uint64
		log  map[Ref][]byte
	}{
		"the log's":        {log: map[Ref][]byte{far: freeImage(far)}},
		"the checkpoint's": {used: [4]uint64{2: 17}},
	} {
		tables, damage := load(t, fs, checkpoint{initial, c.used}, c.log)
		n := slices.IndexFunc(damage, func(d *disk.Damage) bool { return d.File == "slots-256" && d.Offset == 8192 })
		if n < 0 {
			t.Errorf("%s: the damage is %v, wanted some at the end of slots-256", name, damage)
		}
		must(t, tables.Close())
	}
}

func TestLoadingChangesNothing(t *testing.T) {
	fs := created(t)
	s := newScript(t, fs)
	for range 10 {
		s.step()
	}
	must(t, s.Grow(1))
	must(t, s.Close())
	left := fs.Clone()
	tables, damage := load(t, left, checkpoint{sizes: initial}, s.log)
	must(t, tables.Close())
	if len(damage) > 0 {
		t.Errorf("damaged: %v", damage)
	}
	if ops := left.Journal(); len(ops) > 0 {
		t.Errorf("it changed the disk: %v", ops)
	}
}
