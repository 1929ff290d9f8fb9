package slots

import (
	"errors"
	"fmt"
)

// ErrSync is returned when a sync has failed, and by every later Sync and Grow: what was
// stored may be lost, though the kernel considers it clean.
var ErrSync = errors.New("sync of a slot table failed, what was stored may be lost")

// ErrNoRoom is returned by a Sync that did nothing because the disk has no room for a
// modified page.
var ErrNoRoom = errors.New("the disk has no room for a page of a slot table")

// Sync makes every image applied so far durable. It skips extents without stores since
// the last Sync. The error is ErrNoRoom, after which it can be called again, or ErrSync,
// which is final.
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
			// Clear it first: a store from here on belongs to the next Sync.
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

// failure waits for a growth of the table in progress, and returns the failed sync if
// there was one. If the growth's sync failed to write a page, a later sync of that page's
// extent does not report it.
func (t *Tables) failure(tab *table) error {
	tab.growing.Lock()
	defer tab.growing.Unlock()
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.failed
}

// fail records a failed sync. A sync that failed because the disk is full must not be
// retried either, so disk.IsFull does not recognise the error.
func (t *Tables) fail(tab *table, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		t.failed = fmt.Errorf("%w: %s: %v", ErrSync, tab.name, err)
	}
	return t.failed
}
