package handlers

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"clouddragon/db"
)

// The table of endpoints gets its line here, since a batch looks its calls up in it.
func init() {
	endpoints = append(endpoints, endpoint{api: Batch, method: "POST", params: []string{"atomic"}, serve: runBatch})
}

// POST /db/:acc/batch?atomic=
//
// A batch goes the way of a single call, many times: each of its calls is found in
// the table of endpoints and prepared as one of its own; one operation of db decides
// them all, and each says its result.
func runBatch(s *server, c *call) error {
	b := &batch{s: s, c: c, atomic: true}
	switch c.params.text("atomic") {
	case "", "true":
	case "false":
		b.atomic = false
	default:
		return badRequest("atomic must be true or false, not %s", quote(c.params.text("atomic")))
	}
	if err := b.read(); err != nil {
		return err
	}
	op, err := b.prepare()
	if err != nil {
		return err
	}
	if err := s.doOnce(c, op, func() error { return b.say(op) }); err != nil {
		return b.refused(err)
	}
	return nil
}

// batch is a batch on its way.
type batch struct {
	s      *server
	c      *call
	atomic bool
	asJSON bool // it is answered as JSON
	items  []item
}

// item is one call of a batch.
type item struct {
	ask
	steps *steps
	place string // "line 3" or "index 3", for an error line
	err   error  // why it cannot be done; the token is looked at before
	op    db.Operation
}

// read reads the body and takes it apart.
func (b *batch) read() error {
	c := b.c
	body, err := b.s.readBody(c, b.s.limits.Value, "limits.value")
	if err != nil {
		return err
	}
	c.sentBody = body
	c.patience()
	c.brief()
	// curl calls a body a form unless it is told what it is.
	switch typ := mediaType(c.r.Header.Get("Content-Type")); typ {
	case jsonType:
		c.cameAsJSON = true
		err = b.parseJSON(body)
	case "", form, "text/plain", octetStream[0]:
		err = b.parseText(body)
	default:
		return badRequest("a batch of type %s is not read: send it as text, one call a line, or as application/json", quote(typ))
	}
	if err != nil {
		return err
	}
	if len(b.items) == 0 {
		return badRequest("the batch has no calls")
	}
	b.asJSON = c.wantsJSON()
	return nil
}

// parseText takes a batch apart that has one call a line.
func (b *batch) parseText(body []byte) error {
	for n := 1; len(body) > 0; n++ {
		var line []byte
		line, body, _ = bytes.Cut(body, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		method, rest, _ := bytes.Cut(line, []byte(" "))
		target, value, hasValue := bytes.Cut(rest, []byte(" "))
		it := item{place: "line " + strconv.Itoa(n)}
		it.value = value
		if err := b.add(&it, string(method), string(target), hasValue, ""); err != nil {
			return err
		}
	}
	return nil
}

// add finds the endpoint of a call and parses its parameters. The error refuses the
// whole batch.
func (b *batch) add(it *item, method, target string, hasValue bool, typ string) error {
	if len(b.items) == b.s.limits.Batch {
		return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("%s: a batch has at most %d calls (limits.batch)", it.place, b.s.limits.Batch)}
	}
	err := it.parse(method, target, b.c.key.Acc)
	if err == nil {
		err = it.checkValue(hasValue, typ)
	}
	if err != nil {
		return it.at(err)
	}
	b.items = append(b.items, *it)
	return nil
}

// at makes an error name the call that it is about.
func (it *item) at(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return &refusal{r.status, it.place + ": " + r.line}
	}
	return err
}

// parse finds out which call a line asks for.
func (it *item) parse(method, target, acc string) error {
	path, query, _ := strings.Cut(target, "?")
	api, id, ok := strings.Cut(path, "/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return badRequest("want METHOD API/ID, such as POST counter/stock?add=1, not %s", quote(method+" "+target))
	}
	n := slices.Index(apiNames[:], api)
	if n < 0 || !inBatch(API(n)) {
		return badRequest("%s is not one of the APIs of a batch: %s", quote(api), batchAPIs)
	}
	it.api, it.method = API(n), method
	var err error
	if it.key.ID, err = name("id", id, true, db.MaxID); err != nil {
		return err
	}
	it.key.Acc = acc
	e := find(it.api, method)
	if e == nil || e.steps == nil || method == http.MethodHead {
		return badRequest("method %s is not allowed on %s in a batch", quote(method), it.api)
	}
	it.steps = e.steps
	it.params.names = e.params
	if err := it.params.parse(query); err != nil {
		return err
	}
	for _, name := range []string{"wait", "not"} {
		if i := slices.Index(e.params, name); i >= 0 && it.params.values[i] != "" {
			return badRequest("%s is not allowed in a batch: nothing in it may wait", name)
		}
	}
	return nil
}

// inBatch reports whether a batch may hold calls of an API.
func inBatch(api API) bool {
	return slices.ContainsFunc(endpoints, func(e endpoint) bool { return e.api == api && e.steps != nil })
}

const batchAPIs = "sequence, counter, kv, rate and lock"

// checkValue refuses a value where there is none to store.
func (it *item) checkValue(hasValue bool, typ string) error {
	e := find(it.api, it.method)
	it.cond.Check = db.AnyVersion
	switch {
	case e.takesValue() && len(typ) > db.MaxType:
		return badRequest("the type has %d bytes: it may have at most %d", len(typ), db.MaxType)
	case e.takesValue():
		it.typ = keptType(typ)
		if it.value == nil {
			it.value = []byte{}
		}
	case hasValue:
		return badRequest("%s %s takes no value", it.method, it.api)
	case typ != "":
		return badRequest("%s %s takes no type", it.method, it.api)
	}
	return nil
}

// prepare makes one operation of all calls.
func (b *batch) prepare() (*db.Batch, error) {
	op := &db.Batch{Atomic: b.atomic, Answers: b.answers, Check: b.check}
	budget := b.s.limits.Value
	reads := false
	for i := range b.items {
		it := &b.items[i]
		if b.c.readOnly && it.method != http.MethodGet {
			return nil, it.at(&refusal{http.StatusForbidden, "this token is for reading only"})
		}
		if b.c.retryKey != "" && it.api == Lock && it.method != http.MethodGet {
			return nil, it.at(errRetriedLock)
		}
		var err error
		if it.op, err = it.steps.prepare(b.s, &it.ask); err != nil {
			return nil, it.at(err)
		}
		switch r := it.op.(type) {
		case *db.ValueRead:
			r.Budget, reads = &budget, true
		case *db.ValueTTL: // which reads the value that it writes anew
			r.Budget, reads = &budget, true
		}
		op.Ops = append(op.Ops, it.op)
	}
	if !reads {
		return op, nil
	}
	// The values that are read may take as much as one value.
	size := b.c.held
	b.s.memory.free(b.c.held)
	b.c.held = 0
	return op, b.s.memory.hold(b.c, size+2*budget, memoryPatience*b.s.pace.idle)
}

// answers reports whether a call's error is an answer: a GET that finds nothing.
func (b *batch) answers(i int, err error) bool {
	return b.items[i].method == http.MethodGet && errors.Is(err, db.ErrNotFound)
}

// check refuses a value that cannot be told as text.
func (b *batch) check(i int) error {
	r, ok := b.items[i].op.(*db.ValueRead)
	if !ok || b.asJSON {
		return nil
	}
	if d := r.Value.Data; bytes.ContainsAny(d, "\r\n") || !utf8.Valid(d) {
		return &refusal{http.StatusNotAcceptable, "the value has a line break or is not UTF-8, so it cannot be told as text: ask for JSON (Accept: application/json)"}
	}
	return nil
}

// refused names the call that has refused the whole batch.
func (b *batch) refused(err error) error {
	var g *db.GroupError
	if !errors.As(err, &g) {
		return err
	}
	it := &b.items[g.Index]
	if errors.Is(g.Err, db.ErrTooLarge) {
		return it.at(&refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the values that the batch reads are larger than %d bytes together (limits.value)", b.s.limits.Value)})
	}
	return &batchError{it, g.Err}
}

// batchError is the refusal of one call, and with it of the whole batch.
type batchError struct {
	it  *item
	err error
}

func (e *batchError) Error() string { return e.it.place + ": " + e.err.Error() }
func (e *batchError) Unwrap() error { return e.err }

// say says the results of all calls.
func (b *batch) say(op *db.Batch) error {
	c := b.c
	var out []byte
	for i := range b.items {
		it := &b.items[i]
		var r result
		if op.Errs[i] == nil {
			r = it.steps.answer(it.op)
		} else {
			r = b.s.refusalOf(&it.ask, op.Errs[i])
		}
		if b.asJSON {
			out = append(out, "[,"[min(i, 1)])
		}
		var err error
		if out, err = r.appendItem(out, b.asJSON); err != nil {
			return err
		}
	}
	c.status, c.ctype, c.body = http.StatusOK, textPlain, out
	if b.asJSON {
		c.ctype, c.body = applicationJSON, append(out, "]\n"...)
	}
	return nil
}
