package db

import (
	"fmt"
	"slices"
)

// homes says which accounts live on this server. It does not change: another one takes
// its place. nil: all of them do.
type homes struct {
	own map[string]bool // those of the configuration; nil: all
}

func newHomes(accounts []string) *homes {
	if len(accounts) == 0 {
		return nil
	}
	h := &homes{own: make(map[string]bool, len(accounts))}
	for _, acc := range accounts {
		h.own[acc] = true
	}
	return h
}

// AwayError is returned for an account that lives on another server. Nothing was done.
type AwayError struct {
	Acc string
}

func (e *AwayError) Error() string {
	return fmt.Sprintf("account %q is not one of this server's: ask the server that has it (this one has those under accounts: in its configuration)", e.Acc)
}

// admit returns nil if the account lives here.
func (h *homes) admit(acc string) error {
	if h == nil || h.own == nil || h.own[acc] {
		return nil
	}
	return &AwayError{acc}
}

// Admit returns nil if an account lives on this server, else an *AwayError.
func (d *DB) Admit(acc string) error { return d.homes.Load().admit(acc) }

// here returns those of some accounts that live on this server, in the same memory.
func (h *homes) here(accounts []string) []string {
	if h == nil {
		return accounts
	}
	return slices.DeleteFunc(accounts, func(acc string) bool { return h.admit(acc) != nil })
}
