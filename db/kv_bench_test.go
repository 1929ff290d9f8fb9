package db

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"
)

var benchKeys = flag.Int("keys", 1_000_000, "keys of BenchmarkManyKeys")

// many sets n keys with values of the given size, in groups of the given size.
func many(tb testing.TB, d *DB, n, size, atOnce int) {
	tb.Helper()
	errs := make(chan error, atOnce)
	for w := range atOnce {
		go func() {
			data := make([]byte, size)
			for i := w; i < n; i += atOnce {
				if _, err := d.Set(SetRequest{Key: Key{"bench", fmt.Sprintf("key-%d", i)}, Data: data, Check: AnyVersion}); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range atOnce {
		if err := <-errs; err != nil {
			tb.Fatal(err)
		}
	}
}

// With -keys 10000000 -benchtime 1x this measures what is promised for ten million keys: the
// memory, and the time of a start after a clean stop and without the snapshot.
func BenchmarkManyKeys(b *testing.B) {
	for range b.N {
		o := Options{Dir: b.TempDir()}
		d := mustOpenB(b, o)
		began := time.Now()
		many(b, d, *benchKeys, 64, 2048)
		b.ReportMetric(float64(*benchKeys)/time.Since(began).Seconds(), "sets/s")
		s := d.Stats()
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(s.Values.IndexBytes)/float64(s.Values.Keys), "index-B/key")
		b.ReportMetric(float64(m.HeapAlloc)/float64(s.Values.Keys), "heap-B/key")
		began = time.Now()
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "close-s")
		for _, what := range []string{"start-s", "rebuild-s"} {
			if what == "rebuild-s" {
				if err := os.Remove(o.Dir + "/index"); err != nil {
					b.Fatal(err)
				}
			}
			began = time.Now()
			d = mustOpenB(b, o)
			b.ReportMetric(time.Since(began).Seconds(), what)
			if n := d.Stats().Values.Keys; n != *benchKeys {
				b.Fatalf("%d keys", n)
			}
			if err := d.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func mustOpenB(b *testing.B, o Options) *DB {
	b.Helper()
	d, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func BenchmarkSet(b *testing.B) {
	for _, size := range []int{64, 64 << 10, 8 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d := mustOpenB(b, Options{Dir: b.TempDir()})
			data := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Set(SetRequest{Key: Key{"1", fmt.Sprint(rand.IntN(16))}, Data: data, Check: AnyVersion}); err != nil {
					b.Fatal(err)
				}
			}
			if err := d.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range []int{64, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			d := mustOpenB(b, Options{Dir: b.TempDir()})
			many(b, d, 1000, size, 64)
			keys := make([]Key, 1000)
			for i := range keys {
				keys[i] = Key{"bench", fmt.Sprintf("key-%d", i)}
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := d.Get(keys[i%len(keys)]); err != nil {
					b.Fatal(err)
				}
			}
			if err := d.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
