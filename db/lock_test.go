package db

import (
	"runtime"
	"testing"
)

// awaitQueue waits until n callers wait for a lock.
func awaitQueue(t *testing.T, d *DB, k Key, n int) {
	t.Helper()
	for {
		h, err := d.LockHolder(k)
		if err != nil {
			t.Error(err)
			return
		}
		if h.Waiters == n {
			return
		}
		runtime.Gosched()
	}
}
