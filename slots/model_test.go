package slots

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/memdisk"

	"pgregory.net/rapid"
)

// checkpoint is what CHECKPOINT contains about the tables.
type checkpoint struct {
	sizes [4]int64
	used  [4]uint64
}

// testing.TB, or rapid's.
type reporter interface {
	Helper()
	Errorf(string, ...any)
	Fatalf(string, ...any)
}

// load opens and loads the tables, and returns the damage that was found.
func load(t reporter, fs *memdisk.FS, c checkpoint, log map[Ref][]byte) (*Tables, []*disk.Damage) {
	t.Helper()
	tables, err := Open(options(fs), c.sizes)
	must(t, err)
	var damage []*disk.Damage
	tables.Load(c.used, log, func(d *disk.Damage) { damage = append(damage, d) })
	return tables, damage
}

// recovered loads the tables, which must be undamaged, and rewrites them.
func recovered(t reporter, fs *memdisk.FS, c checkpoint, log map[Ref][]byte) *Tables {
	t.Helper()
	tables, damage := load(t, fs, c, log)
	if len(damage) > 0 {
		t.Fatalf("damaged: %v", damage)
	}
	must(t, tables.Rewrite(log))
	return tables
}

// open is recovered without a log, and closed at the end.
func open(t testing.TB, fs *memdisk.FS, c checkpoint) *Tables {
	t.Helper()
	tables := recovered(t, fs, c, nil)
	t.Cleanup(func() { must(t, tables.Close()) })
	return tables
}

// writer changes tables like the database: in batches, through a log.
type writer struct {
	*Tables
	batch []Image
	log   map[Ref][]byte // the last images since the checkpoint
	next  map[Ref][]byte // the last images since the checkpoint in progress began, if there is one
}

func newWriter(tables *Tables) *writer {
	return &writer{Tables: tables, log: make(map[Ref][]byte)}
}

// alloc allocates a slot, and grows the table if none is free.
func (w *writer) alloc(t reporter, class int) Ref {
	t.Helper()
	r, ok := w.Alloc(class)
	if !ok {
		must(t, w.Grow(class))
		if r, ok = w.Alloc(class); !ok {
			t.Fatalf("class %d has no room after it grew", class)
		}
	}
	return r
}

func (w *writer) set(t reporter, k Key, payload string) {
	t.Helper()
	class, ok := ClassFor(k, len(payload))
	if !ok {
		t.Fatalf("%+v fits nowhere", k)
	}
	hash := k.Hash()
	r, _, ok := w.Lookup(k, hash)
	if ok && r.Class() == class {
		w.batch = append(w.batch, Image{Ref: r, Bytes: image(r, k, payload)})
		return
	}
	if ok {
		w.batch = append(w.batch, Image{Ref: r, Bytes: freeImage(r)})
	}
	r = w.alloc(t, class)
	w.batch = append(w.batch, Image{Ref: r, Bytes: image(r, k, payload)})
}

func (w *writer) remove(k Key) {
	hash := k.Hash()
	if r, _, ok := w.Lookup(k, hash); ok {
		w.batch = append(w.batch, Image{Ref: r, Bytes: freeImage(r)})
	}
}

// logged makes the batch durable.
func (w *writer) logged() {
	for _, c := range w.batch {
		w.log[c.Ref] = c.Bytes
		if w.next != nil {
			w.next[c.Ref] = c.Bytes
		}
	}
}

func (w *writer) commit() {
	w.logged()
	w.Apply(w.batch)
	w.batch = w.batch[:0]
}

// put commits one change as a batch.
func (w *writer) put(t reporter, k Key, payload string) {
	t.Helper()
	w.set(t, k, payload)
	w.commit()
}

// holds checks the contents of the tables.
func holds(t reporter, tables *Tables, keys []Key, want map[Key]string) {
	t.Helper()
	for _, k := range keys {
		got, ok := tables.Get(k, k.Hash(), []byte(">"))
		payload, known := want[k]
		if ok != known || string(got) != ">"+payload {
			t.Fatalf("Get(%+v) = %q, %v, wanted %q, %v", k, got, ok, ">"+payload, known)
		}
		r, alias, ok := tables.Lookup(k, k.Hash())
		if ok != known || string(alias) != payload || ok && !tables.Has(r) {
			t.Fatalf("Lookup(%+v) = %#x, %q, %v, wanted %q, %v", k, uint64(r), alias, ok, payload, known)
		}
	}
	live := uint64(0)
	for class, s := range tables.Stats().Classes {
		live += s.Used
		if free := tables.Free(class); s.Capacity != tables.Capacity(class) || free != s.Capacity-s.Used {
			t.Fatalf("class %d has %d slots, %d free, but stats of %+v", class, tables.Capacity(class), free, s)
		}
		if size := headerSize + int64(s.Capacity)*int64(Classes[class]); s.FileBytes != size || tables.Sizes()[class] != size {
			t.Fatalf("class %d has %d bytes (Sizes: %d), wanted %d", class, s.FileBytes, tables.Sizes()[class], size)
		}
	}
	if n := tables.index.Len(); live != uint64(len(want)) || n != len(want) {
		t.Fatalf("%d slots are in use, %d in the index, wanted %d", live, n, len(want))
	}
}

// someKeys returns keys of all classes, which differ only in the kind, the account or the id.
func someKeys(n int) []Key {
	keys := make([]Key, n)
	for i := range keys {
		id := i / 4
		keys[i] = Key{Kind: uint8(i%2 + 1), Acc: fmt.Sprint(i / 2 % 2), ID: fmt.Sprintf("%d%s", id, strings.Repeat("i", id*37%230))}
		if i%3 == 2 {
			keys[i].Sub = uint64(i % 5) // 0 now and then, which is none
		}
	}
	return keys
}

func TestTablesAreAMapThatOutlivesTheProcess(t *testing.T) {
	keys := someKeys(32)
	base := created(t)
	for name, mask := range map[string]uint64{
		"own hashes":       ^uint64(0),
		"colliding hashes": 1 << 60,
	} {
		t.Run(name, func(t *testing.T) {
			hashMask = mask
			defer func() { hashMask = ^uint64(0) }()
			rapid.Check(t, func(t *rapid.T) {
				fs := base.Clone()
				last := checkpoint{sizes: initial}
				w := newWriter(recovered(t, fs, last, nil))
				want := make(map[Key]string)
				key, payload := rapid.SampledFrom(keys), rapid.StringN(0, 20, 200)
				restart := func(t *rapid.T, next *memdisk.FS) {
					must(t, w.Close())
					if n := fs.OpenHandles(); n != 0 {
						t.Fatalf("%d handles are open after Close", n)
					}
					fs = next
					tables := recovered(t, fs, last, w.log)
					log := w.log
					w = newWriter(tables)
					w.log = log
				}
				actions := map[string]func(*rapid.T){
					"commit": func(t *rapid.T) {
						seen := make(map[Key]bool)
						for range rapid.IntRange(1, 20).Draw(t, "n") {
							k := key.Draw(t, "key")
							if seen[k] {
								continue
							}
							seen[k] = true
							if rapid.IntRange(0, 2).Draw(t, "what") > 0 {
								want[k] = payload.Draw(t, "payload")
								w.set(t, k, want[k])
							} else {
								w.remove(k)
								delete(want, k)
							}
						}
						// Images of different slots may be in any order.
						rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "order"))).Shuffle(len(w.batch), func(i, j int) {
							w.batch[i], w.batch[j] = w.batch[j], w.batch[i]
						})
						w.commit()
					},
					"refused": func(t *rapid.T) {
						var taken []Ref
						for range rapid.IntRange(1, 5).Draw(t, "n") {
							taken = append(taken, w.alloc(t, rapid.IntRange(0, 3).Draw(t, "class")))
						}
						for _, r := range taken {
							w.Release(r)
						}
					},
					"checkpoint": func(t *rapid.T) {
						next := checkpoint{w.Sizes(), w.Used()}
						must(t, w.Sync())
						last, w.log = next, make(map[Ref][]byte)
					},
					"": func(t *rapid.T) { holds(t, w.Tables, keys, want) },
				}
				actions["restart"] = func(t *rapid.T) { restart(t, fs) }
				actions["power cut"] = func(t *rapid.T) {
					rnd := rand.New(rand.NewPCG(2, rapid.Uint64().Draw(t, "fate")))
					restart(t, fs.Crash(fs.Len(), rnd))
				}
				t.Repeat(actions)
				must(t, w.Close())
			})
		})
	}
}
