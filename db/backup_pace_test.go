package db

import (
	"context"
	"testing"
	"time"
)

// busyReader writes to the database for each piece of a backup that it gets.
type busyReader struct {
	d    *DB
	busy bool
}

func (r *busyReader) Write(p []byte) (int, error) {
	if r.busy {
		if err := addN(r.d, "n", 1); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// TestBackupPausesForWritesOnly takes a backup while there are writes, and one without.
func TestBackupPausesForWritesOnly(t *testing.T) {
	t.Parallel()
	o := small(t)
	o.Segment, o.QuietAfter = 1<<20, time.Hour
	pauses := 0
	o.Pause = func(d time.Duration) {
		if pauses++; d <= 0 {
			t.Errorf("a pause of %v", d)
		}
	}
	d := mustOpen(t, o)
	defer mustClose(t, d)
	for i := range 32 {
		_, err := d.Set(SetRequest{Key: Key{"a", string(rune('a' + i))}, Data: make([]byte, 60<<10), Check: AnyVersion})
		wantDone(t, "a value", err)
	}
	for _, busy := range []bool{false, true} {
		pauses = 0
		if _, err := d.Backup(context.Background(), &busyReader{d, busy}, "test"); err != nil {
			t.Fatal(err)
		}
		if busy != (pauses > 0) {
			t.Errorf("with writes: %t, pauses: %d", busy, pauses)
		}
	}
}
