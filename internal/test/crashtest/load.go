package crashtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The number of things of each kind that the load uses, and the bound of bounded counters.
const (
	fewThings = 4
	someKeys  = 24
	bound     = 1 << 16
)

// targets returns the paths of n things of an API. Their names differ in length, so that they
// use slots of different sizes.
func targets(api string, n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("/db/load/%s/%s-%d", api, strings.Repeat("x", i*200/n), i))
	}
	return names
}

// load is many clients that use every API and keep the ledger.
type load struct {
	ledger    *ledger
	clients   int
	valueSize int // bytes of the largest value
	seed      uint64
	// servers are the addresses between which clients change whenever they are not served. Empty: a
	// client ends with its server.
	servers []string

	stopped atomic.Int64 // answers 503, and calls with no answer in time

	cancel context.CancelFunc
	group  sync.WaitGroup
	mu     sync.Mutex // guards odd
	odd    []string   // answers that the contract does not allow here
}

// start runs the clients against a server, until stop or until the server ends.
func (l *load) start(addr string, round int) {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for n := range l.clients {
		w := &worker{load: l, n: n, rng: rand.New(rand.NewPCG(l.seed, uint64(round)<<16|uint64(n))),
			name: fmt.Sprintf("%d.%d", round, n), client: client{addr: addr}}
		if len(l.servers) > 0 {
			w.client.most = changeAfter
		}
		l.group.Go(func() {
			defer w.client.close()
			for ctx.Err() == nil && !w.gone {
				w.step()
				if len(l.servers) > 0 {
					time.Sleep(thinkTime) // otherwise checking the calls takes longer than making them
				}
			}
		})
	}
}

// stop ends the load and waits for it.
func (l *load) stop() {
	l.cancel()
	l.group.Wait()
}

// broken returns all broken promises.
func (l *load) broken() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(l.ledger.broken(), l.odd...)
}

// worker is one client of the load.
type worker struct {
	*load
	n      int
	rng    *rand.Rand
	name   string
	count  int
	client client
	gone   bool // the server has ended
}

// call sends a request and notes the outcome in the ledger.
func (w *worker) call(method, target, body string) (answer, outcome) {
	return w.callWith(method, target, "", body)
}

// callWith is call with additional header lines.
func (w *worker) callWith(method, target, header, body string) (answer, outcome) {
	a, err := w.client.doWith(method, target, header, body)
	switch {
	case err != nil:
		w.gone = !w.client.change(w.servers, w.rng)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.stopped.Add(1)
		}
		if errors.Is(err, errNotSent) {
			return a, refused
		}
		return a, lost
	case a.unknown():
		w.stopped.Add(1)
		w.client.change(w.servers, w.rng)
		return a, lost
	case a.status < 300:
		return a, done
	case a.status == http.StatusInternalServerError && (strings.Contains(target, "/kv/") || target == keyedBatch) && w.ledger.isFailing():
		return a, refused // the record could not be read
	case a.status == http.StatusServiceUnavailable || a.status == http.StatusMisdirectedRequest && w.ledger.prolonged > 0,
		a.status == http.StatusInsufficientStorage && len(w.servers) > 0:
		w.stopped.Add(1)
		w.client.change(w.servers, w.rng)
		return a, refused
	case a.status == http.StatusNotFound || a.status == http.StatusConflict:
		return a, refused
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.odd = append(w.odd, fmt.Sprintf("%s %s: %v", method, brief(target), a))
	return a, refused
}

// numbered is call for an answer that is a number.
func (w *worker) numbered(method, target, body string) (int64, outcome) {
	a, o := w.call(method, target, body)
	if o != done {
		return 0, o
	}
	n, err := a.number()
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.odd = append(w.odd, fmt.Sprintf("%s %s: %v", method, brief(target), a))
	}
	return n, o
}

func (w *worker) step() {
	w.count++
	switch n := w.rng.IntN(100); {
	case n < 12:
		w.keyed()
	case n < 25:
		w.sequence(pick(w.rng, targets("sequence", fewThings)))
	case n < 40:
		w.counter(w.rng.IntN(fewThings))
	case n < 70:
		w.value(pick(w.rng, targets("kv", someKeys)))
	case n < 90:
		w.lock("lock", pick(w.rng, targets("lock", fewThings)))
	default:
		w.lock("mlock", pick(w.rng, targets("mlock", fewThings)))
	}
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

func (w *worker) sequence(target string) {
	if w.rng.IntN(8) == 0 {
		known := w.ledger.beginRead(target)
		if got, o := w.numbered("GET", target, ""); o == done {
			w.ledger.endRead(target, known, got)
		}
		return
	}
	n := int64(1)
	query := ""
	if w.rng.IntN(4) == 0 {
		n = 1 + w.rng.Int64N(100)
		query = fmt.Sprintf("?n=%d", n)
	}
	e := w.ledger.beginSequence(target, n)
	last, o := w.numbered("POST", target+query, "")
	w.ledger.endSequence(target, n, e, o, last)
}

// counter adds the client's own power of two. Half of the counters have bounds.
func (w *worker) counter(i int) {
	target, power, minus := targets("counter", fewThings)[i], w.n%32, w.rng.IntN(2) == 0
	query := fmt.Sprintf("?add=%d", int64(1)<<power)
	if minus {
		query = fmt.Sprintf("?add=%d", -int64(1)<<power)
	}
	if boundOf(i) != 0 {
		query += fmt.Sprintf("&min=%d&max=%d", -bound, bound)
	}
	e := w.ledger.beginCounter()
	_, o := w.numbered("POST", target+query, "")
	w.ledger.endCounter(target, power, minus, e, o)
}

// boundOf returns the bound of a counter, 0 if it has none.
func boundOf(i int) int64 { return int64(i % 2 * bound) }

func (w *worker) value(target string) {
	e, known := w.ledger.beginValue(target)
	data := fmt.Sprintf("%s.%d ", w.name, w.count)
	data = strings.Repeat(data, 1+w.rng.IntN(w.valueSize)/len(data))
	version := known
	if w.rng.IntN(4) == 0 {
		version = 1 + w.rng.Int64N(1000) // most likely a wrong one
	}
	switch n := w.rng.IntN(10); {
	case n < 5:
		query := pick(w.rng, []string{"", "", "?ttl=1h"})
		version, o := w.numbered("PUT", target+query, data)
		w.ledger.endSet(target, data, e, o, version)
	case n < 7:
		version, o := w.numbered("POST", fmt.Sprintf("%s?ver=%d", target, version), data)
		w.ledger.endSet(target, data, e, o, version)
	case n < 8:
		_, o := w.call("DELETE", target, "")
		w.ledger.endDelete(target, e, o, false)
	case n < 9:
		_, o := w.call("DELETE", fmt.Sprintf("%s?ver=%d", target, max(version, 1)), "")
		w.ledger.endDelete(target, e, o, true)
	default:
		a, o := w.call("GET", target, "")
		if o != lost {
			w.ledger.endGet(target, e, known, versionOf(a))
		}
	}
}

// lock takes a lock or a mutex and usually gives it back. Otherwise the hold expires.
func (w *worker) lock(api, target string) {
	dur := pick(w.rng, []time.Duration{50 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second})
	wait := pick(w.rng, []time.Duration{0, 20 * time.Millisecond, 200 * time.Millisecond})
	owner := fmt.Sprintf("%s.%d", w.name, w.count)
	e := w.ledger.beginLock()
	thing := target
	if api == "mlock" && len(w.servers) > 0 {
		thing = w.ledger.mutexOf(w.client.addr, target)
	}
	token, o := w.numbered("POST", fmt.Sprintf("%s?id=%s&dur=%s&wait=%s", target, owner, dur, wait), "")
	h := w.ledger.endLock(api, thing, owner, dur, e, o, token)
	if h == nil {
		return
	}
	if w.rng.IntN(4) == 0 {
		e := w.ledger.beginLock()
		token, o := w.numbered("POST", fmt.Sprintf("%s?token=%d&dur=%s", target, h.token, dur), "")
		w.ledger.endRenew(h, api == "lock", dur, e, o, token)
	}
	if w.rng.IntN(8) == 0 {
		return
	}
	e = w.ledger.beginUnlock(h)
	method, path := "DELETE", target
	if api == "mlock" {
		method, path = "POST", strings.Replace(target, "/mlock/", "/munlock/", 1)
	}
	_, o = w.call(method, fmt.Sprintf("%s?token=%d", path, h.token), "")
	w.ledger.endUnlock(h, api == "lock", e, o)
}

func versionOf(a answer) int64 {
	var n int64
	// An answer that is not a number is reported as version 0, which no value has.
	_, _ = fmt.Sscan(a.header.Get("Version"), &n)
	return n
}

// ask makes a call of a check, and returns when it was sent. A server that may be replaced does not
// answer for a moment if its lease was renewed late or its standby is slow, as on a busy machine. It
// is asked again.
func (l *load) ask(c *client, method, target, header, body string) (a answer, asked time.Time, err error) {
	if late := eventually("the server answers", func() bool {
		asked = time.Now()
		a, err = c.doWith(method, target, header, body)
		return err != nil || a.status != http.StatusServiceUnavailable || l.ledger.prolonged == 0
	}); late != nil && err == nil {
		err = fmt.Errorf("%s %s: %v: %w", method, target, a, late)
	}
	return a, asked, err
}

// check reads everything back after a restart and compares it with the ledger.
func (l *load) check(addr string) error {
	c := &client{addr: addr}
	defer c.close()
	asked := time.Time{} // when the last call was sent
	read := func(target string) (a answer, err error) {
		a, asked, err = l.ask(c, "GET", target, "", "")
		if err == nil && a.status != 200 && a.status != 404 {
			err = fmt.Errorf("GET %s: %v", target, a)
		}
		return a, err
	}
	number := func(target string) (int64, error) {
		a, err := read(target)
		if err != nil || a.status == 404 {
			return 0, err
		}
		return a.number()
	}
	var errs []error
	for _, target := range targets("sequence", fewThings) {
		n, err := number(target)
		errs = append(errs, err)
		l.ledger.recoveredSequence(target, n)
	}
	for i, target := range targets("counter", fewThings) {
		n, err := number(target)
		errs = append(errs, err)
		l.ledger.recoveredCounter(target, n, boundOf(i))
	}
	for _, target := range targets("kv", someKeys) {
		a, err := read(target)
		errs = append(errs, err)
		l.ledger.recoveredValue(target, versionOf(a), a.body)
	}
	for _, target := range targets("lock", fewThings) {
		a, err := read(target)
		var h holder
		if err == nil && a.status == 200 {
			err = json.Unmarshal([]byte(a.body), &h)
		}
		if len(l.servers) > 0 { // whose clock may be wrong
			h.Expires = asked.Add(time.Duration(h.TTL * float64(time.Second)))
		}
		errs = append(errs, err)
		l.ledger.recoveredLock(target, asked, h)
	}
	return errors.Join(append(errs, l.checkKeyed(c))...)
}
