package replica

import (
	"context"
	"errors"
	"net/http"
	"time"

	"clouddragon/internal/disk"
)

// errElected refuses a manual promotion where etcd decides.
var errElected = &refused{http.StatusConflict, "etcd decides who is the primary here: stop the primary, and a standby that has every write takes its place"}

// arbitrateEvery is how often the primary compares its standby's entry in etcd with the
// standby's actual state.
const arbitrateEvery = 50 * time.Millisecond

// arbitrate keeps etcd informed whether the standby has every acknowledged write:
//
//	the standby has caught up     writes wait for it first, then it is added in etcd
//	it does not answer            it is removed in etcd first, then writes no longer wait for it
//	this server is reelected      etcd lists only this server as having every write
//
// A single goroutine makes these changes, so they reach etcd in the order of the events.
func (p *Primary) arbitrate() {
	defer p.done.Done()
	for p.ctx.Err() == nil {
		select {
		case <-time.After(arbitrateEvery):
		case <-p.ctx.Done():
			return
		}
		if err := p.arbitrateOnce(); err != nil && p.ctx.Err() == nil {
			p.log.Warn("the standby's entry in etcd could not be changed; trying again", "err", err)
			select {
			case <-time.After(p.e.o.Lease / 6):
			case <-p.ctx.Done():
			}
		}
	}
}

func (p *Primary) arbitrateOnce() error {
	leader, mine, _ := p.e.Primary()
	if !mine {
		if leader.Name != "" && leader.Name != p.e.o.Name {
			return p.replacedBy(leader)
		}
		return nil
	}
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		return nil
	}
	if leader.Epoch > p.state.Epoch {
		defer p.mu.Unlock()
		return p.elected(leader.Epoch)
	}
	name, l := p.state.Standby, p.link
	gone := l == nil || l.name != name || !p.silent.IsZero() && time.Since(p.silent) >= p.e.o.Lease/3
	add := name != "" && l != nil && l.caught && l.live && p.added != name
	remove := name != "" && gone
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.ctx, p.e.o.Lease)
	defer cancel()
	switch {
	case add:
		// The standby has to know it first, or it would refuse to be elected.
		a, err := l.beat()
		if err == nil && !a.InSync {
			err = errors.New("the standby does not know yet that it has every write")
		}
		if err != nil {
			return err
		}
		if err := p.e.Add(ctx, name); err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.added = name
		p.log.Info("etcd knows that the standby has every write: it can take over", "standby", name)
	case remove:
		if err := Probe(p.fs, p.dir); err != nil {
			return err // this server is about to stop, and the standby has every write
		}
		if err := p.e.Remove(ctx, name); err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.added = ""
		p.log.Warn("the standby was taken out, and this server goes on without it", "standby", name)
		return p.without()
	}
	return nil
}

// replacedBy ends this server's time as the primary.
func (p *Primary) replacedBy(l Leader) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.state.Primary || l.Epoch <= p.state.Epoch {
		return nil
	}
	return p.fence(l.Epoch, l.URL)
}

// elected stores the epoch of this server's reelection. The caller holds p.mu.
func (p *Primary) elected(epoch uint64) error {
	s := p.state
	s.Epoch = epoch
	if err := s.write(p.fs, p.dir); err != nil {
		return err
	}
	p.state, p.added = s, ""
	return p.without()
}

// without lets writes go on without the standby, which is no longer listed in etcd. The
// caller holds p.mu.
func (p *Primary) without() error {
	s := p.state
	s.Standby = ""
	if err := s.write(p.fs, p.dir); err != nil {
		return err
	}
	p.state = s
	if l := p.link; l != nil {
		l.caught, l.near = false, false
		l.wake()
	}
	p.decide()
	return nil
}

// BecomePrimary records on disk that this server was elected for an epoch. Versions, tokens
// and the ends of locks have to be raised unless this server was also the primary of the
// epoch before.
func BecomePrimary(fsys disk.FS, dir string, epoch uint64) (State, error) {
	s, err := ReadState(fsys, dir)
	if err != nil {
		return s, err
	}
	s.Raise = s.Raise || !s.Primary || s.Epoch+1 != epoch
	s.Epoch, s.Primary, s.Before, s.Now, s.Standby, s.InSync, s.Partial, s.Elected = epoch, true, "", "", "", false, false, true
	return s, s.write(fsys, dir)
}
