package db

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"clouddragon/internal/test/memdisk"
)

// retryNote is a note in a disk's journal: the add with that key is about to be sent, or was
// answered.
type retryNote struct{ key, answer string }

// Wherever the power is cut, a client that sends all its writes again with their keys has done
// each of them once, and gets the answers that it got before.
func TestSentAgainAfterAPowerCutEachWriteIsDoneOnce(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	from := fs.Len()
	k := Key{"a", "c"}
	const clients, writes = 3, 25
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range writes {
				key := fmt.Sprintf("%d-%d", c, i)
				fs.Mark(retryNote{key: key})
				answer, _, err := addOnce(d, k, 1, key)
				if err != nil {
					t.Error(err)
				}
				fs.Mark(retryNote{key, answer})
			}
		})
	}
	wg.Wait()
	mustClose(t, d)
	rnd := rand.New(rand.NewPCG(3, 4))
	tried := 0
	for cut := range fs.Cuts() {
		if cut.At() < from || rnd.IntN(4) > 0 {
			continue
		}
		tried++
		answers := map[string]string{}
		for _, note := range cut.Marks() {
			if n, ok := note.(retryNote); ok {
				answers[n.key] = n.answer
			}
		}
		for _, left := range []*memdisk.FS{cut.Nothing(), cut.Random(rnd), cut.Everything()} {
			o.FS = left
			d := mustOpen(t, o)
			for key, was := range answers {
				got, replayed, err := addOnce(d, k, 1, key)
				if err != nil || was != "" && (got != was || !replayed) {
					t.Fatalf("cut at %d: %s is %q, replayed %t, %v; it was %q", cut.At(), key, got, replayed, err, was)
				}
			}
			if v, _ := d.Counter(k); v != int64(len(answers)) {
				t.Fatalf("cut at %d: the counter is %d after %d writes", cut.At(), v, len(answers))
			}
			mustClose(t, d)
		}
	}
	if tried < 20 {
		t.Errorf("only %d cuts were tried", tried)
	}
}
