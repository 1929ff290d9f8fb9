package slots

import (
	"errors"
	"fmt"
)

// ErrSync is returned when a sync has failed, and by every Sync and Grow after
// it: what was stored may be lost, though the kernel calls it clean.
var ErrSync = errors.New("sync of a slot table failed, what was stored may be lost")

// ErrNoRoom is returned by a Sync that did nothing because the disk has no room for a
// page that was stored to.
var ErrNoRoom = errors.New("the disk has no room for a page of a slot table")

// Sync makes every image applied so far durable. Extents without stores since
// the last Sync cost nothing. The error is ErrNoRoom, after which it can be called
// again, or ErrSync, which is final.
func (t *Tables) Sync() error {
	t.syncing.Lock()
	defer t.syncing.Unlock()
	if err := t.Retry(); err != nil {
		return err
	}
	t.mu.RLock()
	err := t.failed
	var all [len(Classes)][]*extent
	for i, tab := range t.tables {
		all[i] = tab.extents
	}
	t.mu.RUnlock()
	if err != nil {
		return err
	}
	for i, extents := range all {
		for _, e := range extents {
			// Cleared first: a store from here on belongs to the next Sync.
			if !e.dirty.Swap(false) {
				continue
			}
			if err := e.Sync(); err != nil {
				return t.fail(t.tables[i], err)
			}
		}
		if err := t.failure(t.tables[i]); err != nil {
			return err
		}
	}
	return nil
}

// failure waits for a growth of the table that is on its way, and returns the
// failed sync if there was one: had that of the growth met a page that could not
// be written, then the sync of the page's extent after it said nothing.
func (t *Tables) failure(tab *table) error {
	tab.growing.Lock()
	defer tab.growing.Unlock()
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.failed
}

// fail records a failed sync. Even one for want of room is no full disk that
// could be tried again, so disk.IsFull does not recognise it.
func (t *Tables) fail(tab *table, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		t.failed = fmt.Errorf("%w: %s: %v", ErrSync, tab.name, err)
	}
	return t.failed
}
