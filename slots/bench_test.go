package slots

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/hashindex"
)

// onDisk returns tables on the real disk, with n keys of the smallest class.
func onDisk(tb testing.TB, n int) (*writer, []Key) {
	o := Options{FS: disk.OS{}, Dir: tb.TempDir(), ID: testID}
	must(tb, Create(o))
	size := InitialSize(DefaultExtent)
	tables, err := Open(o, [4]int64{size, size, size, size})
	must(tb, err)
	tb.Cleanup(func() { must(tb, tables.Close()) })
	tables.Load([4]uint64{}, nil, func(d *disk.Damage) { tb.Fatal(d) })
	w := newWriter(tables)
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = Key{Kind: 2, Acc: "account", ID: fmt.Sprintf("counter/%d", i)}
		w.set(tb, keys[i], "8 bytes.")
		if len(w.batch) == 1000 || i == n-1 {
			w.Apply(w.batch)
			w.batch = w.batch[:0]
		}
	}
	return w, keys
}

func TestTheSteadyPathDoesNotAllocate(t *testing.T) {
	w, keys := onDisk(t, 1000)
	image := make([]byte, 64)
	change := make([]Image, 1)
	buf := make([]byte, 0, 64)
	i := 0
	for name, call := range map[string]func(k Key, hash uint64){
		"Lookup": func(k Key, hash uint64) {
			if _, _, ok := w.Lookup(k, hash); !ok {
				t.Errorf("%+v is gone", k)
			}
		},
		"Get": func(k Key, hash uint64) {
			if _, ok := w.Get(k, hash, buf); !ok {
				t.Errorf("%+v is gone", k)
			}
		},
		"Put": func(k Key, hash uint64) {
			r, payload, _ := w.Lookup(k, hash)
			w.Encode(image, r, k, payload)
			change[0] = Image{Ref: r, Bytes: image}
			w.Apply(change)
		},
		"Delete and Insert": func(k Key, hash uint64) {
			r, _, _ := w.Lookup(k, hash)
			w.EncodeFree(image, r)
			change[0] = Image{Ref: r, Bytes: image}
			w.Apply(change)
			r, _ = w.Alloc(0)
			w.Encode(image, r, k, []byte("8 bytes."))
			change[0] = Image{Ref: r, Bytes: image}
			w.Apply(change)
		},
	} {
		if n := testing.AllocsPerRun(200, func() {
			k := keys[i*7919%len(keys)]
			i++
			call(k, k.Hash())
		}); n != 0 {
			t.Errorf("%s: %v allocations, wanted none", name, n)
		}
	}
}

func TestOneIDCostsAsMuchDiskAsItsClass(t *testing.T) {
	w, _ := onDisk(t, 20_000)
	st, err := os.Stat(w.tables[0].name)
	must(t, err)
	// 64 bytes each, and the extent that is added ahead of need.
	if most := int64(20_000*64 + headerSize + DefaultExtent); st.Size() > most {
		t.Errorf("20,000 ids take %d bytes on disk, wanted %d at most", st.Size(), most)
	}
}

func BenchmarkTables(b *testing.B) {
	for _, n := range []int{1, 1_000_000} {
		b.Run(fmt.Sprintf("ids=%d", n), func(b *testing.B) {
			w, keys := onDisk(b, n)
			hashes := make([]uint64, n)
			for i, k := range keys {
				hashes[i] = k.Hash()
			}
			run := func(name string, call func(k Key, hash uint64)) {
				b.Run(name, func(b *testing.B) {
					b.ReportAllocs()
					i := 0
					for b.Loop() {
						call(keys[i], hashes[i])
						i = (i + 500_009) % n
					}
				})
			}
			run("Lookup", func(k Key, hash uint64) {
				if _, _, ok := w.Lookup(k, hash); !ok {
					b.Fatal("the key is gone")
				}
			})
			buf := make([]byte, 0, 64)
			run("Get", func(k Key, hash uint64) {
				if _, ok := w.Get(k, hash, buf); !ok {
					b.Fatal("the key is gone")
				}
			})
			image, payload, change := make([]byte, 64), make([]byte, 8), make([]Image, 1)
			run("LookupEncodeApply", func(k Key, hash uint64) {
				r, was, _ := w.Lookup(k, hash)
				binary.LittleEndian.PutUint64(payload, binary.LittleEndian.Uint64(was)+1)
				w.Encode(image, r, k, payload)
				change[0] = Image{Ref: r, Bytes: image}
				w.Apply(change)
			})
			b.Logf("index: %.1f bytes an id", float64(w.Stats().IndexBytes)/float64(n))
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	const n = 1_000_000
	w, _ := onDisk(b, n)
	b.ReportAllocs()
	for b.Loop() {
		t := &Tables{Codec: w.Codec, index: hashindex.New()}
		for i, from := range w.tables {
			t.tables[i] = &table{name: from.name, size: from.size, extent: from.extent, perEach: from.perEach, extents: from.extents}
		}
		t.Load(w.Used(), nil, func(d *disk.Damage) { b.Fatal(d) })
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/slot")
}
