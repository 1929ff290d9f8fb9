package commit

import "sync/atomic"

// TokenBlock is how many fencing tokens are made durable at once. A crash skips the rest of
// a block.
const TokenBlock = 1 << 20

// Tokens hands out the fencing tokens of locks and mutexes. They only grow. A limit above a
// token is durable before the token is used. Any goroutine may call its methods.
type Tokens struct {
	last  atomic.Int64 // the last one handed out
	limit atomic.Int64 // durable: every token in use is below
}

// NewTokens returns the tokens from first on. Those below limit may be used at once.
func NewTokens(first, limit int64) *Tokens {
	t := new(Tokens)
	t.last.Store(first - 1)
	t.limit.Store(limit)
	return t
}

// Take hands out the next token. left is how many more there are before a new block has to be
// durable. If left is 0 or less, the token must not be used.
func (t *Tokens) Take() (token, left int64) {
	token = t.last.Add(1)
	return token, t.limit.Load() - token
}

// Stop prevents the use of any further token, and returns a number above every token handed
// out.
func (t *Tokens) Stop() int64 {
	t.limit.Store(0)
	return t.last.Load() + 1
}

// Token hands out the next token to an operation. If that uses up the block, the same batch
// makes the next block durable.
func (tx *Tx) Token() int64 {
	token := tx.tokens.last.Add(1)
	if token+1 >= max(tx.tokens.limit.Load(), tx.tokenLimit) {
		tx.tokenLimit = token + TokenBlock
	}
	return token
}

// ReserveTokens is the operation that makes a new block of tokens durable.
type ReserveTokens struct {
	Above int64 // the block is above that token too; see Tokens.Raise
}

// Size returns the size of the one record.
func (ReserveTokens) Size() int { return tokensRecord }

// Frees is true although the operation frees nothing: without tokens no mutex could be granted
// on a full disk, so the operation may use the reserve.
func (ReserveTokens) Frees() bool { return true }

// Decide reserves the block.
func (o ReserveTokens) Decide(tx *Tx) error {
	last := max(tx.tokens.last.Load(), o.Above)
	tx.tokenLimit = max(tx.tokenLimit, tx.tokens.limit.Load(), last+TokenBlock)
	return nil
}

// Skip leaves only the last tokens of the block, for tests of a block's end.
func (t *Tokens) Skip(left int64) { t.last.Store(t.limit.Load() - left) }
