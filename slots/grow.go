package slots

import (
	"errors"
	"fmt"

	"clouddragon/internal/disk"
)

// Grow enlarges a class's table by a sixteenth, at least by one extent. On a full disk
// it tries less, and if there is no room for one extent it leaves the file as it was
// and returns an error that disk.IsFull recognises. After any other error the table has
// not grown either; ErrSync is final.
func (t *Tables) Grow(class int) error {
	tab := t.tables[class]
	tab.growing.Lock()
	defer tab.growing.Unlock()
	t.mu.RLock()
	have, err := len(tab.extents), t.failed
	t.mu.RUnlock()
	if err != nil {
		return err
	}
	for n := max(1, have/16); ; n /= 2 {
		err := t.grow(tab, have, n)
		if err == nil || n == 1 || !disk.IsFull(err) {
			return err
		}
	}
}

// grow adds n extents after the first have ones.
func (t *Tables) grow(tab *table, have, n int) error {
	size := tab.fileSize(have)
	err := tab.file.Allocate(size, int64(n)*tab.extent)
	if err == nil {
		// This sync also writes the mapped pages of the file. A failure to write one
		// is reported here and not by a later msync.
		if err := tab.file.Sync(); err != nil {
			return t.fail(tab, err)
		}
		var extents []*extent
		if extents, err = tab.mapExtents(have, n); err == nil {
			t.mu.Lock()
			tab.extents = append(tab.extents, extents...)
			t.mu.Unlock()
			return nil
		}
	}
	return fmt.Errorf("grow %s from %d by %d bytes: %w", tab.name, size, int64(n)*tab.extent,
		errors.Join(err, tab.file.Truncate(size)))
}
