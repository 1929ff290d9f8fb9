package main

import (
	"fmt"
	"strconv"
	"strings"
)

// row is one kind of work, given to each server in turn.
type row struct {
	name   string
	conns  []int  // connections, one measurement each
	method string // of the request, or of the first of a pair
	acc    string // the account, of this row's ids alone
	api    string
	ids    int      // the requests are spread over so many ids: 1, 2, 3 …
	value  int      // bytes of the body; 0: none
	paced  bool     // its latency is measured at a constant rate too
	unlock string   // the route that ends what the first request began: a pair
	redis  []string // what redis-benchmark is asked for the same work; nil: it has none
	etcd   bool     // etcd has the same work
}

// rows are all kinds of work, over that many ids.
func rows(ids int) []*row {
	few, most, all := []int{64, 256}, []int{64, 256, 4096}, []int{1, 64, 256, 4096}
	many := thousands(float64(ids)) + " ids"
	spread := strconv.Itoa(ids)
	return []*row{
		{name: "sequence POST, one id", conns: all, method: "POST", acc: "one", api: "sequence", ids: 1,
			redis: []string{"-t", "incr"}},
		{name: "sequence POST, " + many, conns: all, method: "POST", acc: "many", api: "sequence", ids: ids, paced: true,
			redis: []string{"-t", "incr", "-r", spread}},
		{name: "counter POST, " + many, conns: few, method: "POST", acc: "many", api: "counter", ids: ids},
		{name: "kv set 64 B, " + many, conns: most, method: "POST", acc: "small", api: "kv", ids: ids, value: 64, paced: true,
			redis: []string{"-t", "set", "-d", "64", "-r", spread}, etcd: true},
		{name: "kv set 1 KiB, " + many, conns: few, method: "POST", acc: "large", api: "kv", ids: ids, value: 1024,
			redis: []string{"-t", "set", "-d", "1024", "-r", spread}},
		{name: "kv get 64 B, " + many, conns: most, method: "GET", acc: "small", api: "kv", ids: ids, value: 64, paced: true,
			redis: []string{"-t", "get", "-r", spread}},
		{name: "mutex, lock or unlock", conns: few, method: "POST", acc: "pair", api: "mlock", unlock: "POST munlock"},
		{name: "lock, lock or unlock", conns: few, method: "POST", acc: "pair", api: "lock", unlock: "DELETE lock"},
	}
}

// counted says whether what was acknowledged can be told from what is there: a
// sequence or a counter from its value, which each POST raises by one, a value
// from its version.
func (r *row) counted() bool { return r.ids > 0 && r.method == "POST" }

// ringName is the name of the hand-over of the row's lock.
func (r *row) ringName() string { return r.api + " hand-over" }

// path of the id with that number.
func (r *row) path(id int) string { return fmt.Sprintf("/db/%s/%s/%d", r.acc, r.api, id) }

// body is a value of the row's size.
func (r *row) body() string { return strings.Repeat("v", r.value) }

// held is how many ids each thread of wrk keeps locked. More than it has
// connections, so that the lock has been answered when its unlock is sent.
const held = 512

// script is the wrk script of the row. No two have the same number: it seeds
// the random ids, and no pair meets what another run left locked.
func (r *row) script(number int) string {
	var b strings.Builder
	// setup runs once for each thread, init and request in the thread.
	fmt.Fprintf(&b, `local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("thread_number", threads)
end
function init(args)
  math.randomseed(%d * 1000 + thread_number)
end
local tail = " HTTP/1.1\r\nHost: localhost\r\n\r\n"
`, number)
	switch {
	case r.unlock != "":
		method, api, _ := strings.Cut(r.unlock, " ")
		// wrk asks for one request that it does not send, to look at it. That is
		// number 0, which nothing unlocks.
		fmt.Fprintf(&b, `
local locked, unlocked = -1, 0
function request()
  if locked - unlocked < %d then
    locked = locked + 1
    return "%s /db/%s/%s/%d-" .. thread_number .. "-" .. locked .. "?id=bench&dur=60" .. tail
  end
  unlocked = unlocked + 1
  return "%s /db/%s/%s/%d-" .. thread_number .. "-" .. unlocked .. "?id=bench" .. tail
end
`, held, r.method, r.acc, r.api, number, method, r.acc, api, number)
	default:
		if r.counted() && r.value > 0 {
			fmt.Fprintf(&b, `tail = " HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" .. string.rep("v", %d)
`, r.value, r.value)
		}
		fmt.Fprintf(&b, `
function request()
  return "%s /db/%s/%s/" .. math.random(%d) .. tail
end
`, r.method, r.acc, r.api, r.ids)
	}
	b.WriteString(wrkDone)
	return b.String()
}
