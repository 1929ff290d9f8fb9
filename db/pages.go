package db

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/internal/lease"
	"clouddragon/internal/names"
)

// tracker notes what commits touch in an account while a page is being made.
type tracker struct {
	kind uint8
	acc  string
	all  bool // note the accounts in which anything is touched, instead of ids

	mu      sync.Mutex // guards touched
	touched map[string]commit.Touched
}

// has reports whether an id was touched.
func (t *tracker) has(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.touched[id]
	return ok
}

// take returns the last change of each id that was touched since the last take.
func (t *tracker) take() map[string]commit.Touched {
	t.mu.Lock()
	defer t.mu.Unlock()
	touched := t.touched
	t.touched = nil
	return touched
}

func (t *tracker) note(by *commit.Touched) {
	id := by.ID
	switch {
	case t.all:
		id = by.Acc
	case by.Kind == kindLock && !by.Created && !by.Gone:
		return // a renewal: the holders are read from the writer anyway
	case by.Kind != t.kind || by.Acc != t.acc || id == "" || id[0] == 0:
		return
	}
	last := *by
	last.Payload = slices.Clone(by.Payload)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.touched == nil {
		t.touched = make(map[string]commit.Touched)
	}
	t.touched[id] = last
}

// pages has the trackers of the pages in the making.
type pages struct {
	n        atomic.Int64
	mu       sync.Mutex // guards trackers
	trackers []*tracker
}

func (p *pages) begin(kind uint8, acc string) *tracker {
	return p.add(&tracker{kind: kind, acc: acc})
}

func (p *pages) add(t *tracker) *tracker {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trackers = append(p.trackers, t)
	p.n.Store(int64(len(p.trackers)))
	return t
}

func (p *pages) end(t *tracker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.trackers, t)
	p.trackers = slices.Delete(p.trackers, i, i+1)
	p.n.Store(int64(len(p.trackers)))
}

// publish tells the trackers what a durable batch has touched.
func (p *pages) publish(touched []commit.Touched) {
	if p.n.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.trackers {
		for i := range touched {
			t.note(&touched[i])
		}
	}
}

// publishNames tells the index of names which things were made and which are gone.
func (d *DB) publishNames(at commit.Moment, touched []commit.Touched) {
	s, all, added := d.store, !d.store.NamesComplete(), false
	for i := range touched {
		t := &touched[i]
		switch {
		case !t.Gone:
			if t.Created || all {
				s.AddName(t.Kind, t.Acc, t.ID)
				added = true
			}
		case t.Kind != kindLock:
			s.RemoveName(t.Kind, t.Acc, t.ID)
		default: // a lock, which may have other holders
			if _, held := d.locks.table.Oldest(at.Now, lease.Key{Acc: t.Acc, ID: t.ID}); !held {
				s.RemoveName(t.Kind, t.Acc, t.ID)
			}
		}
	}
	if added {
		s.KeepNames()
	}
}

// Accounts returns a page of the accounts of this server in which something is: at most
// limit, after that one. next is empty at the end.
func (d *DB) Accounts(ctx context.Context, after string, limit int) (accounts []string, next string, err error) {
	x, told, ok := d.store.Names()
	if !ok {
		return nil, "", &ListingError{told}
	}
	t := d.pages.add(&tracker{all: true})
	defer d.pages.end(t)
	d.awaitPublished()
	held := d.mutexes.accounts(after)
	if d.follows {
		held = d.lockedAccounts(after) // a follower has no mutexes
	}
	looked := map[string]bool{} // whether something is in it
	last, found := "", 0        // last: the largest that was looked at; empty: there are no more
	for from, i := after+"\x01", 0; found <= limit; {
		if after == "" && len(looked) == 0 {
			from = ""
		}
		key, err := x.Page(nil, from, "", 1)
		if err != nil {
			return nil, "", d.listingFault(err)
		}
		acc := ""
		if len(key) > 0 {
			acc = accountOf(key[0])
		}
		if i < len(held) && (acc == "" || held[i] <= acc) {
			acc = held[i]
			i++
			looked[acc] = d.Readable(acc) == nil
		} else if acc == "" {
			last = ""
			break
		} else if looked[acc], err = d.hasAny(ctx, x, t, acc); err != nil {
			return nil, "", d.listingFault(err)
		}
		if looked[acc] {
			found++
		}
		last, from = acc, acc+"\x01"
	}
	for range settleTries {
		d.awaitPublished()
		for acc := range t.take() {
			if looked[acc], err = d.hasAny(ctx, x, t, acc); err != nil {
				return nil, "", d.listingFault(err)
			}
			looked[acc] = looked[acc] || slices.Contains(held, acc)
		}
	}
	for acc, ok := range looked {
		if ok && acc > after && (acc <= last || last == "") && d.Readable(acc) == nil {
			accounts = append(accounts, acc)
		}
	}
	slices.Sort(accounts)
	if len(accounts) > limit {
		accounts = accounts[:limit]
		last = accounts[limit-1]
	}
	return accounts, last, nil // there may be fewer if some became empty meanwhile
}

func (d *DB) listingFault(err error) error {
	if errors.Is(err, names.ErrDamaged) {
		d.store.NamesDamaged(err)
		return &ListingError{}
	}
	return err
}

// accountOf is the account of a key of the index.
func accountOf(key string) string {
	for i := range len(key) {
		if key[i] == 0 {
			return key[:i]
		}
	}
	return key
}

// hasAny reports whether something is in an account that lives here, but for mutexes.
func (d *DB) hasAny(ctx context.Context, x *names.Index, t *tracker, acc string) (bool, error) {
	if d.Readable(acc) != nil {
		return false, nil
	}
	ok, err := d.findAny(ctx, x, t, acc)
	if d.Readable(acc) != nil { // it has moved meanwhile, which is no error of the list
		return false, nil
	}
	return ok, err
}

// findAny looks for something that is in an account. It removes keys of missing things from the
// index, so that the next call need not look them up again. t notes all accounts.
func (d *DB) findAny(ctx context.Context, x *names.Index, t *tracker, acc string) (bool, error) {
	first := store.NameKey(0, acc, "")[:len(acc)+1]
	for from := first; ; {
		keys, err := x.Page(nil, from, acc+"\x01", 16)
		if err != nil {
			return false, err
		}
		for _, key := range keys {
			if ok, err := d.isThere(ctx, key[len(first)], Key{acc, key[len(first)+1:]}); ok || err != nil {
				return ok, err
			}
			if !d.follows { // see listing.look
				x.RemoveIf(key, func() bool { return t.has(acc) })
			}
		}
		if len(keys) < 16 {
			return false, nil
		}
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		from = keys[15] + "\x00"
	}
}

// isThere reports whether a thing exists. For the locks of a follower see lockedAccounts.
func (d *DB) isThere(ctx context.Context, kind uint8, k Key) (ok bool, err error) {
	switch {
	case kind != kindLock:
		_, ok, err = d.lookListed(ctx, kind, k)
	case !d.follows:
		op := &lockList{acc: k.Acc, ids: []string{k.ID}}
		err = d.Do(op)
		ok = len(op.items) > 0
	}
	return ok, err
}

// accounts returns the accounts after one in which a mutex is held, sorted.
func (m *Mutexes) accounts(after string) []string {
	all := map[string]bool{}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		now, _ := s.begin()
		s.table.Held(now, func(k lease.Key, _ lease.Holder) {
			if k.Acc > after {
				all[k.Acc] = true
			}
		})
		s.arm(now)
		s.mu.Unlock()
	}
	var accounts []string
	for acc := range all {
		accounts = append(accounts, acc)
	}
	slices.Sort(accounts)
	return accounts
}
