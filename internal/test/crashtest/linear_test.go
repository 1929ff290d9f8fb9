package crashtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Histories are kept short, so that checking them stays quick: each thing is used for a few
// rounds, with a kill after each, and then other things are used.
const (
	opsInRound    = 600
	roundsOfThing = 3
	thingsOfAPI   = 2
)

// history has the calls of many clients and their answers, by thing.
type history struct {
	began time.Time

	mu     sync.Mutex // guards things and pending
	things map[string][]porcupine.Operation
	cut    map[string][]porcupine.Operation // the calls that the kill of this round has cut off

	retries map[int]*retry // by client: the call that has no answer yet and will be sent again
	faults  []string
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) add(target string, client int, call int64, in request, out response) {
	o := porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: h.now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	if out.unknown {
		h.cut[target] = append(h.cut[target], o)
		return
	}
	h.things[target] = append(h.things[target], o)
}

// killed ends the calls that were cut off: each was done by now or never will be. Mutexes are
// forgotten.
func (h *history) killed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := h.now()
	for target, all := range h.cut {
		for _, o := range all {
			o.Return = end
			h.things[target] = append(h.things[target], o)
		}
	}
	clear(h.cut)
	for target, all := range h.things {
		if apiOf(target) == "mlock" {
			h.things[target] = append(all, porcupine.Operation{Input: request{verb: "restart"}, Call: end + 1, Output: response{}, Return: end + 2})
		}
	}
}

// TestHistoriesAreLinearizable checks the answers to concurrent clients, over kills and
// restarts.
func TestHistoriesAreLinearizable(t *testing.T) {
	begin(t)
	o := setup{binary: *binary, data: filepath.Join(t.TempDir(), "data"), config: smallFiles}
	h := newHistory()
	total := atMost(*ops, 1200)
	asked := 0
	for round := 0; asked < total; round++ {
		s := serve(t, o)
		var left atomic.Int64
		left.Store(opsInRound)
		enough := make(chan struct{})
		var clients sync.WaitGroup
		for n := range 24 {
			c := &linearClient{history: h, client: client{addr: s.addr}, n: n, round: round, things: round / roundsOfThing,
				rng: rand.New(rand.NewPCG(*seed, uint64(round)<<16|uint64(n)))}
			clients.Go(func() {
				defer c.client.close()
				for c.step() {
					if left.Add(-1) == 0 {
						close(enough)
					}
				}
			})
		}
		waitFor(t, s, enough)
		s.kill()
		clients.Wait()
		h.killed()
		asked += opsInRound - int(left.Load())
		if err := s.trouble(); err != nil {
			t.Fatal(err)
		}
	}
	h.giveUp()
	longest := h.check(t)
	t.Logf("%d operations on %d things, at most %d on one", asked, len(h.things), longest)
}

func newHistory() *history {
	return &history{began: time.Now(), things: make(map[string][]porcupine.Operation), cut: make(map[string][]porcupine.Operation), retries: make(map[int]*retry)}
}

// check fails the test unless the history of each thing is linearizable. It returns the
// length of the longest.
func (h *history) check(t *testing.T) (longest int) {
	t.Helper()
	for _, x := range h.faults {
		t.Error(x)
	}
	for target, operations := range h.things {
		longest = max(longest, len(operations))
		switch porcupine.CheckOperationsTimeout(modelOf(target), operations, patience) {
		case porcupine.Illegal:
			t.Errorf("the history of %s, %d operations, is not linearizable:\n%s", target, len(operations), tell(operations))
		case porcupine.Unknown:
			t.Errorf("the history of %s, %d operations, could not be checked in %v", target, len(operations), patience)
		}
	}
	return longest
}

// tell writes a history to a file, to help find the fault.
func tell(operations []porcupine.Operation) string {
	var b strings.Builder
	for _, o := range operations[:min(len(operations), 400)] {
		fmt.Fprintf(&b, "%d to %d, client %d: %+v: %+v\n", o.Call, o.Return, o.ClientId, o.Input, o.Output)
	}
	return b.String()
}

// linearClient is one client of a history.
type linearClient struct {
	*history
	client client
	n      int
	round  int
	count  int // calls with a key in this round
	things int // which things are in use
	rng    *rand.Rand
	last   int64 // a version that was seen
	// servers are the addresses between which the client changes whenever it is not served.
	// Empty: it ends with its server.
	servers []string
}

// step makes one call; false once the server is gone.
func (c *linearClient) step() bool {
	if ok := c.again(); !ok {
		return false
	}
	if c.isRetrying() {
		return true
	}
	api := pick(c.rng, []string{"sequence", "counter", "kv", "lock", "mlock", "batch"})
	if api == "mlock" && len(c.servers) > 0 {
		return true // another primary has its own
	}
	target := fmt.Sprintf("/db/%d/%s/%d", c.things, api, c.rng.IntN(thingsOfAPI))
	switch api {
	case "kv":
		return c.value(target)
	case "batch":
		return c.pair(fmt.Sprintf("/db/%d/batch", c.things))
	case "lock", "mlock":
		if c.rng.IntN(2) == 0 {
			return c.semaphore(api, fmt.Sprintf("/db/%d/%s/semaphore", c.things, api))
		}
		return c.lock(api, target)
	}
	return c.number(api, target)
}

// ask makes a call and notes it. read takes the answer apart.
func (c *linearClient) ask(target, method, path, body string, in request, read func(answer) response) bool {
	call := c.now()
	a, err := c.client.do(method, path, body)
	unserved := c.unserved(a, err)
	if unserved && (errors.Is(err, errNotSent) || err == nil && !a.unknown()) {
		return true // nothing was done
	}
	out := response{unknown: true}
	if err == nil && !unserved {
		out = response{status: a.status}
		if a.status == 200 {
			out = read(a)
			out.status = 200
		}
	}
	c.add(target, c.n, call, in, out)
	return err == nil || unserved
}

func readNumber(a answer) response {
	n, err := a.number()
	if err != nil {
		return response{n: -1, who: a.body} // which no model knows
	}
	return response{n: n}
}

func (c *linearClient) number(api, target string) bool {
	switch n := c.rng.IntN(10); {
	case n < 2:
		return c.ask(target, "GET", target, "", request{verb: "get"}, readNumber)
	case n < 3:
		return c.ask(target, "DELETE", target, "", request{verb: "delete"}, readNumber)
	}
	n := 1 + c.rng.Int64N(50)
	in := unbounded(request{verb: "add", n: n})
	query := fmt.Sprintf("?n=%d", n)
	if api == "counter" {
		in.n -= 25
		query = fmt.Sprintf("?add=%d", in.n)
		if c.rng.IntN(2) == 0 {
			in.min, in.max = -30, 30
			query += "&min=-30&max=30"
		}
	}
	if c.rng.IntN(3) == 0 {
		return c.askWithKey(target, target+query, "", in, readNumber)
	}
	return c.ask(target, "POST", target+query, "", in, readNumber)
}

func (c *linearClient) value(target string) bool {
	readVersion := func(a answer) response {
		r := readNumber(a)
		c.last = r.n
		return r
	}
	n, query := int64(-1), ""
	if c.rng.IntN(2) == 0 {
		n = c.last
		query = fmt.Sprintf("?ver=%d", n)
	}
	switch k := c.rng.IntN(10); {
	case k < 3:
		return c.ask(target, "GET", target, "", request{verb: "get"}, func(a answer) response {
			c.last = versionOf(a)
			return response{n: c.last, who: a.body}
		})
	case k < 5 && n != 0:
		return c.ask(target, "DELETE", target+query, "", request{verb: "delete", n: n}, readVersion)
	}
	data := fmt.Sprintf("%d by %d", c.now(), c.n)
	return c.ask(target, "PUT", target+query, data, request{verb: "set", n: n, who: data}, readVersion)
}

func (c *linearClient) lock(api, target string) bool {
	owner := fmt.Sprint(c.n)
	readHolder := func(a answer) response {
		var h holder
		if err := json.Unmarshal([]byte(a.body), &h); err != nil {
			return response{n: -1, who: a.body}
		}
		return response{n: h.Token, who: h.ID}
	}
	if api == "lock" && c.rng.IntN(4) == 0 {
		return c.ask(target, "GET", target, "", request{verb: "get"}, readHolder)
	}
	wait := pick(c.rng, []string{"0", "10ms", "50ms"})
	ok := c.ask(target, "POST", fmt.Sprintf("%s?id=%s&dur=1h&wait=%s", target, owner, wait), "", request{verb: "lock", who: owner}, readNumber)
	if !ok || c.rng.IntN(8) == 0 {
		return ok
	}
	method, path := "DELETE", target
	if api == "mlock" {
		method, path = "POST", strings.Replace(target, "/mlock/", "/munlock/", 1)
	}
	return c.ask(target, method, path+"?id="+owner, "", request{verb: "unlock", who: owner}, readNumber)
}

// semaphore uses a lock with several holders.
func (c *linearClient) semaphore(api, target string) bool {
	owner := fmt.Sprint(c.n)
	if c.rng.IntN(4) == 0 {
		return c.ask(target, "GET", target, "", request{verb: "get"}, readHolders)
	}
	if c.rng.IntN(2) == 0 {
		limit := pick(c.rng, []int64{1, 2, 3, 3, 3, shared})
		query := fmt.Sprintf("limit=%d", limit)
		if limit == shared {
			query = "shared=true"
		}
		wait := pick(c.rng, []string{"0", "10ms", "50ms"})
		return c.ask(target, "POST", fmt.Sprintf("%s?id=%s&dur=1h&wait=%s&%s", target, owner, wait, query), "",
			request{verb: "lock", who: owner, n: limit}, readNumber)
	}
	method, path := "DELETE", target
	if api == "mlock" {
		method, path = "POST", strings.Replace(target, "/mlock/", "/munlock/", 1)
	}
	return c.ask(target, method, path+"?id="+owner, "", request{verb: "unlock", who: owner}, readNumber)
}

// shared is the limit of a reader in the model.
const shared = int64(1) << 31

// readHolders are all holders with their tokens.
func readHolders(a answer) response {
	var h struct {
		holder
		Holders []holder `json:"holders"`
	}
	if err := json.Unmarshal([]byte(a.body), &h); err != nil {
		return response{n: -1, who: a.body}
	}
	if h.Holders == nil {
		h.Holders = []holder{h.holder}
	}
	var all []string
	for _, x := range h.Holders {
		all = append(all, fmt.Sprintf("%s:%d", x.ID, x.Token))
	}
	return response{who: strings.Join(all, " ")}
}
