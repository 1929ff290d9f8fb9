package db

import (
	"clouddragon/db/commit"
	"clouddragon/slots"
)

// Kinds of things that live in slots; part of the file format, never changed.
const (
	kindSequence uint8 = 1
	kindCounter  uint8 = 2
	kindLock     uint8 = 3
	kindRate     uint8 = 4
)

// ending has the kinds whose slots are freed when a time in their payload has passed. A
// kind needs only an entry here, and its operations have to treat expired things as gone.
var ending = map[uint8]commit.EndOf{kindCounter: counterEnd, kindRate: rateEnd}

// Operation is an operation of one of the APIs. The writer decides it, and it holds its own
// answer. It may be reused after it is answered.
type Operation interface {
	commit.Op
	// prepare does work on the caller's goroutine to save time in the writer: it hashes
	// the key, and reads old values so that their pages are in memory. An error is the
	// operation's answer.
	prepare(d *DB) error
	// account is the account for which it is done, which may be on its way to another
	// server; empty: it is the server's own, and done in any case.
	account() string
}

// Call is a submitted operation: see commit.Call.
type Call = commit.Call

// Submit hands calls to the writer, which answers each with its Done. Their operations must
// be of this package. A caller that finds the writer idle commits one batch on its own
// goroutine. On an error the writer takes no more calls, and no Done is called.
func (d *DB) Submit(calls ...*Call) error {
	ready := d.prepared(calls)
	if len(ready) == 0 {
		return nil
	}
	return d.writer.Submit(ready...)
}

// prepared prepares the operations of calls. It answers those that fail, and returns the
// others in the same memory.
func (d *DB) prepared(calls []*Call) []*Call {
	ready := calls[:0]
	for _, c := range calls {
		if err := c.Op.(Operation).prepare(d); err != nil {
			c.Err = err
			c.Done(c)
			continue
		}
		ready = append(ready, c)
	}
	return ready
}

// SubmitAll is like Submit, but without lead it never commits on the caller's goroutine. If
// the writer takes no more calls, each call is answered with the error.
func (d *DB) SubmitAll(lead bool, calls []*Call) {
	submit := d.writer.Submit
	if !lead {
		submit = d.writer.Queue
	}
	ready := d.prepared(calls)
	if len(ready) == 0 {
		return
	}
	if err := submit(ready...); err != nil {
		for _, c := range ready {
			c.Err = err
			c.Done(c)
		}
	}
}

// Do submits one operation that does not wait for a lock, and returns its answer.
func (d *DB) Do(op Operation) error {
	if err := op.prepare(d); err != nil {
		return err
	}
	if d.follows {
		return d.readFollowed(op)
	}
	err := d.writer.Do(op)
	if retry, ok := op.(*Retry); ok {
		d.CountRetry(retry, err)
	}
	return err
}

// thing is the slot that an operation is about.
type thing struct {
	key  slots.Key
	hash uint64
}

func (t *thing) set(kind uint8, k Key) {
	t.key = slots.Key{Kind: kind, Acc: k.Acc, ID: k.ID}
	t.hash = t.key.Hash()
}

func (t *thing) entry(tx *commit.Tx) *commit.Entry { return tx.Entry(t.key, t.hash) }
