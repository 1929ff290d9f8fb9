package db

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"clouddragon/db/commit"
	"clouddragon/db/store"
	"clouddragon/internal/lease"
	"clouddragon/internal/names"
	"clouddragon/slots"
)

// A page is made from the index of names. The index may hold keys of things that are gone,
// so each key is looked up. Meanwhile a tracker notes what commits touch. At the end those
// changes are applied to what was read. So the page shows one moment, and no commit had
// to wait for it.

// ListKind is what is listed.
type ListKind uint8

// The kinds of things that are listed.
const (
	ListValues ListKind = iota
	ListSequences
	ListCounters
	ListRates
	ListLocks
	ListMutexes
)

// slotKinds are their kinds in the files.
var slotKinds = map[ListKind]uint8{
	ListValues: valueKind, ListSequences: kindSequence, ListCounters: kindCounter, ListRates: kindRate, ListLocks: kindLock,
}

// ListRequest asks for a page.
type ListRequest struct {
	Kind   ListKind
	Acc    string
	Prefix string // of the ids
	After  string // only ids after this one; empty: from the first on
	Limit  int    // the most things on the page

	missing func(id string) // is told of things in the index of names that do not exist any more; may be nil
}

// Listed is one thing of a page.
type Listed struct {
	ID    string
	Value int64         // of a sequence or a counter; of a rate the milliseconds until it is full again
	Left  time.Duration // until it ends; 0: it has no end

	// For a value.
	Version int64
	Size    int
	Type    string

	Holder Holder // for a lock or a mutex: the oldest holder

	ends int64 // in database time, ns; 0: never
}

// Page is a part of a list.
type Page struct {
	Items []Listed
	Next  string // After of the next page; empty: there is none
}

// ListingError is returned while the index of names is being rebuilt.
type ListingError struct{ Told uint64 }

func (e *ListingError) Error() string {
	return fmt.Sprintf("the index of names is being rebuilt and has %d names so far: try again later", e.Told)
}

// mostLooks limits how many keys a page looks up beyond its limit, because the index may
// hold many keys of things that have expired.
const mostLooks = 10_000

// List returns a page of the things in an account. A page may have fewer things than its
// limit although there is a next one.
func (d *DB) List(ctx context.Context, r ListRequest) (Page, error) {
	if r.Kind == ListMutexes {
		return d.mutexes.list(r), d.Readable(r.Acc)
	}
	if Internal(r.Prefix) {
		return Page{}, nil
	}
	x, told, ok := d.store.Names()
	if !ok {
		return Page{}, &ListingError{told}
	}
	l := &listing{d: d, ctx: ctx, r: r, kind: slotKinds[r.Kind], x: x, items: map[string]Listed{}}
	l.tracker = d.pages.begin(l.kind, r.Acc)
	defer d.pages.end(l.tracker)
	d.awaitPublished() // from here on the index has every change that the tracker was not told of
	p, err := l.page()
	if errors.Is(err, names.ErrDamaged) {
		d.store.NamesDamaged(err)
		return Page{}, &ListingError{}
	}
	if err == nil {
		err = d.Readable(r.Acc)
	}
	return p, err
}

// listing is a page in the making.
type listing struct {
	d       *DB
	ctx     context.Context
	r       ListRequest
	kind    uint8
	x       *names.Index
	tracker *tracker
	items   map[string]Listed
}

func (l *listing) page() (Page, error) {
	first := store.NameKey(l.kind, l.r.Acc, "")
	from := first + l.r.Prefix
	end := prefixEnd(from)
	if l.r.Prefix == "" {
		from = first + "\x01" // after the Internal ids
	}
	if after := first + l.r.After; l.r.After != "" && after >= from {
		from = after + "\x00"
	}
	var p Page
	for looks := 0; ; {
		n := l.r.Limit - len(l.items) + 1 // one more shows whether there is a next page
		keys, err := l.x.Page(nil, from, end, n)
		if err != nil {
			return p, err
		}
		more := len(keys) == n
		if more && n > 1 {
			keys = keys[:n-1]
		}
		if len(l.items) == l.r.Limit {
			keys = nil
		}
		if err := l.look(keys, first); err != nil {
			return p, err
		}
		if !more {
			break
		}
		if looks += len(keys); len(l.items) == l.r.Limit || looks > mostLooks {
			if len(keys) > 0 {
				p.Next = keys[len(keys)-1][len(first):]
			} else {
				p.Next = from[len(first) : len(from)-1]
			}
			break
		}
		from = keys[len(keys)-1] + "\x00"
	}
	return l.settle(p)
}

// prefixEnd returns the smallest string that is larger than all strings with the prefix.
// The prefix must have a byte other than 0xff.
func prefixEnd(p string) string {
	n := len(p)
	for p[n-1] == 0xff {
		n--
	}
	return p[:n-1] + string([]byte{p[n-1] + 1})
}

// look reads the things that the keys name. Keys of missing things are removed from the
// index.
func (l *listing) look(keys []string, first string) error {
	if l.kind == kindLock {
		for _, k := range keys {
			l.items[k[len(first):]] = Listed{}
		}
		if err := l.lookLocks(); err != nil {
			return err
		}
	}
	for _, key := range keys {
		id := key[len(first):]
		if _, found := l.items[id]; found {
			continue
		}
		item, ok, err := Listed{}, false, error(nil)
		if l.kind != kindLock {
			item, ok, err = l.d.lookListed(l.ctx, l.kind, Key{l.r.Acc, id})
		}
		switch {
		case err != nil:
			return err
		case ok:
			l.items[id] = item
		case l.d.follows:
			// Its key is told before the batch that makes it is applied, and what has expired
			// can be held on by a promotion.
		default:
			// If it is made again meanwhile, the tracker learns of that before the index.
			l.x.RemoveIf(key, func() bool { return l.tracker.has(id) })
			if l.r.missing != nil {
				l.r.missing(id)
			}
		}
	}
	return nil
}

// lookListed reads one thing, but for locks.
func (d *DB) lookListed(ctx context.Context, kind uint8, k Key) (item Listed, ok bool, err error) {
	if kind == valueKind {
		v, err := d.Head(ctx, k)
		switch {
		case errors.Is(err, ErrNotFound):
			return item, false, nil
		case errors.Is(err, ErrDamaged):
			return Listed{ID: k.ID}, true, nil // it exists; a GET reports the damage
		case err != nil:
			return item, false, err
		}
		item = Listed{ID: k.ID, Version: v.Version, Size: v.Size, Type: v.Type}
		if v.Left != 0 {
			item.ends = d.store.Clock.Now() + int64(v.Left)
		}
		return item, true, nil
	}
	key := slots.Key{Kind: kind, Acc: k.Acc, ID: k.ID}
	var buf [slots.MaxPayload]byte
	b, ok := d.store.Tables.Get(key, key.Hash(), buf[:0])
	if !ok {
		return item, false, nil
	}
	item = listedSlot(kind, k.ID, b)
	return item, item.ends == 0 || item.ends > d.store.Clock.Now(), nil
}

// listedSlot decodes the payload of a slot.
func listedSlot(kind uint8, id string, payload []byte) Listed {
	item := Listed{ID: id}
	switch kind {
	case kindSequence:
		item.Value = int64(le.Uint64(payload))
	case kindCounter:
		item.Value, item.ends = readCounter(payload)
	case kindRate:
		item.ends = rateEnd(payload)
	}
	return item
}

// lookLocks has the writer read the holders of the locks on the page.
func (l *listing) lookLocks() error {
	op := &lockList{acc: l.r.Acc, ids: slices.Collect(maps.Keys(l.items))}
	if err := l.d.Do(op); err != nil {
		return err
	}
	l.items = op.items
	return nil
}

// awaitPublished waits until every applied batch is published, which takes only a moment.
func (d *DB) awaitPublished() {
	for {
		if _, ok := d.writer.Changes(); ok {
			return
		}
		runtime.Gosched()
	}
}

// settle applies the changes of commits meanwhile and makes the page.
func (l *listing) settle(p Page) (Page, error) {
	for try := 0; ; try++ {
		l.d.awaitPublished()
		touched := l.tracker.take()
		if len(touched) == 0 {
			break
		}
		for id, t := range touched {
			if !Internal(id) && strings.HasPrefix(id, l.r.Prefix) && id > l.r.After && (p.Next == "" || id <= p.Next) {
				l.apply(id, t)
			}
		}
		if l.kind != kindLock || try == settleTries {
			break
		}
		if err := l.lookLocks(); err != nil {
			return p, err
		}
	}
	now := l.d.store.Clock.Now()
	for _, id := range slices.Sorted(maps.Keys(l.items)) {
		item := l.items[id]
		if item.ends != 0 {
			if item.Left = time.Duration(item.ends - now); item.Left <= 0 {
				continue
			}
			if l.kind == kindRate {
				item.Value = item.Left.Milliseconds()
			}
		}
		if len(p.Items) == l.r.Limit {
			p.Next = p.Items[l.r.Limit-1].ID
			break
		}
		p.Items = append(p.Items, item)
	}
	return p, nil
}

// settleTries is how often a page of locks is read again because locks have changed
// meanwhile.
const settleTries = 5

// apply applies the change of a commit to a thing on the page.
func (l *listing) apply(id string, t commit.Touched) {
	switch {
	case l.kind == kindLock:
		l.items[id] = Listed{} // lookLocks fills it in or removes it
	case t.Gone:
		delete(l.items, id)
	case l.kind == valueKind:
		l.items[id] = Listed{ID: id, Version: int64(t.Version), Size: t.Size, Type: t.Type, ends: t.Expires}
	default:
		l.items[id] = listedSlot(l.kind, id, t.Payload)
	}
}

// lockList is the operation that reads the holders of some locks of an account.
type lockList struct {
	acc string
	ids []string

	items map[string]Listed // the answer: the locks that are held

	locks *locks
}

// Size is 0: reading needs no room.
func (o *lockList) Size() int { return 0 }

// Frees is true.
func (o *lockList) Frees() bool { return true }

func (*lockList) account() string { return "" }

func (o *lockList) prepare(d *DB) error {
	o.locks, o.items = d.locks, make(map[string]Listed, len(o.ids))
	return nil
}

// Decide reads.
func (o *lockList) Decide(tx *commit.Tx) error {
	for _, id := range o.ids {
		k := lease.Key{Acc: o.acc, ID: id}
		if h, ok := o.locks.table.Oldest(tx.Now(), k); ok {
			o.items[id] = Listed{ID: id, Holder: o.locks.seen(tx, k, h)}
		}
	}
	return nil
}

// list returns a page of mutexes. It locks one shard after the other.
func (m *Mutexes) list(r ListRequest) Page {
	var p Page
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		now, wall := s.begin()
		s.table.Held(now, func(k lease.Key, h lease.Holder) {
			if k.Acc == r.Acc && strings.HasPrefix(k.ID, r.Prefix) && k.ID > r.After {
				p.Items = append(p.Items, Listed{ID: k.ID, Holder: holderOf(h, now, wall+h.Expires-now, s.table.Waiters(k))})
			}
		})
		s.arm(now)
		s.mu.Unlock()
	}
	slices.SortFunc(p.Items, func(a, b Listed) int { return strings.Compare(a.ID, b.ID) })
	if len(p.Items) > r.Limit {
		p.Items = slices.Clone(p.Items[:r.Limit])
		p.Next = p.Items[r.Limit-1].ID
	}
	return p
}
