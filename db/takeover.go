package db

import (
	"errors"
	"math"
	"time"

	"clouddragon/db/store"
	"clouddragon/slots"
)

// takeOverRaise is how far the versions and tokens of a server that takes over are above
// those that it has seen. With a standby that has every write the old server can have used
// one block of tokens more, and one that lags lacks seconds or minutes of writes: this is
// more than four hours of four million a second. 2^62 has room for 67 million times.
const takeOverRaise = 1 << 36

// TakeOver prepares the data directory of a server that followed another one and takes
// its place: versions and tokens are raised, and every lock that is held ends that much later.
// It can be repeated.
func TakeOver(o Options, grace time.Duration) (err error) {
	o.defaults()
	so := store.Options{FS: o.FS, Dir: o.Dir, Who: o.Who, Segment: o.Segment, LeastSegment: o.LeastSegment, Extent: o.Extent, Clock: o.Clock, Log: o.Log}
	s, _, err := store.Open(so)
	if err != nil {
		return err
	}
	err = s.Tables.EachRef(kindLock, func(ref slots.Ref, k slots.Key, payload []byte) error {
		image, hold := make([]byte, ref.Size()), append([]byte(nil), payload...)
		for _, at := range []int{0, 16} { // its end, and the end of its rest
			if end := int64(le.Uint64(hold[at:])); end > 0 {
				le.PutUint64(hold[at:], uint64(min(end, math.MaxInt64-int64(grace))+int64(grace)))
			}
		}
		s.Tables.Encode(image, ref, k, hold)
		s.Tables.Apply([]slots.Image{{Ref: ref, Bytes: image}})
		return s.Tables.Err()
	})
	// The start has written a checkpoint behind all that is in the log, so the tables alone
	// say who holds what.
	if err == nil {
		err = s.Tables.Sync()
	}
	if err = errors.Join(err, s.Abandon()); err != nil {
		return err
	}
	return store.Raise(so, takeOverRaise)
}
