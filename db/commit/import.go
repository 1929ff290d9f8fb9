package commit

// Things from another server keep their versions and tokens. Those given out here have to be
// above them.

// Raise makes every token handed out from now on larger than above. A larger limit has to be
// durable before; see ReserveTokens.
func (t *Tokens) Raise(above int64) {
	for last := t.last.Load(); last < above && !t.last.CompareAndSwap(last, above); {
		last = t.last.Load()
	}
}

// Handed returns the newest version and the newest token that were given out.
func (tx *Tx) Handed() (version uint64, token int64) { return tx.version, tx.tokens.last.Load() }

// RaiseVersion makes every version given out from now on larger than above. That is durable if
// the same batch stores a value.
func (tx *Tx) RaiseVersion(above uint64) { tx.version = max(tx.version, above) }

// ImportValue stores a value with its version of another server. The versions of this server
// were raised above it before.
func (tx *Tx) ImportValue(e *ValueEntry, v *NewValue, version uint64) {
	if live := e.Live(tx.Now()); e.found.OK && !live {
		tx.touchGone(e)
	}
	tx.putValue(e, v, version)
	tx.touch(touchedValue(e, v, version, Touched{Created: true}))
}
