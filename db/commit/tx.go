package commit

import (
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// Tx is the transaction that becomes one batch. It is a layer on top of the tables, the values
// and the Parts that holds what was decided but is not yet durable. It belongs to the leader,
// and only Decide and a Part's methods use it.
type Tx struct {
	tables *slots.Tables
	index  *kvlog.Values
	tokens *Tokens
	parts  []Part

	moment  Moment // at which the batch is decided
	dated   bool   // the batch notes that moment in the log
	expired bool   // a Part is deciding an expiry
	scarce  bool   // a full disk has room for that expiry only
	call    *Call

	entries  []Entry // of slots that were looked at
	byHash   map[uint64]int32
	given    []slots.Ref // slots that were allocated
	released []slots.Ref // slots that were allocated, then not needed: freed after the batch
	size     int         // upper bound of the bytes of the slots' records

	values  []ValueEntry
	byValue map[uint64]int32
	steps   []kvlog.Step
	records wal.Batch

	version    uint64 // the newest version given to a value
	tokenLimit int64  // a new limit of tokens, if not 0

	answers []answer
	touches bool // Options.Publish is set, so touched is kept
	touched []Touched

	arena []byte // payloads

	entryUndo []entryUndo
	valueUndo []valueUndo
}

// answer is what a call will be told once the batch is durable.
type answer struct {
	call *Call
	err  error
}

// Touched is one change of a thing. Changes are listed in the order in which they
// were decided. A value has Kind 0.
type Touched struct {
	Kind    uint8
	Acc, ID string
	Sub     uint64
	Payload []byte // of a slot; valid until Publish returns
	Created bool   // it did not exist before
	Gone    bool   // it was deleted or has expired
	Expired bool   // it changed because time has passed
	EndOnly bool   // it has another end, and is the same otherwise
	Handed  bool   // it is gone, and what is touched next took its place

	// Of a value; Version and Expires also of one that is gone.
	Version uint64
	Size    int // bytes
	Type    string
	Expires int64 // in database time, ns; 0: never
}

// Part is state in memory that changes together with slots and values, such as the queue
// of a lock. The leader calls its methods.
type Part interface {
	// Mark returns a savepoint, Undo undoes everything since one, and Forget makes everything
	// so far final.
	Mark(tx *Tx) int
	Undo(mark int)
	Forget()

	// Next returns the instant at which something changes by itself next, in
	// database time. ok is false if nothing will.
	Next() (at int64, ok bool)
	// Expire decides the first change whose time has come; it is called only if there
	// is one. The error is a *NoRoom: what was decided is undone, and tried again later.
	Expire(tx *Tx) error
	// TimeOut answers the calls whose wait has timed out. It is called instead of Expire if the
	// log has no room because the disk is full.
	TimeOut(tx *Tx)
	// Drain answers all calls that are waiting with err. It may be called more than once.
	Drain(tx *Tx, err error)
	// Committed is called after each batch that changed something, once it is durable.
	Committed()
}

// arenaSize is how much memory for payloads is allocated at a time, in bytes.
const arenaSize = 64 << 10

// Bytes returns zeroed memory for a payload. It is valid until the batch ends.
func (tx *Tx) Bytes(n int) []byte {
	if cap(tx.arena)-len(tx.arena) < n {
		tx.arena = make([]byte, 0, max(n, arenaSize))
	}
	at := len(tx.arena)
	tx.arena = tx.arena[:at+n]
	b := tx.arena[at:][:n:n]
	clear(b)
	return b
}

func newTx(o *Options) *Tx {
	return &Tx{
		tables: o.State.Tables, index: o.State.Values, tokens: o.Tokens, parts: o.Parts,
		byHash: make(map[uint64]int32), byValue: make(map[uint64]int32),
		version: o.State.Version, touches: o.Publish != nil,
	}
}

func (tx *Tx) reset() {
	for _, ref := range tx.released {
		tx.tables.Release(ref)
	}
	tx.released, tx.given = tx.released[:0], tx.given[:0]
	clear(tx.entries)
	tx.entries = tx.entries[:0]
	clear(tx.byHash)
	clear(tx.values)
	tx.values, tx.steps = tx.values[:0], tx.steps[:0]
	clear(tx.byValue)
	tx.size, tx.tokenLimit, tx.dated = 0, 0, false
	tx.records.Reset()
	tx.arena = tx.arena[:0]
	clear(tx.answers)
	tx.answers = tx.answers[:0]
	clear(tx.touched)
	tx.touched = tx.touched[:0]
	tx.forget()
}

// Now returns the database time, in ns. All ends are in database time.
func (tx *Tx) Now() int64 { return tx.moment.Now }

// Wall returns the wall time of an instant of database time, in ns since 1970.
func (tx *Tx) Wall(at int64) int64 { return tx.moment.Wall + at - tx.moment.Now }

// Date makes the batch write its moment to the log. Call it if the operation writes an end, or
// changes something that has expired.
func (tx *Tx) Date() { tx.dated = true }

// BeginSegment makes the batch the first one of the log's next segment, if there is one.
func (tx *Tx) BeginSegment() { tx.records.BeginSegment() }

// Call returns the call that is being decided; nil where a Part changes by itself.
func (tx *Tx) Call() *Call { return tx.call }

// Scarce reports whether a full disk leaves almost no room for an operation or expiry that only
// frees room. It should then do as little as it can.
func (tx *Tx) Scarce() bool { return tx.scarce || tx.call != nil && tx.call.Reserve }

// HasSlot reports whether there is a free slot for a payload of that size.
func (tx *Tx) HasSlot(k slots.Key, payload int) bool {
	class, ok := slots.ClassFor(k, payload)
	return ok && tx.tables.Free(class) > 0
}

// Answer answers a call whose Decide returned ErrWaiting.
func (tx *Tx) Answer(c *Call, err error) { tx.answers = append(tx.answers, answer{c, err}) }

// bytes is an upper bound of what the batch takes in the log.
func (tx *Tx) bytes() int {
	n := tx.size + tx.records.Len() + momentRecord
	if tx.tokenLimit != 0 {
		n += tokensRecord
	}
	return n
}

// touch records a change for Options.Publish.
func (tx *Tx) touch(t Touched) {
	if tx.touches && IsPublished(t.ID) {
		t.Expired = t.Expired || tx.expired
		tx.touched = append(tx.touched, t)
	}
}

// savepoint is an earlier state of a transaction, to which undo returns.
type savepoint struct {
	entryUndo, valueUndo, given, released, steps, answers, touched int

	size       int
	records    wal.Mark
	version    uint64
	tokenLimit int64
	dated      bool
	parts      [maxParts]int
}

// maxParts is how many Parts there may be.
const maxParts = 4

func (tx *Tx) save() savepoint {
	s := savepoint{
		entryUndo: len(tx.entryUndo), valueUndo: len(tx.valueUndo),
		given: len(tx.given), released: len(tx.released),
		steps: len(tx.steps), answers: len(tx.answers), touched: len(tx.touched),
		size: tx.size, records: tx.records.Mark(), version: tx.version, tokenLimit: tx.tokenLimit, dated: tx.dated,
	}
	for i, p := range tx.parts {
		s.parts[i] = p.Mark(tx)
	}
	return s
}

// undo undoes everything that was decided since s. Tokens are not handed out again: skipping a
// number that nobody has seen is harmless.
func (tx *Tx) undo(s *savepoint) {
	for i := len(tx.entryUndo) - 1; i >= s.entryUndo; i-- {
		u := &tx.entryUndo[i]
		tx.entries[u.index].entryState = u.entryState
	}
	for i := len(tx.valueUndo) - 1; i >= s.valueUndo; i-- {
		u := &tx.valueUndo[i]
		tx.values[u.index].valueState = u.valueState
	}
	for i := len(tx.given) - 1; i >= s.given; i-- { // backwards, so that they are allocated in the same order again
		tx.tables.Release(tx.given[i])
	}
	for i, p := range tx.parts {
		p.Undo(s.parts[i])
	}
	tx.entryUndo, tx.valueUndo = tx.entryUndo[:s.entryUndo], tx.valueUndo[:s.valueUndo]
	tx.given, tx.released = tx.given[:s.given], tx.released[:s.released]
	tx.steps, tx.answers, tx.touched = tx.steps[:s.steps], tx.answers[:s.answers], tx.touched[:s.touched]
	tx.records.Undo(s.records)
	tx.size, tx.version, tx.tokenLimit, tx.dated = s.size, s.version, s.tokenLimit, s.dated
}

// forget makes everything decided so far final.
func (tx *Tx) forget() {
	tx.entryUndo, tx.valueUndo = tx.entryUndo[:0], tx.valueUndo[:0]
	for _, p := range tx.parts {
		p.Forget()
	}
}

// Try decides op within this transaction. If op returns an error, Try undoes op and returns
// the error, and the transaction goes on.
func (tx *Tx) Try(op Op) error {
	s := tx.save()
	err := op.Decide(tx)
	if err != nil && err != ErrWaiting {
		tx.undo(&s)
	}
	return err
}

// Logged returns how many bytes the records of the values take so far. The records of slots are
// encoded last and do not count.
func (tx *Tx) Logged() int { return tx.records.Len() }
