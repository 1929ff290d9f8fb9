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
	Keep bool                          // the next version and token are those of the copy
	Skip int64                         // every sequence in the copy goes on so many numbers later

	Extent int // as in Options

	Size     int64          // of the backup in bytes, for Progress; 0: it is not known
	Progress store.Progress // nil: nobody looks
}

// Restored is what Restore has made.
type Restored struct {
	store.Restored
	Sequences int // those that were moved on
}

// Restore makes a data directory of a backup: see store.Restore.
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

// skipSequences moves every sequence on by n, in the tables of a directory that
// nobody uses yet. A crash in the middle of it leaves a directory that does not count.
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
	// The start above has written a checkpoint behind all that is in the log, so the
	// tables alone say where the sequences are.
	return count, s.Tables.Sync()
}
