package commit

// What comes from another server keeps its versions and tokens, so those that are given
// out here have to be above them.

// Raise makes every token that is handed out from now on larger than above. A limit above
// that has to be durable: see ReserveTokens.
func (t *Tokens) Raise(above int64) {
	for last := t.last.Load(); last < above && !t.last.CompareAndSwap(last, above); {
		last = t.last.Load()
	}
}

// Handed returns the newest version that was given to a value, and the newest token.
func (tx *Tx) Handed() (version uint64, token int64) { return tx.version, tx.tokens.last.Load() }

// RaiseVersion makes every version that is given from now on larger than above. It is
// durable once a value is stored in the same batch.
func (tx *Tx) RaiseVersion(above uint64) { tx.version = max(tx.version, above) }

// ImportValue stores a value with the version that it has on another server, above which
// the versions of this one were raised.
func (tx *Tx) ImportValue(e *ValueEntry, v *NewValue, version uint64) {
	if live := e.Live(tx.Now()); e.found.OK && !live {
		tx.touchGone(e)
	}
	tx.putValue(e, v, version)
	tx.touch(touchedValue(e, v, version, Touched{Created: true}))
}
