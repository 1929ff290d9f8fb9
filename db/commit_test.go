package db

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"clouddragon/internal/disk/memdisk"
)

// A segment that becomes ready while the writer looks for room is no full disk.
func TestGrowthInTheBackgroundIsNeverAFullDisk(t *testing.T) {
	fs := memdisk.New()
	fs.Fail(func(op memdisk.Op) error {
		runtime.Gosched()
		return nil
	})
	o := tiny(fs, newTestClock())
	o.Segment = 8 << 10
	d := mustOpen(t, o)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				if _, err := d.AddSequence(Key{"a", fmt.Sprint(w, i%2, strings.Repeat("x", 250))}, 1); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, d)
}
