package handlers

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"clouddragon/db"
)

const (
	defaultPage = 1000
	maxPage     = 10_000
)

// listKinds are the APIs whose things can be listed.
var listKinds = map[API]db.ListKind{
	Sequence: db.ListSequences, Counter: db.ListCounters, KV: db.ListValues,
	MLock: db.ListMutexes, Lock: db.ListLocks, Rate: db.ListRates,
}

// GET /db/:acc/API?prefix=&after=&limit=&stale=
func listThings(s *server, c *call) error {
	p := &c.params
	r := db.ListRequest{
		Kind: listKinds[c.of], Acc: c.key.Acc,
		Prefix: p.owner("prefix", db.MaxID),
		After:  p.owner("after", db.MaxID),
		Limit:  int(p.number("limit", defaultPage, 1, maxPage)),
	}
	if p.bad != nil {
		return p.bad
	}
	var page db.Page
	err := s.onceNamed(func() (err error) {
		page, err = s.db.List(c.r.Context(), r)
		return err
	})
	if err != nil {
		return err
	}
	next := "/db/" + percentEncode(r.Acc) + "/" + c.of.String() + "?"
	if r.Prefix != "" {
		next += "prefix=" + percentEncode(r.Prefix) + "&"
	}
	c.nextPage(next, page.Next, r.Limit)
	c.status = http.StatusOK
	if c.wantsJSON() {
		items := make([]any, 0, len(page.Items))
		for i := range page.Items {
			items = append(items, listedAs(c.of, &page.Items[i]))
		}
		return c.sayJSON(items)
	}
	ids := make([]string, len(page.Items))
	for i := range page.Items {
		ids[i] = page.Items[i].ID
	}
	return c.sayLines(ids)
}

// GET /db?after=&limit=&stale=
func listAccounts(s *server, c *call) error {
	p := &c.params
	after, limit := p.owner("after", db.MaxAcc), int(p.number("limit", defaultPage, 1, maxPage))
	if p.bad != nil {
		return p.bad
	}
	var accounts []string
	var next string
	err := s.onceNamed(func() (err error) {
		accounts, next, err = s.db.Accounts(c.r.Context(), after, limit)
		return err
	})
	if err != nil {
		return err
	}
	c.nextPage("/db?", next, limit)
	c.status = http.StatusOK
	if !c.wantsJSON() {
		return c.sayLines(accounts)
	}
	items := make([]named, len(accounts))
	for i, acc := range accounts {
		items[i] = nameOf(acc)
	}
	return c.sayJSON(items)
}

// namesPatience is how long a list waits while the index of names is rebuilt, and namesAgain
// how often it looks.
const (
	namesPatience = 5 * time.Second
	namesAgain    = 10 * time.Millisecond
)

// onceNamed calls list until the index of names is not being rebuilt. If that takes too long,
// the error is a 503.
func (s *server) onceNamed(list func() error) error {
	for began := time.Now(); ; {
		err := list()
		rebuilding := (*db.ListingError)(nil)
		switch {
		case !errors.As(err, &rebuilding):
			return err
		case time.Since(began) > namesPatience:
			return &refusal{http.StatusServiceUnavailable, rebuilding.Error()}
		}
		select {
		case <-s.draining:
			return db.ErrStopping
		case <-time.After(namesAgain):
		}
	}
}

// nextPage sets the header Link if there is a next page. base is its address without
// stale, after and limit.
func (c *call) nextPage(base, after string, limit int) {
	if after == "" {
		return
	}
	if c.params.flag("stale") {
		base += "stale=true&"
	}
	c.w.Header()["Link"] = []string{"<" + base + "after=" + percentEncode(after) + "&limit=" + strconv.Itoa(limit) + `>; rel="next"`}
}

// sayLines answers with names, percent-encoded, one on each line.
func (c *call) sayLines(names []string) error {
	var b strings.Builder
	for _, name := range names {
		b.WriteString(percentEncode(name))
		b.WriteByte('\n')
	}
	c.ctype, c.body = textPlain, []byte(b.String())
	return nil
}

// named is a name in JSON.
type named struct {
	ID   string `json:"id"`             // with U+FFFD for bytes that are not UTF-8
	ID64 []byte `json:"id64,omitempty"` // the same in base64, if it is not UTF-8
}

func nameOf(id string) named { return named{id, notUTF8(id)} }

// The things of a page in JSON.
type (
	listedValue struct {
		named
		Version int64   `json:"version"`
		Size    int     `json:"size"`
		Type    string  `json:"type"`
		TTL     float64 `json:"ttl,omitempty"` // seconds, to the millisecond
	}
	listedNumber struct {
		named
		numberJSON
		TTL float64 `json:"ttl,omitempty"`
	}
	listedLock struct {
		named
		Owner   string  `json:"owner"`
		Owner64 []byte  `json:"owner64,omitempty"`
		Token   int64   `json:"token"`
		TTL     float64 `json:"ttl"`
		Expires string  `json:"expires"`
		Waiters int     `json:"waiters"`
	}
)

// numberJSON is a number. It also comes as text if JavaScript cannot represent it.
type numberJSON struct {
	Value int64  `json:"value"`
	Text  string `json:"text,omitempty"`
}

func numberAs(n int64) numberJSON {
	j := numberJSON{Value: n}
	if n > maxExact || n < -maxExact {
		j.Text = strconv.FormatInt(n, 10)
	}
	return j
}

// listedAs is a thing of a page in JSON.
func listedAs(api API, x *db.Listed) any {
	switch api {
	case KV:
		typ := x.Type
		if typ == "" {
			typ = octetStream[0]
		}
		return listedValue{nameOf(x.ID), x.Version, x.Size, typ, seconds(x.Left)}
	case Lock, MLock:
		h := x.Holder
		return listedLock{nameOf(x.ID), h.Owner, notUTF8(h.Owner), h.Token, seconds(h.TTL), h.Expires.UTC().Format(timeFormat), h.Waiters}
	}
	return listedNumber{nameOf(x.ID), numberAs(x.Value), seconds(x.Left)}
}
