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

// A batch looks its calls up in the table of endpoints. Its own line is added here, because
// in the table it would be an initialization cycle.
func init() {
	endpoints = append(endpoints, endpoint{api: Batch, method: "POST", params: []string{"atomic"}, serve: runBatch})
}

// POST /db/:acc/batch?atomic=
//
// Each call of a batch takes the steps of a single call: it is looked up in the table of
// endpoints and prepared. Then one operation of db decides all of them, and each answers.
func runBatch(s *server, c *call) error {
	b := &batch{s: s, c: c, atomic: true, budget: s.limits.Value}
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
	op, err := b.operation()
	if err != nil {
		return err
	}
	err = s.doOnce(c, op, func() error { return b.say(op) })
	if errors.Is(err, db.ErrFull) && c.retryKey == "" && op.FreeOnly() {
		// With a key the refusals would be kept, and replayed when there is room again.
		b.budget = s.limits.Value
		err = s.doOnce(c, op, func() error { return b.say(op) })
	}
	if err != nil {
		return b.refused(err)
	}
	return nil
}

// batch is a batch that is being handled.
type batch struct {
	s      *server
	c      *call
	atomic bool
	asJSON bool // answer as JSON
	items  []item
	ask    ask   // the call that is being parsed
	budget int64 // bytes left for the values that the batch reads
	reads  bool  // the batch reads values
}

// item is one call of a batch after its operation is prepared.
type item struct {
	api    API
	method string
	key    db.Key
	steps  *steps
	at     int // line number or index
	op     db.Operation
}

// ask returns the subject of the call, for an error line.
func (it *item) ask() *ask { return &ask{api: it.api, method: it.method, key: it.key} }

// read reads and parses the body.
func (b *batch) read() error {
	c := b.c
	body, err := b.s.readBody(c, b.s.limits.Value, "limits.value")
	if err != nil {
		return err
	}
	c.sentBody = body
	c.patience()
	c.brief()
	// curl labels every body a form unless -H sets the type.
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

// parseText parses a batch that has one call on each line.
func (b *batch) parseText(body []byte) error {
	b.items = make([]item, 0, min(b.s.limits.Batch, 1+bytes.Count(body, []byte("\n"))))
	for n := 1; len(body) > 0; n++ {
		var line []byte
		line, body, _ = bytes.Cut(body, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		method, rest, _ := bytes.Cut(line, []byte(" "))
		target, value, hasValue := bytes.Cut(rest, []byte(" "))
		if !hasValue {
			value = nil
		}
		if err := b.add(n, string(method), string(target), value, ""); err != nil {
			return err
		}
	}
	return nil
}

// place names a call in an error line.
func (b *batch) place(n int) string {
	if b.c.cameAsJSON {
		return "index " + strconv.Itoa(n)
	}
	return "line " + strconv.Itoa(n)
}

// add finds the endpoint of a call, parses its parameters and prepares its operation.
// The error refuses the whole batch. value is nil if there is none.
func (b *batch) add(n int, method, target string, value []byte, typ string) error {
	if len(b.items) == b.s.limits.Batch {
		return b.named(n, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("a batch has at most %d calls (limits.batch)", b.s.limits.Batch)})
	}
	it := item{at: n}
	if err := b.prepare(&it, method, target, value, typ); err != nil {
		return b.named(n, err)
	}
	b.items = append(b.items, it)
	return nil
}

// named adds the place of the call to an error.
func (b *batch) named(n int, err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return &refusal{r.status, b.place(n) + ": " + r.line}
	}
	return err
}

// prepare turns a call into an operation.
func (b *batch) prepare(it *item, method, target string, value []byte, typ string) error {
	path, query, _ := strings.Cut(target, "?")
	api, id, ok := strings.Cut(path, "/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return badRequest("want METHOD API/ID, such as POST counter/stock?add=1, not %s", quote(method+" "+target))
	}
	n := slices.Index(apiNames[:], api)
	if n < 0 || !inBatch(API(n)) {
		return badRequest("%s is not one of the APIs of a batch: %s", quote(api), batchAPIs)
	}
	it.api, it.method, it.key.Acc = API(n), method, b.c.key.Acc
	var err error
	if it.key.ID, err = name("id", id, true, db.MaxID); err != nil {
		return err
	}
	e := find(it.api, method)
	if e == nil || e.steps == nil || method == http.MethodHead {
		return badRequest("method %s is not allowed on %s in a batch", quote(method), it.api)
	}
	if b.c.readOnly && method != http.MethodGet {
		return &refusal{http.StatusForbidden, "this token is for reading only"}
	}
	if b.c.retryKey != "" && it.api == Lock && method != http.MethodGet {
		return errRetriedLock
	}
	it.steps = e.steps
	a := &b.ask
	*a = ask{api: it.api, method: method, key: it.key, cond: db.Conditions{Check: db.AnyVersion}}
	a.params.names = e.params
	if err := a.params.parse(query); err != nil {
		return err
	}
	for _, name := range []string{"wait", "not"} {
		if i := slices.Index(e.params, name); i >= 0 && a.params.values[i] != "" {
			return badRequest("%s is not allowed in a batch: nothing in it may wait", name)
		}
	}
	if i := slices.Index(e.params, "stale"); i >= 0 && a.params.values[i] != "" {
		return badRequest("stale is not allowed in a batch, which only a primary answers")
	}
	if err := a.take(e, value, typ); err != nil {
		return err
	}
	if it.op, err = e.steps.prepare(b.s, a); err != nil {
		return err
	}
	switch r := it.op.(type) {
	case *db.ValueRead:
		r.Budget, b.reads = &b.budget, true
	case *db.ValueTTL: // it reads the value and writes it again
		r.Budget, b.reads = &b.budget, true
	}
	return nil
}

// take sets the value of a call. It refuses a value for a call that stores none.
func (a *ask) take(e *endpoint, value []byte, typ string) error {
	switch {
	case e.takesValue() && len(typ) > db.MaxType:
		return badRequest("the type has %d bytes: it may have at most %d", len(typ), db.MaxType)
	case e.takesValue() && strings.ContainsFunc(typ, notInHeader):
		return badRequest("the type has a control character: %s", quote(typ))
	case e.takesValue():
		a.typ, a.value = keptType(strings.TrimSpace(typ)), value
	case value != nil:
		return badRequest("%s %s takes no value", a.method, a.api)
	case typ != "":
		return badRequest("%s %s takes no type", a.method, a.api)
	}
	return nil
}

// notInHeader reports whether a header cannot hold a character.
func notInHeader(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// inBatch reports whether calls of an API are allowed in a batch.
func inBatch(api API) bool {
	return slices.ContainsFunc(endpoints, func(e endpoint) bool { return e.api == api && e.steps != nil })
}

const batchAPIs = "sequence, counter, kv, rate and lock"

// operation combines all calls into one operation.
func (b *batch) operation() (*db.Batch, error) {
	op := &db.Batch{Atomic: b.atomic, Answers: b.answers, Check: b.check, Ops: make([]db.Operation, len(b.items))}
	for i := range b.items {
		op.Ops[i] = b.items[i].op
	}
	if !b.reads {
		return op, nil
	}
	// All values that are read together may be as large as one value. As text they take the
	// memory twice.
	size := b.c.held + 2*b.s.limits.Value
	b.s.memory.free(b.c.held)
	b.c.held = 0
	return op, b.s.memory.hold(b.c, size, memoryPatience*b.s.pace.idle)
}

// answers reports whether an error is an answer and no refusal: a GET that finds nothing.
func (b *batch) answers(i int, err error) bool {
	return b.items[i].method == http.MethodGet && errors.Is(err, db.ErrNotFound)
}

// check refuses a value that a text answer cannot hold.
func (b *batch) check(i int) error {
	r, ok := b.items[i].op.(*db.ValueRead)
	if !ok || b.asJSON {
		return nil
	}
	if d := r.Value.Data; bytes.ContainsAny(d, "\r\n") || !utf8.Valid(d) {
		return &refusal{http.StatusNotAcceptable, "the value has a line break or is not UTF-8, so it cannot be sent as text: ask for JSON (Accept: application/json)"}
	}
	return nil
}

// refused returns the error of the whole batch, which names the call that caused it.
func (b *batch) refused(err error) error {
	var g *db.GroupError
	if !errors.As(err, &g) {
		return err
	}
	it := &b.items[g.Index]
	if errors.Is(g.Err, db.ErrTooLarge) {
		return b.named(it.at, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the values that the batch reads are larger than %d bytes together (limits.value)", b.s.limits.Value)})
	}
	return &batchError{b.place(it.at), it.ask(), g.Err}
}

// batchError is the refusal of one call, which refuses the whole batch.
type batchError struct {
	place string
	of    *ask
	err   error
}

func (e *batchError) Error() string { return e.place + ": " + e.err.Error() }
func (e *batchError) Unwrap() error { return e.err }

// say answers with the results of all calls.
func (b *batch) say(op *db.Batch) error {
	c := b.c
	out := make([]byte, 0, 16*len(b.items)) // a status and a short number each
	for i := range b.items {
		it := &b.items[i]
		var r result
		if op.Errs[i] == nil {
			r = it.steps.answer(it.op)
		} else {
			r = b.s.refusalOf(it.ask(), op.Errs[i])
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
