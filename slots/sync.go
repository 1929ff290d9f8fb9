package slots

import "fmt"

// Sync makes every image applied so far durable. Extents without stores since
// the last Sync cost nothing. Once a sync has failed every later one returns
// that error, since the kernel would call the lost pages clean.
func (t *Tables) Sync() error {
	t.syncing.Lock()
	defer t.syncing.Unlock()
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
	}
	return nil
}

// fail records a failed sync. Even one for want of room is no full disk that
// could be tried again, so disk.IsFull does not recognise it.
func (t *Tables) fail(tab *table, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		t.failed = fmt.Errorf("sync %s: %v: what was stored may be lost", tab.name, err)
	}
	return t.failed
}
