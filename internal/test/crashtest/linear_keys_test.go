package crashtest

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/anishathalye/porcupine"
)

// retry is a POST with an Idempotency-Key that has no answer yet. However often it is sent, it
// is one operation, which lasts from the first time to the answer.
type retry struct {
	target, path, body, key string
	call                    int64
	in                      request
	read                    func(answer) response
}

// askWithKey makes a call with a key. Some calls are sent again although they were answered,
// and must get the same answer.
func (c *linearClient) askWithKey(target, path, body string, in request, read func(answer) response) bool {
	c.count++
	r := &retry{target: target, path: path, body: body, key: fmt.Sprintf("%d.%d.%d", c.n, c.round, c.count), call: c.now(), in: in, read: read}
	c.mu.Lock()
	c.retries[c.n] = r
	c.mu.Unlock()
	a, ok := c.send(r)
	if !ok || a.status != 200 || c.rng.IntN(4) > 0 {
		return ok
	}
	b, err := c.client.doWith("POST", path, keyHeader(r.key), body)
	if c.unserved(b, err) {
		return true
	}
	if err == nil && (b.status != 200 || b.body != a.body || b.header.Get("Idempotency-Replayed") != "true") {
		c.mu.Lock()
		c.faults = append(c.faults, fmt.Sprintf("%s with the key %s: %v, and again: %v", path, r.key, a, b))
		c.mu.Unlock()
	}
	return err == nil
}

// again repeats the calls that were cut off in earlier rounds.
func (c *linearClient) again() bool {
	c.mu.Lock()
	r := c.retries[c.n]
	c.mu.Unlock()
	if r == nil {
		return true
	}
	_, ok := c.send(r)
	return ok
}

// isRetrying reports whether something is still to be sent again.
func (c *linearClient) isRetrying() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.retries[c.n] != nil
}

// send sends a retry and notes its answer.
func (c *linearClient) send(r *retry) (answer, bool) {
	a, err := c.client.doWith("POST", r.path, keyHeader(r.key), r.body)
	if c.unserved(a, err) {
		return a, true // it is sent again
	}
	if err != nil {
		return a, false
	}
	out := response{}
	if a.status == 200 {
		out = r.read(a)
	}
	out.status = a.status
	c.add(r.target, c.n, r.call, r.in, out)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.retries, c.n)
	return a, true
}

// unserved reports whether a client that knows several servers was not served. The client may
// use another server from now on.
func (c *linearClient) unserved(a answer, err error) bool {
	if len(c.servers) == 0 || err == nil && a.status < 500 && a.status != http.StatusMisdirectedRequest {
		return false
	}
	return c.client.change(c.servers, c.rng)
}

// giveUp ends the calls that will not be sent again.
func (h *history) giveUp() {
	for client, r := range h.retries {
		h.things[r.target] = append(h.things[r.target],
			porcupine.Operation{ClientId: client, Input: r.in, Call: r.call, Output: response{unknown: true}, Return: h.now()})
	}
}

// pair uses two counters, mostly both in one batch.
func (c *linearClient) pair(target string) bool {
	first, second := strings.Replace(target, "/batch", "/counter/first", 1), strings.Replace(target, "/batch", "/counter/second", 1)
	switch k := c.rng.IntN(10); {
	case k < 3:
		return c.ask(target, "POST", target, "GET counter/first\nGET counter/second\n", request{verb: "both"}, readPair)
	case k < 4:
		return c.ask(target, "GET", first, "", request{verb: "get"}, readNumber)
	case k < 5:
		n := c.rng.Int64N(50) - 25
		return c.ask(target, "POST", fmt.Sprintf("%s?add=%d", second, n), "", request{verb: "add", n: n}, readNumber)
	}
	in := request{verb: "move", n: c.rng.Int64N(50) - 25, min: -30, max: 30}
	body := fmt.Sprintf("POST counter/second?add=%d\nPOST counter/first?add=%d&min=-30&max=30\n", -in.n, in.n)
	read := func(a answer) response {
		// The first line is that of the second counter.
		lines := strings.SplitAfter(a.body, "\n")
		return readPair(answer{body: strings.Join(append(lines[1:2], lines[0]), "")})
	}
	if c.rng.IntN(2) == 0 {
		return c.askWithKey(target, target, body, in, read)
	}
	return c.ask(target, "POST", target, body, in, read)
}

// readPair parses an answer of two lines. A counter that does not exist is 0.
func readPair(a answer) response {
	lines := strings.Split(a.body, "\n")
	if len(lines) != 3 {
		return response{n: -1, who: a.body} // which no model knows
	}
	for i, line := range lines[:2] {
		if strings.HasPrefix(line, "404 ") {
			lines[i] = "200 0"
		}
	}
	r := readNumber(answer{body: strings.TrimPrefix(lines[0], "200 ")})
	r.who = strings.TrimPrefix(lines[1], "200 ")
	return r
}
