package db

import (
	"bytes"
	"clouddragon/db/store"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"
)

var soak = flag.Duration("soak", 2*time.Second, "how long TestSoak writes, deletes, expires, compacts and restarts")

// soakKey is what a client knows of a key of its own.
type soakKey struct {
	version int64  // 0: there is none
	sum     uint32 // of the data
	// It expires between these; zero: never. A call can take long on a busy disk.
	soonest, expires time.Time
}

// soaker is one client; nobody else changes its keys.
type soaker struct {
	name string
	rnd  *rand.Rand
	keys []soakKey
	last int64
}

// value returns data that names its owner and is different every time.
func (s *soaker) value(k int) []byte {
	size := s.rnd.IntN(400)
	if s.rnd.IntN(50) == 0 {
		size = s.rnd.IntN(100_000)
	}
	b := fmt.Appendf(nil, "%s/%d ", s.name, k)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, s.rnd.Uint64())
	}
	return b
}

func (s *soaker) key(k int) Key { return Key{s.name, fmt.Sprint(k)} }

// step makes one call and returns what is wrong with its answer.
func (s *soaker) step(d *DB) error {
	k := s.rnd.IntN(len(s.keys))
	if s.rnd.IntN(4) == 0 {
		k = s.rnd.IntN(10) // some are changed often
	}
	known := &s.keys[k]
	switch what := s.rnd.IntN(10); {
	case what < 5:
		r := SetRequest{Key: s.key(k), Data: s.value(k), Check: AnyVersion}
		var soonest, expires time.Time
		if s.rnd.IntN(3) == 0 {
			r.TTL = time.Duration(1+s.rnd.IntN(3000)) * time.Millisecond
			soonest = time.Now().Add(r.TTL)
		}
		v, err := d.Set(r)
		if err != nil || v <= s.last {
			return fmt.Errorf("set %v: version %d after %d: %w", r.Key, v, s.last, err)
		}
		if r.TTL != 0 {
			expires = time.Now().Add(r.TTL)
		}
		s.last = v
		*known = soakKey{v, crc32.ChecksumIEEE(r.Data), soonest, expires}
	case what < 6:
		if err := d.DeleteValue(s.key(k), AnyVersion); err != nil {
			return fmt.Errorf("delete %v: %w", s.key(k), err)
		}
		*known = soakKey{}
	default:
		return s.check(d, k)
	}
	return nil
}

// soakGrace is by how much a value may appear to expire early or late.
const soakGrace = 500 * time.Millisecond

func (s *soaker) check(d *DB, k int) error {
	known := s.keys[k]
	before := time.Now()
	v, err := d.Get(s.key(k))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	mayBe := known.version != 0 && (known.expires.IsZero() || before.Before(known.expires.Add(soakGrace)))
	mustBe := known.version != 0 && (known.expires.IsZero() || time.Now().Before(known.soonest.Add(-soakGrace)))
	switch {
	case err != nil && mustBe:
		return fmt.Errorf("%v is gone, its version was %d", s.key(k), known.version)
	case err == nil && !mayBe:
		return fmt.Errorf("%v is back, with version %d; the last was %+v", s.key(k), v.Version, known)
	case err == nil && (v.Version != known.version || crc32.ChecksumIEEE(v.Data) != known.sum || !bytes.HasPrefix(v.Data, fmt.Appendf(nil, "%s/%d ", s.name, k))):
		return fmt.Errorf("%v is version %d with %d bytes, want version %d", s.key(k), v.Version, len(v.Data), known.version)
	}
	return nil
}

// For the time of -soak, clients write, delete and let values expire while the log is
// compacted and the index saved, with restarts. Every value is checked, and the log stays
// within its bound.
func TestSoak(t *testing.T) {
	seed := rand.Uint64()
	o := Options{Dir: t.TempDir(), Segment: 1 << 20, Extent: 4096}
	var clients []*soaker
	for c := range 16 {
		clients = append(clients, &soaker{name: fmt.Sprint("client", c), rnd: rand.New(rand.NewPCG(seed, uint64(c))), keys: make([]soakKey, 300)})
	}
	end := time.Now().Add(*soak)
	rounds, freed := 0, uint64(0)
	for ; time.Now().Before(end) && !t.Failed(); rounds++ {
		d := mustOpen(t, o)
		until := time.Now().Add(min(*soak/4, 10*time.Second))
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				for k := range c.keys {
					if err := c.check(d, k); err != nil {
						t.Errorf("after a start: %v", err)
						return
					}
				}
				for time.Now().Before(until) {
					if err := c.step(d); err != nil {
						t.Errorf("seed %d: %v", seed, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if err := d.store.Checkpoint(); err != nil {
			t.Error(err)
		}
		d.store.Compact()
		s := d.Stats()
		// Bytes written while a checkpoint and a compaction run come on top.
		if bound := int64(2*float64(s.Values.Live)) + (store.CompactSlack+3)*o.Segment; s.Log.Bytes > bound {
			t.Errorf("the log has %d bytes with %d live, at most %d are allowed", s.Log.Bytes, s.Values.Live, bound)
		}
		freed += s.Compaction.Freed
		mustClose(t, d)
		if rounds%3 == 2 {
			if err := os.Remove(o.Dir + "/index"); err != nil {
				t.Error(err)
			}
		}
	}
	t.Logf("%d rounds, %d segments freed, seed %d", rounds, freed, seed)
}
