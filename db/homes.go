package db

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	"clouddragon/db/commit"
	"clouddragon/kvlog"
)

// An account that moves from one server to another has a mark on both. A mark is on disk
// before anything is done that relies on it:
//
//	on the source   Frozen, then Moved
//	on the target   Arriving, then Copied, then Here
//
// Only Moved on the source decides where the account is: before that the move can be
// given up, after that it can only be finished. The target answers for the account once
// it is Here, which comes after Moved. So at most one server ever answers for it.

// MoveState is how far the move of an account is, as a server knows it.
type MoveState string

// The states of a move. The texts are part of the file format, never changed.
const (
	Frozen   MoveState = "frozen"   // the account does not change here, and no calls are answered
	Moved    MoveState = "moved"    // it lives on another server
	Arriving MoveState = "arriving" // it is being copied to here
	Copied   MoveState = "copied"   // all of it is here, but no calls are answered yet
	Here     MoveState = "here"     // it has moved to here
)

// Move is the mark of an account that moves or has moved.
type Move struct {
	State MoveState `json:"state"`
	ID    string    `json:"id"`             // of this move, the same on both servers
	Peer  string    `json:"peer,omitempty"` // the other server's address, as the operator named it
	// Attempt names the current run of the copy while the account is Arriving. Records from
	// an older run are refused.
	Attempt string `json:"attempt,omitempty"`
	// Before is the mark to return to if the move is given up; nil: none.
	Before *Move `json:"before,omitempty"`
}

// homes says which accounts live on this server. It is immutable and replaced as a whole. nil
// means that all accounts live here and none moves.
type homes struct {
	own   map[string]bool // those of the configuration; nil: all
	moves map[string]Move
}

func newHomes(accounts []string, moves map[string]Move) *homes {
	if len(accounts) == 0 && len(moves) == 0 {
		return nil
	}
	h := &homes{moves: moves}
	if len(accounts) > 0 {
		h.own = make(map[string]bool, len(accounts))
		for _, acc := range accounts {
			h.own[acc] = true
		}
	}
	return h
}

// with returns a copy in which an account has another mark; a Move without a state removes it.
func (h *homes) with(acc string, m Move) *homes {
	next := &homes{}
	if h != nil {
		next.own = h.own
		next.moves = maps.Clone(h.moves)
	}
	if next.moves == nil {
		next.moves = make(map[string]Move)
	}
	next.moves[acc] = m
	if m.State == "" {
		delete(next.moves, acc)
	}
	return next
}

// AwayError is returned for an account that lives on another server. Nothing was done.
type AwayError struct {
	Acc string
	To  string // where it has moved; empty: it is not known
}

func (e *AwayError) Error() string {
	if e.To != "" {
		return fmt.Sprintf("account %q has moved to %s: ask that server", e.Acc, e.To)
	}
	return fmt.Sprintf("account %q is not one of this server's: ask the server that has it (this one has those under accounts: in its configuration)", e.Acc)
}

// MovingError is returned for an account that is being moved from one server to another.
// Nothing was done.
type MovingError struct{ Acc string }

func (e *MovingError) Error() string {
	return fmt.Sprintf("account %q is being moved to another server: try again shortly", e.Acc)
}

// admit returns nil if this server answers for the account.
func (h *homes) admit(acc string) error {
	if h == nil {
		return nil
	}
	switch m := h.moves[acc]; m.State {
	case Here:
		return nil
	case Moved:
		return &AwayError{acc, m.Peer}
	case Frozen, Arriving, Copied:
		return &MovingError{acc}
	}
	if h.own == nil || h.own[acc] {
		return nil
	}
	return &AwayError{Acc: acc}
}

// readable returns nil if this server has the current state of the account. That includes
// Frozen, for reads that have already begun.
func (h *homes) readable(acc string) error {
	if h == nil || h.moves[acc].State == Frozen {
		return nil
	}
	return h.admit(acc)
}

// Admit returns nil if this server answers for an account, else an *AwayError or a
// *MovingError.
func (d *DB) Admit(acc string) error { return d.homes.Load().admit(acc) }

// Readable is Admit for calls that have already begun: reads of a frozen account may finish.
func (d *DB) Readable(acc string) error { return d.homes.Load().readable(acc) }

// admitOp is commit.Options.Admit. The writer calls it, so that nothing is decided for an
// account after the mark that freezes it.
func (d *DB) admitOp(op commit.Op) error {
	h := d.homes.Load()
	if h == nil || len(h.moves) == 0 {
		return nil
	}
	o, ok := op.(Operation)
	if !ok {
		return nil
	}
	acc := o.account()
	switch {
	case acc == "":
		return nil
	case op.Size() == 0 && op.Frees(): // a read
		return h.readable(acc)
	}
	return h.admit(acc)
}

// The marks of all accounts are one value, under a key that no client can name. Part of
// the file format, never changed.
const (
	marksAcc = "\x00"
	marksID  = commit.Hidden + "moves"
)

// markJSON is an account's mark as stored. Part of the file format, never changed.
type markJSON struct {
	Acc []byte `json:"account"`
	Move
}

// encodeMarks returns the value that holds the marks.
func encodeMarks(moves map[string]Move) ([]byte, error) {
	all := make([]markJSON, 0, len(moves))
	for _, acc := range slices.Sorted(maps.Keys(moves)) {
		all = append(all, markJSON{[]byte(acc), moves[acc]})
	}
	return json.Marshal(all)
}

// decodeMarks reads what encodeMarks has made.
func decodeMarks(data []byte) (map[string]Move, error) {
	var all []markJSON
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("the marks of accounts that have moved cannot be read: %w", err)
	}
	moves := make(map[string]Move, len(all))
	for _, m := range all {
		switch m.State {
		case Frozen, Moved, Arriving, Copied, Here:
		default:
			return nil, fmt.Errorf("account %q has the unknown mark %q: was it written by a newer version?", m.Acc, m.State)
		}
		moves[string(m.Acc)] = m.Move
	}
	return moves, nil
}

// loadMarks reads the marks at a start.
func loadMarks(values *kvlog.Values) (map[string]Move, error) {
	val, ok, err := values.Get(marksAcc, marksID, values.Hash(marksAcc, marksID), math.MaxInt)
	if err != nil || !ok {
		return nil, err
	}
	return decodeMarks(val.Data)
}
