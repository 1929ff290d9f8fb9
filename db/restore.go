package db

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"clouddragon/db/store"
	"clouddragon/slots"
)

// RestoreOptions say what to restore, and where.
type RestoreOptions struct {
	Dir  string                        // the data directory: missing, or empty
	Open func() (io.ReadCloser, error) // opens the backup, which is read twice
	Keep bool                          // do not raise the next version and token
	Skip int64                         // add this to every sequence in the copy

	Extent int // as in Options

	Size     int64          // of the backup in bytes, for Progress; 0: unknown
	Progress store.Progress // nil: none
}

// Restored is what Restore has made.
type Restored struct {
	store.Restored
	Sequences int // how many were moved on by Skip
}

// Restore makes a data directory from a backup: see store.Restore.
func Restore(ctx context.Context, o RestoreOptions) (Restored, error) {
	var done Restored
	so := store.RestoreOptions{Dir: o.Dir, Open: o.Open, Keep: o.Keep, Extent: o.Extent, Size: o.Size, Progress: o.Progress}
	if o.Skip > 0 {
		so.Change = func(dir string, segment int64) (err error) {
			done.Sequences, err = skipSequences(store.Options{Dir: dir, Segment: segment, Extent: o.Extent}, o.Skip)
			return err
		}
	}
	r, err := store.Restore(ctx, so)
	done.Restored = r
	return done, err
}

// skipSequences adds n to every sequence, in the tables of a directory that is not in use
// yet. A crash in the middle leaves a directory that does not count.
func skipSequences(o store.Options, n int64) (count int, err error) {
	s, _, err := store.Open(o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Abandon()) }()
	err = s.Tables.EachRef(kindSequence, func(ref slots.Ref, k slots.Key, payload []byte) error {
		value := int64(le.Uint64(payload))
		if value > math.MaxInt64-n {
			return fmt.Errorf("sequence %q of account %q is at %d: %d more would pass %d", k.ID, k.Acc, value, n, int64(math.MaxInt64))
		}
		image, number := make([]byte, ref.Size()), make([]byte, numberSize)
		le.PutUint64(number, uint64(value+n))
		s.Tables.Encode(image, ref, k, number)
		s.Tables.Apply([]slots.Image{{Ref: ref, Bytes: image}})
		count++
		return s.Tables.Err()
	})
	if err != nil {
		return count, err
	}
	// The start above has written a checkpoint at the end of the log, so the sequences are
	// in the tables alone.
	return count, s.Tables.Sync()
}
