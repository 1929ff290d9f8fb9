package store

import (
	"sync"
	"time"

	"clouddragon/internal/disk"
)

// tellAfter is the shortest time between two log lines that say the same of a full
// disk. Compaction can make room many times, and each time it is used up at once; on
// a small disk each checkpoint tries again what there is no room for, and there can be
// dozens of checkpoints a second.
const tellAfter = time.Minute

// fullTold remembers which messages about the full disk were logged, and when.
type fullTold struct {
	mu sync.Mutex       // guards at
	at map[string]int64 // by message: database time in ns
}

// due reports whether a message may be logged again, and notes that it is.
func (f *fullTold) due(what string, now int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, ok := f.at[what]; ok && now-at < int64(tellAfter) {
		return false
	}
	if f.at == nil {
		f.at = make(map[string]int64)
	}
	f.at[what] = now
	return true
}

// warnOrError logs a failure that the store can do without. Of a full disk it says the
// same once in tellAfter.
func (s *Store) warnOrError(err error, what string) {
	if !disk.IsFull(err) || s.told.due(what, s.Clock.Now()) {
		warnOrError(&s.o, err, what)
	}
}

func warnOrError(o *Options, err error, what string) {
	if disk.IsFull(err) {
		o.Log.Warn("disk full: "+what, "err", err)
		return
	}
	o.Log.Error(what, "err", err)
}
