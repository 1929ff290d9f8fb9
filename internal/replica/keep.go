package replica

import (
	"context"
	"errors"
	"net/http"
	"time"

	"clouddragon/db"
)

// A standby that fetches a copy needs the log behind it when it joins, however long it
// takes to fetch and to open the copy. A busy primary would have freed it by then, and the
// standby would start over, maybe for ever. So the standby asks to keep the log, and
// repeats that until it has joined. The primary gives the log up if it is not asked again, if
// it becomes larger than backup.hold, or if the disk is full.

const (
	// keepEvery is the interval at which a standby asks to keep the log.
	keepEvery = 2 * time.Second
	// keepFor is how long the log is kept after the last time that it was asked for.
	keepFor = 30 * time.Second
)

type keepRequest struct {
	Name string
}

// kept is the log that is kept for a standby.
type kept struct {
	name  string // of the standby
	log   *db.LogKeeper
	timer *time.Timer // releases it
}

// keep keeps the log for a standby, or goes on to keep it.
func (p *Primary) keep(name string) error {
	p.mu.Lock()
	source, k, err := p.source, p.kept, p.mayJoin(name)
	if err == nil && (source == nil || p.stopped) {
		err = &refused{http.StatusServiceUnavailable, "the server starts or stops"}
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if k != nil && k.name == name {
		if err := k.log.Check(); err != nil {
			p.log.Warn("the log is not kept any longer for a standby that has not joined yet: it may have to fetch another copy", "standby", name, "err", err)
			p.release(k)
			return err
		}
		k.timer.Reset(keepFor)
		return nil
	}
	log, err := source.KeepLog()
	if err != nil {
		return err
	}
	next := &kept{name: name, log: log}
	p.mu.Lock()
	late := p.stopped || p.kept != k // another request came first
	if !late {
		next.timer = time.AfterFunc(keepFor, func() { p.release(next) })
		p.kept = next
	}
	p.mu.Unlock()
	if late {
		return log.Release()
	}
	p.release(k)
	return nil
}

// release gives up what is kept, if k is not nil. The caller does not hold p.mu.
func (p *Primary) release(k *kept) {
	if k == nil {
		return
	}
	p.mu.Lock()
	if p.kept == k {
		p.kept = nil
	}
	p.mu.Unlock()
	k.timer.Stop()
	if err := k.log.Release(); err != nil {
		p.log.Error("the log that was kept for a standby cannot be given up", "err", err)
	}
}

// keepLog asks the primary to keep its log, again and again until stop is called.
func (s *Standby) keepLog(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ask := func() {
		c, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		err := s.call.post(c, "/replica/keep", keepRequest{s.o.Name}, nil)
		refusal := (*statusError)(nil)
		why := ""
		if errors.As(err, &refusal) && refusal.Status != http.StatusNotFound { // an older primary does not know of it
			why = err.Error()
		}
		if why != "" && why != s.unkept {
			s.o.Log.Warn("the primary does not keep its log for this standby", "err", err)
		}
		s.unkept = why
	}
	ask()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(keepEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				ask()
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-ended }
}
