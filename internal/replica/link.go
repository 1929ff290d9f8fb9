package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"clouddragon/kvlog/wal"
)

// join replaces the link with one to a standby whose log ends at j.At.
func (p *Primary) join(j joinRequest) error {
	p.mu.Lock()
	err, old := p.mayJoin(j.Name), p.link
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if old != nil {
		old.cancel()
		<-old.ended
	}
	r, err := p.source.Log().NewReader(j.At)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err = p.mayJoin(j.Name)
	if err == nil && p.link != nil {
		err = &refused{http.StatusConflict, "another standby has joined at the same time"}
	}
	if err != nil {
		r.Close()
		return err
	}
	l := &link{p: p, name: j.Name, sync: j.Sync, call: newCaller(j.URL, always(j.Secret)), ended: make(chan struct{}), direct: make(chan wal.Frame, 1), live: true, since: time.Now()}
	l.ctx, l.cancel = context.WithCancel(p.ctx)
	p.link, p.acked = l, j.At
	p.decide()
	p.done.Add(2)
	go l.run(r)
	go l.noteTokens()
	p.log.Info("a standby has joined", "standby", j.Name, "address", j.URL, "sync", j.Sync, "behind_batches", p.source.Log().Durable().Seq-j.At.Seq)
	return nil
}

// mayJoin returns why a standby of that name cannot join, or nil. A standby that is in sync
// does not learn of another one and could still be promoted, so it keeps others out. The
// caller holds p.mu.
func (p *Primary) mayJoin(name string) error {
	other := p.state.Standby
	switch live := p.link != nil && p.link.live; {
	case other == "" && live:
		other = p.link.name
	case p.e != nil && !live:
		other = "" // catch waits until it is removed in etcd
	}
	if p.err == nil && other != "" && other != name {
		return &refused{http.StatusConflict, fmt.Sprintf("the primary has a standby, %s: stop that first, or let an operator promote the primary to go on without it", other)}
	}
	return p.err
}

// run sends the log until the link ends.
func (l *link) run(r *wal.Reader) {
	p := l.p
	defer p.done.Done()
	defer l.end()
	defer func() { r.Close() }()
	var buf []byte
	at := r.Pos() // where the standby's log ends
	beat := time.Now()
	for l.ctx.Err() == nil {
		if time.Since(beat) >= beatEvery {
			beat = time.Now()
			_, err := l.beat()
			l.note(cmp.Or(err, l.unsent))
			if !p.isAhead(at) { // the reader's old segments are no longer needed
				if err := renew(&r, at, p); err != nil {
					l.fail(err)
					return
				}
			}
		}
		if l.isCaught() {
			select {
			case f := <-l.direct:
				at = l.send(appendFrame(buf[:0], f), f.From)
			case <-time.After(time.Until(beat.Add(beatEvery))):
			case <-l.ctx.Done():
			}
			continue
		}
		if r.Pos().Seq != at.Seq {
			if p.isAhead(at) {
				l.wait()
				continue
			}
			if err := renew(&r, at, p); err != nil {
				l.fail(err)
				return
			}
		}
		ctx, cancel := context.WithDeadline(l.ctx, beat.Add(beatEvery))
		p.mu.Lock()
		l.nudge = cancel
		p.mu.Unlock()
		buf = buf[:0]
		from := at
		for len(buf) < pieceSize {
			f, err := r.NextFrame(ctx)
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, wal.ErrClosed) {
					l.fail(err)
					cancel()
					return
				}
				break
			}
			buf = appendFrame(buf, f)
			if p.source.Log().Durable().Seq == r.Pos().Seq {
				break
			}
		}
		cancel()
		if len(buf) > 0 {
			at = l.send(buf, from)
		} else {
			p.mu.Lock()
			l.catch(at)
			p.mu.Unlock()
		}
	}
}

// noteTokens writes the limit of tokens to the log. The standby needs that record before it
// can be in sync.
func (l *link) noteTokens() {
	p := l.p
	defer p.done.Done()
	err := p.source.NoteTokens()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.log.Warn("the standby has to join again: the tokens in use cannot be written to the log", "err", err)
		l.cancel()
		return
	}
	l.noted = true
	l.wake()
}

// wake interrupts the wait for the next batch, so that run looks at the link's state again.
// The caller holds p.mu.
func (l *link) wake() {
	if l.nudge != nil {
		l.nudge()
	}
}

// end detaches the link from the primary.
func (l *link) end() {
	p := l.p
	l.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link == l {
		p.link = nil
	}
	p.decide()
	close(l.ended)
}

// isAhead reports whether a standby whose log ends at a position has synced a batch sooner
// than this server's own disk.
func (p *Primary) isAhead(at wal.Pos) bool { return at.Seq > p.source.Log().Durable().Seq }

// renew replaces a reader with one that starts at a position.
func renew(r **wal.Reader, at wal.Pos, p *Primary) error {
	next, err := p.source.Log().NewReader(at)
	if err != nil {
		return err
	}
	(*r).Close()
	*r = next
	return nil
}

func (l *link) isCaught() bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.caught && l.live
}

// giveUpAfter is how long a standby may fail to answer before it has to join again.
const giveUpAfter = 10 * time.Second

// nearBatches is how far behind, in batches, a standby may be for the writer to wait for it.
// Otherwise a standby would never catch up with a busy writer.
const nearBatches = 16

// catch lets the writer send its batches directly once the standby has the whole log. First
// it records on disk that no write is answered without the standby. The caller holds p.mu.
func (l *link) catch(at wal.Pos) {
	p := l.p
	end := p.source.Log().Durable()
	if end == at {
		l.since = time.Now()
	}
	if l.ctx.Err() != nil || !l.live || !l.sync || l.caught || !l.noted || p.e != nil && p.state.Standby != "" && p.state.Standby != l.name {
		return
	}
	l.near = end.Seq <= at.Seq+nearBatches
	if end != at || p.writing {
		return
	}
	if p.state.Standby != l.name {
		s := p.state
		s.Standby = l.name
		if err := s.write(p.fs, p.dir); err != nil {
			p.log.Error("the standby has every write, but that cannot be recorded on disk: answers do not wait for it", "err", err)
			l.near = false
			l.cancel()
			return
		}
		p.state, p.silent = s, time.Time{}
		p.log.Info("the standby has every write: from now on an answer waits for both disks", "standby", l.name)
	}
	select {
	case <-l.direct: // left by a request that failed
	default:
	}
	l.near, l.caught, p.whole = false, true, true
	p.decide()
}

// send sends batches that begin at from, and returns where the standby's log ends then. After
// a failure that is from, and the caller tries again.
func (l *link) send(frames []byte, from wal.Pos) wal.Pos {
	p := l.p
	ctx, cancel := context.WithTimeout(l.ctx, l.patience())
	defer cancel()
	end, err := l.call.append(ctx, p.epoch(), frames)
	if err == nil {
		err = l.check(end)
	}
	l.unsent = err
	if err != nil {
		l.note(err)
		l.wait()
		return from
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.ctx.Err() != nil {
		return end // the link was ended meanwhile, so p.acked is not this link's to set
	}
	l.live, l.why, p.silent = true, nil, time.Time{}
	p.acked = end
	l.catch(end)
	p.decide()
	return end
}

// check returns an error unless the position that the standby reports is in the log.
func (l *link) check(end wal.Pos) error {
	log := l.p.source.Log()
	if d := log.Durable(); end == d || end.Seq > d.Seq {
		return nil // this server has not finished writing that batch; the next batch chains to it
	}
	ok, err := log.Follows(end)
	if err == nil && !ok {
		err = fmt.Errorf("the standby's batch %d differs from this server's", end.Seq)
	}
	return err
}

// beat sends the standby a heartbeat.
func (l *link) beat() (a beatAnswer, err error) {
	p := l.p
	ctx, cancel := context.WithTimeout(l.ctx, l.patience())
	defer cancel()
	at, segments := p.source.Segments()
	p.mu.Lock()
	b := beatRequest{Epoch: p.state.Epoch, Answered: at, Segments: segments, InSync: p.state.Standby == l.name, Wall: time.Now().UnixNano(), Time: p.source.Time()}
	p.mu.Unlock()
	err = l.call.post(ctx, "/replica/beat", b, &a)
	return a, err
}

// patience returns how long the standby may take to answer. With etcd, a standby that writes
// wait for has to be removed within the lease.
func (l *link) patience() time.Duration {
	p := l.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.e != nil && p.state.Standby == l.name {
		return min(answerTime, p.e.o.Lease/3)
	}
	return answerTime
}

// note records whether the standby has answered.
func (l *link) note(err error) {
	p := l.p
	if l.ctx.Err() != nil {
		l.noteUnanswered(err)
		return
	}
	if later := (*epochError)(nil); errors.As(err, &later) {
		l.cancel()
		if err := p.Fence(later.Epoch, later.Primary); err != nil && !p.Replaced() {
			p.log.Error("the standby says that this server was replaced, but that is not recorded", "standby", l.name, "err", err)
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && l.live {
		p.log.Warn("the standby does not answer", "standby", l.name, "err", err)
	}
	if err == nil && !l.live {
		p.log.Info("the standby answers again", "standby", l.name)
	}
	if l.live != (err == nil) {
		l.since = time.Now()
		if err != nil {
			time.AfterFunc(beatEvery, p.redecide)
		}
	}
	l.live, l.why = err == nil, err
	if err == nil {
		p.silent = time.Time{}
	} else if p.silent.IsZero() {
		p.silent = time.Now()
	}
	if err != nil {
		l.caught, l.near = false, false
		if time.Since(l.since) >= giveUpAfter { // the segments that are kept for it can be freed
			l.cancel()
		}
	}
	p.decide()
}

// noteUnanswered records that a link has ended during a request. With a long lease the standby joins
// again before a request has timed out, and it may do that for ever without answering any.
func (l *link) noteUnanswered(err error) {
	p := l.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && p.silent.IsZero() {
		p.silent = time.Now()
	}
}

// fail ends the link: the standby has to join again.
func (l *link) fail(err error) {
	l.note(err)
	l.cancel()
}

// wait pauses before a request is repeated.
func (l *link) wait() {
	select {
	case <-time.After(retryAfter):
	case <-l.ctx.Done():
	}
}

func (p *Primary) epoch() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Epoch
}
