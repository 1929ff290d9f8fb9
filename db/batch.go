package db

import (
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// Types of records in the log; part of the file format, never changed.
//
//	recordSlot    u64 slot, then the slot's new image
//	recordMoment  i64 database time, i64 wall time: the batch was decided at that
//	              moment. Alone in its batch it is a durability mark
//	recordTokens  u64 every token handed out from now on, until the next such record, is below
const (
	recordSlot   uint8 = 1
	recordTokens uint8 = 2
	recordMoment uint8 = 3
)

const momentSize = 16 // part of the file format, never changed

// Room that records take in the log, in bytes, with the log's own framing.
const (
	recordFrame = 8
	slotRecord  = recordFrame + 8
	// opRoom is the most that one operation adds to a batch: an image that
	// moves to another slot, and the mark on the one it left.
	opRoom = 2*(slotRecord+512) + recordFrame + 8
)

// maxPayload is the largest payload of a slot in bytes.
const maxPayload = lockSize

// change is what a batch has decided about one thing so far.
type change struct {
	key     slots.Key
	hash    uint64
	next    int32 // the change before it with the same hash, plus one
	had     bool  // it stands in the tables, at old
	placed  bool  // it has a slot, ref
	live    bool  // it exists
	dirty   bool  // this batch changes it
	old     slots.Ref
	ref     slots.Ref
	n       int // bytes of payload in use
	payload [maxPayload]byte
}

func (c *change) value() []byte { return c.payload[:c.n] }

// pending is one batch in the making: a layer over the tables that holds what
// was decided and is not yet durable. It belongs to the writer.
type pending struct {
	tables  *slots.Tables
	changes []change
	byHash  map[uint64]int32 // the newest change with the hash, plus one
	tokens  int64            // a new limit of tokens, if not 0
	size    int              // upper bound of the bytes of the images' records
	moment  moment           // at which the batch is decided
	dated   bool             // it says so in the log

	values   []valueChange
	byValue  map[uint64]int32 // the newest of values with the hash, plus one
	versions uint64           // the newest version given

	records wal.Batch
	images  []slots.Change
	steps   []kvlog.Step
}

func newPending(t *slots.Tables) *pending {
	return &pending{tables: t, byHash: make(map[uint64]int32), byValue: make(map[uint64]int32)}
}

func (p *pending) reset() {
	p.changes, p.images = p.changes[:0], p.images[:0]
	clear(p.byHash)
	clear(p.values)
	p.values, p.steps = p.values[:0], p.steps[:0]
	clear(p.byValue)
	p.tokens, p.size, p.dated = 0, 0, false
	p.records.Reset()
}

// bytes is an upper bound of what the batch takes in the log.
func (p *pending) bytes() int {
	n := p.size + p.records.Len() + wal.RecordSize(momentSize)
	if p.tokens != 0 {
		n += wal.RecordSize(8)
	}
	return n
}

// find returns what is known of a thing, decided or durable. The pointer is
// good until the next find.
func (p *pending) find(k slots.Key, hash uint64) *change {
	head := p.byHash[hash]
	for i := head; i != 0; i = p.changes[i-1].next {
		if c := &p.changes[i-1]; c.key == k {
			return c
		}
	}
	if len(p.changes) < cap(p.changes) {
		p.changes = p.changes[:len(p.changes)+1]
	} else {
		p.changes = append(p.changes, change{})
	}
	p.byHash[hash] = int32(len(p.changes))
	c := &p.changes[len(p.changes)-1]
	c.key, c.hash, c.next = k, hash, head
	c.n, c.dirty = 0, false
	ref, payload, ok := p.tables.Lookup(k, hash)
	c.had, c.placed, c.live, c.old, c.ref = ok, ok, ok, ref, ref
	if ok {
		c.n = copy(c.payload[:], payload)
	}
	return c
}

// set gives c a new payload. The error is a needSlot where the table of its
// class has no free slot, with its capacity; nothing changed then. A slot that was taken for this
// batch and is not needed in the end goes back as it was.
func (p *pending) set(c *change, payload []byte) (capacity uint64, err error) {
	class, ok := slots.ClassFor(c.key, len(payload))
	if !ok {
		panic("db: a payload that no slot holds")
	}
	if !c.placed || c.ref.Class() != class {
		ref, ok := p.tables.Alloc(class)
		if !ok {
			return p.tables.Capacity(class), needSlot[class]
		}
		if c.placed && (!c.had || c.ref != c.old) {
			p.tables.Release(c.ref)
		}
		c.ref, c.placed = ref, true
		p.size += slotRecord + ref.Size()
		if c.had {
			p.size += slotRecord + c.old.Size()
		}
	} else if !c.dirty {
		p.size += slotRecord + c.ref.Size()
	}
	c.n = copy(c.payload[:], payload)
	c.live, c.dirty = true, true
	return 0, nil
}

// canSet says whether set has room for a payload of n bytes: if not, as set does.
func (p *pending) canSet(c *change, n int) (capacity uint64, err error) {
	class, ok := slots.ClassFor(c.key, n)
	if !ok {
		panic("db: a payload that no slot holds")
	}
	if c.placed && c.ref.Class() == class {
		return 0, nil
	}
	ref, ok := p.tables.Alloc(class)
	if !ok {
		return p.tables.Capacity(class), needSlot[class]
	}
	p.tables.Release(ref)
	return 0, nil
}

// remove makes c not exist.
func (p *pending) remove(c *change) {
	if !c.dirty && c.had {
		p.size += slotRecord + c.old.Size()
	}
	if c.placed && (!c.had || c.ref != c.old) {
		p.tables.Release(c.ref)
	}
	c.live, c.dirty = false, true
	c.ref, c.placed = c.old, c.had
	c.n = 0
}

// encode turns what was decided into the records of one batch, and the images
// to apply once it is durable. It says whether there is anything to write.
func (p *pending) encode() bool {
	for i := range p.changes {
		c := &p.changes[i]
		if !c.dirty {
			continue
		}
		moved := !c.live || c.ref != c.old
		if c.had && moved {
			b := p.record(c.old)
			p.tables.EncodeFree(b, c.old)
			p.images = append(p.images, slots.Change{Ref: c.old, Image: b, Op: slots.Delete, Hash: c.hash})
		}
		if c.live {
			how := slots.Put
			if !c.had || moved {
				how = slots.Insert
			}
			b := p.record(c.ref)
			p.tables.Encode(b, c.ref, c.key, c.value())
			p.images = append(p.images, slots.Change{Ref: c.ref, Image: b, Op: how, Hash: c.hash})
		}
	}
	if p.tokens != 0 {
		le.PutUint64(p.records.Add(recordTokens, 8), uint64(p.tokens))
	}
	if p.dated {
		b := p.records.Add(recordMoment, momentSize)
		le.PutUint64(b, uint64(p.moment.now))
		le.PutUint64(b[8:], uint64(p.moment.wall))
	}
	return p.records.Records() > 0
}

// isMark says whether the encoded batch says nothing but its moment.
func (p *pending) isMark() bool { return p.dated && p.records.Records() == 1 }

// decodeMoment reads the body of a recordMoment.
func decodeMoment(b []byte) moment {
	return moment{now: int64(le.Uint64(b)), wall: int64(le.Uint64(b[8:]))}
}

// record adds a slot's record and returns the room for its image.
func (p *pending) record(r slots.Ref) []byte {
	b := p.records.Add(recordSlot, 8+r.Size())
	le.PutUint64(b, uint64(r))
	return b[8:]
}
