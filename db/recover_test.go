package db

import (
	"strings"
	"testing"

	"clouddragon/internal/test/memdisk"
)

// A power cut during a start must not leave slots of a batch if only the page cache had the
// batch's log.
func TestAStartMakesTheLogDurableBeforeItTouchesATable(t *testing.T) {
	fs := memdisk.New()
	o := tiny(fs, newTestClock())
	d := mustOpen(t, o)
	wantDone(t, "a write", addN(d, "a", 1))
	crashed := fs.Clone()
	mustClose(t, d)
	o.FS = crashed
	d = mustOpen(t, o)
	written, synced, stored := false, false, false
	for _, op := range crashed.Journal() {
		switch inLog := strings.Contains(op.Name, "/log/"); {
		case inLog && op.Kind == memdisk.Write && !stored:
			written, synced = true, false
		case inLog && op.Kind == memdisk.Sync && !stored:
			synced = written
		case op.Kind == memdisk.Store:
			stored = true
		}
	}
	if !written || !synced || !stored {
		t.Errorf("before the first store to a table, of which there is one: %v, the log was written: %v, and synced: %v", stored, written, synced)
	}
	mustClose(t, d)
}
