package replica

import (
	"errors"
	"fmt"
	"time"
)

// Admit returns why a call cannot be answered now, or nil. The error is an *AwayError, a
// *StandbyError or a *LeaseError.
func (p *Primary) Admit(write bool) error {
	if p.e != nil && p.verdict.Load().isNotAway() {
		if err := p.e.Admit(); err != nil {
			return err
		}
	}
	v := p.verdict.Load()
	if v == nil || !write && v.read == nil {
		return nil
	}
	if write {
		return v.write
	}
	return v.read
}

// verdict holds the errors that reads and writes are refused with; nil: they are served.
type verdict struct{ write, read error }

// isNotAway reports whether this server is the primary according to its disk.
func (v *verdict) isNotAway() bool {
	away := (*AwayError)(nil)
	return v == nil || !errors.As(v.write, &away)
}

// decide updates the verdict after a change. The caller holds p.mu.
func (p *Primary) decide() {
	var v *verdict
	l := p.link
	switch {
	case !p.state.Primary:
		away := &AwayError{Primary: p.state.Now}
		v = &verdict{away, away}
	case p.state.Standby == "":
	case !p.late && p.whole && l != nil && (l.live || time.Since(l.since) < beatEvery):
	default:
		v = &verdict{write: &StandbyError{p.state.Standby, errors.New("it has not joined")}}
		if p.late {
			v.write = &StandbyError{p.state.Standby, errors.New("the write before waits for it")}
		}
		if l != nil && l.why != nil {
			v.write = &StandbyError{p.state.Standby, l.why}
		}
		// A read here might return the last batch before a crash, which the standby may lack.
		if !p.whole {
			v.read = v.write
		}
	}
	p.verdict.Store(v)
	p.changed.Broadcast()
	if v != nil && p.source != nil {
		// These calls may be queued behind a writer that is stuck in End.
		p.source.Refuse(v.write)
	}
}

// redecide updates the verdict after time has passed.
func (p *Primary) redecide() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decide()
}

// StandbyError is returned when the standby that every write waits for does not answer.
type StandbyError struct {
	Standby string
	Why     error
}

// AwayError is returned when another server is the primary. Nothing was done.
type AwayError struct {
	Primary string // its address; empty: unknown
	Follows bool   // this server is a standby, which answers most reads with stale=true
	NoData  bool   // this server is a standby that has not opened its data, and answers none
}

func (e *AwayError) Error() string {
	line := "this server was replaced by another one"
	switch {
	case e.NoData:
		line = "this server is a standby, which answers no reads until it has reached its primary"
	case e.Follows:
		line = "this server is a standby, which answers reads with stale=true only"
	}
	if e.Primary == "" {
		return line + ": ask the primary"
	}
	return line + ": ask the primary, " + e.Primary
}

func (e *StandbyError) Error() string {
	return fmt.Sprintf("the standby %s has to have every write and does not answer (%v): nothing was changed; try again, or let an operator promote this server to go on alone", e.Standby, e.Why)
}
