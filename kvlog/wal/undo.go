package wal

// Mark is a state of a Batch to which Undo can return.
type Mark struct {
	length int
	count  uint32
	first  bool
}

// Mark returns the batch's current state, for Undo.
func (b *Batch) Mark() Mark { return Mark{len(b.buf), b.count, b.first} }

// Undo removes the records that were added since the mark.
func (b *Batch) Undo(m Mark) { b.buf, b.count, b.first = b.buf[:m.length], m.count, m.first }

// At returns the records of a batch that Append has written; end is what Append
// returned. They are valid until the batch is filled again.
func (b *Batch) At(end Pos) Records {
	return Records{
		Segment: end.Segment,
		offset:  end.Offset - int64(len(b.buf)) + batchHeader,
		bytes:   b.buf[batchHeader:],
		count:   int(b.count),
	}
}

// Start returns where the batch of the records begins. Seq and Sum are not set.
func (r Records) Start() Pos { return Pos{Segment: r.Segment, Offset: r.offset - batchHeader} }

// Body returns the body of the record that begins at an offset in the batch: the value
// that Len had before the record was added.
func (b *Batch) Body(at int) []byte {
	_, n := ParseRecordHeader(b.buf[at:])
	return b.buf[at+recordHeader:][:n:n]
}
