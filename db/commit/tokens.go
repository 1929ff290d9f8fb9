package commit

import "sync/atomic"

// TokenBlock is how many fencing tokens are made durable at once. A crash skips the rest of
// a block.
const TokenBlock = 1 << 20

// Tokens hands out fencing tokens, for locks and mutexes alike. They only grow,
// and a limit above all that were handed out is durable before they are used.
// Any goroutine may call its methods.
type Tokens struct {
	last  atomic.Int64 // handed out
	limit atomic.Int64 // durable: every token handed out is below
}

// NewTokens returns tokens from first on. Those below limit may be used at once.
func NewTokens(first, limit int64) *Tokens {
	t := new(Tokens)
	t.last.Store(first - 1)
	t.limit.Store(limit)
	return t
}

// Take hands out the next token. left is how many more there are before a new
// block has to be durable; the token must not be used if it is 0 or less.
func (t *Tokens) Take() (token, left int64) {
	token = t.last.Add(1)
	return token, t.limit.Load() - token
}

// Stop makes sure that no further token may be used, and returns a number above
// every token handed out.
func (t *Tokens) Stop() int64 {
	t.limit.Store(0)
	return t.last.Load() + 1
}

// Token hands out the next token to an operation. Where the block is used up,
// the batch that grants it makes the next block durable too.
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

// Frees is true although the operation gives nothing back: without tokens no mutex
// could be granted on a full disk, so it may use the room that is held back.
func (ReserveTokens) Frees() bool { return true }

// Decide reserves the block.
func (o ReserveTokens) Decide(tx *Tx) error {
	last := max(tx.tokens.last.Load(), o.Above)
	tx.tokenLimit = max(tx.tokenLimit, tx.tokens.limit.Load(), last+TokenBlock)
	return nil
}

// Skip leaves only so many tokens in the block, for tests of a block's end.
func (t *Tokens) Skip(left int64) { t.last.Store(t.limit.Load() - left) }
