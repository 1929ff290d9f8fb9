package db

import (
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"time"

	"clouddragon/db/commit"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
)

// A write with a retry key is done once. Its answer is stored in the same batch as its
// changes, and a call that is sent again gets this answer. The answer is stored as a value
// under an id that no client can name. So it expires, and is compacted, recovered and
// verified like any value. The value's data is
//
//	 0  request 32  SHA-256 of the request
//	32  the answer, as the caller of Retry encodes it
const retryHead = sha256.Size // part of the file format, never changed

// retryID returns the id under which the answer for a key is stored: a NUL, which no id of
// a client has, and the beginning of the key's SHA-256. Part of the file format, never
// changed.
func retryID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return commit.Hidden + string(sum[:16])
}

// ErrOtherRequest is returned when a retry key was used for another request. Nothing
// changed.
var ErrOtherRequest = errors.New("the key was used for another request")

// Retry is an operation that is done at most once for each key of an account. A refusal is
// not stored: the next call with the key tries again.
type Retry struct {
	Acc     string
	Key     string            // as the client named it
	Request [sha256.Size]byte // hash of the request; a different one for the same key is ErrOtherRequest
	Keep    time.Duration     // how long the answer is stored
	Op      Operation         // must not wait
	// Answer returns the answer to store. The writer calls it after Op is decided, and
	// again if the batch had no room and Op is decided again. It must not do I/O. Its error
	// refuses the operation.
	Answer func() ([]byte, error)

	// Kept is the stored answer, if this call has replayed it.
	Kept     []byte
	Replayed bool

	lookup lookup
	early  kvlog.Value
	opErr  error // Op's error of prepare; a replay ignores it
}

// Size returns what Op and a short answer may add to the log.
func (o *Retry) Size() int {
	const short = 64
	return o.Op.Size() + wal.RecordSize(kvlog.ValueSize(o.Acc, o.lookup.key.ID, "", "", retryHead+short))
}

// Frees is false even if Op frees room, because the answer takes room.
func (o *Retry) Frees() bool { return false }

func (o *Retry) account() string { return o.Acc }

func (o *Retry) prepare(d *DB) (err error) {
	if err := o.lookup.prepare(d, Key{o.Acc, retryID(o.Key)}); err != nil {
		return err
	}
	if o.early, err = o.lookup.readEarly(nil); err != nil {
		return err
	}
	o.Kept, o.Replayed = nil, false
	o.opErr = o.Op.prepare(d)
	return nil
}

// Decide replays the stored answer, or does Op and stores its answer. The error is Op's or
// ErrOtherRequest.
func (o *Retry) Decide(tx *commit.Tx) error {
	e, err := o.lookup.entry(tx, false)
	if err != nil {
		return err
	}
	if e.Live(tx.Now()) {
		return o.replay(tx, e)
	}
	if o.opErr != nil {
		return o.opErr
	}
	if err := o.Op.Decide(tx); err != nil {
		if err == commit.ErrWaiting {
			panic("db: an operation with a retry key waits")
		}
		return err
	}
	answer, err := o.Answer()
	if err != nil {
		return err
	}
	data := append(o.Request[:len(o.Request):len(o.Request)], answer...)
	e = tx.Decided(o.lookup.key, o.lookup.hash) // Op may have moved the entry
	tx.PutValue(e, &commit.NewValue{Data: data, Sum: kvlog.SumValue(data), Expires: tx.Now() + int64(o.Keep)})
	return nil
}

func (o *Retry) replay(tx *commit.Tx, e *commit.ValueEntry) error {
	val, err := o.lookup.value(tx, e, &o.early)
	if err != nil {
		return err
	}
	if len(val.Data) < retryHead {
		return ErrDamaged
	}
	if string(val.Data[:retryHead]) != string(o.Request[:]) {
		return ErrOtherRequest
	}
	o.Kept, o.Replayed = append([]byte{}, val.Data[retryHead:]...), true
	return nil
}

// RetryStats counts calls with a retry key since the start.
type RetryStats struct {
	Kept, Replayed, Mismatched uint64
}

// retryCounters are the counters behind RetryStats.
type retryCounters struct{ kept, replayed, mismatched atomic.Uint64 }

// CountRetry counts a call with a retry key that was submitted and has ended with err. Do
// counts its own.
func (d *DB) CountRetry(o *Retry, err error) { d.retries.count(o, err) }

func (c *retryCounters) count(o *Retry, err error) {
	switch {
	case errors.Is(err, ErrOtherRequest):
		c.mismatched.Add(1)
	case err != nil:
	case o.Replayed:
		c.replayed.Add(1)
	default:
		c.kept.Add(1)
	}
}

func (c *retryCounters) stats() RetryStats {
	return RetryStats{c.kept.Load(), c.replayed.Load(), c.mismatched.Load()}
}
