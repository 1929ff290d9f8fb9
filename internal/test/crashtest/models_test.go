package crashtest

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// call is one operation of a history that is written down: they come one after
// the other, but for those with a length, which reach over so many that follow.
type call struct {
	in     request
	out    response
	length int64
}

func TestModelsRefuseImpossibleHistories(t *testing.T) {
	one := unbounded(request{verb: "add", n: 1})
	get, del, lost := request{verb: "get"}, request{verb: "delete"}, response{unknown: true}
	set := func(who string, n int64) request { return request{verb: "set", who: who, n: n} }
	lock, unlock := func(who string) request { return request{verb: "lock", who: who} }, func(who string) request { return request{verb: "unlock", who: who} }
	sem := func(who string, limit int64) request { return request{verb: "lock", who: who, n: limit} }
	move, both := request{verb: "move", n: 5, min: -9, max: 9}, request{verb: "both"}
	ok := func(n int64) response { return response{status: 200, n: n} }
	is := func(n int64, who string) response { return response{status: 200, n: n, who: who} }
	status := func(n int) response { return response{status: n} }
	for _, c := range []struct {
		name, api string
		calls     []call
		legal     bool
	}{
		{"a value twice", "sequence", []call{{in: one, out: ok(1)}, {in: one, out: ok(1)}}, false},
		{"a value left out", "sequence", []call{{in: one, out: ok(1)}, {in: one, out: ok(3)}}, false},
		{"a lost add was done", "sequence", []call{{in: one, out: lost}, {in: one, out: ok(2)}}, true},
		{"a lost add was not done", "sequence", []call{{in: one, out: lost}, {in: one, out: ok(1)}}, true},
		{"a lost add was done twice", "sequence", []call{{in: one, out: lost}, {in: one, out: ok(3)}}, false},
		{"an acknowledged add is lost", "sequence", []call{{in: one, out: ok(1)}, {in: get, out: status(404)}}, false},
		{"a reset is lost", "sequence", []call{{in: one, out: ok(1)}, {in: del, out: status(204)}, {in: get, out: ok(1)}}, false},
		{"the later of two first", "sequence", []call{{in: one, out: ok(2), length: 1}, {in: one, out: ok(1)}}, true},
		{"a stale read", "sequence", []call{{in: one, out: ok(1)}, {in: one, out: ok(2)}, {in: get, out: ok(1)}}, false},
		{"over its bound", "counter", []call{{in: request{verb: "add", n: 9, min: -5, max: 5}, out: ok(9)}}, false},
		{"refused within its bound", "counter", []call{{in: request{verb: "add", n: 4, min: -5, max: 5}, out: status(409)}}, false},
		{"a batch is whole", "batch", []call{{in: move, out: is(5, "-5")}, {in: both, out: is(5, "-5")}}, true},
		{"a batch is in parts", "batch", []call{{in: move, out: lost}, {in: both, out: is(5, "0")}}, false},
		{"a lost batch is done twice", "batch", []call{{in: move, out: lost}, {in: both, out: is(10, "-10")}}, false},
		{"a lost batch is not there", "batch", []call{{in: move, out: lost}, {in: both, out: is(0, "0")}}, true},
		{"a call between those of a batch", "batch", []call{{in: move, out: is(5, "-4"), length: 1}, {in: one, out: ok(1)}}, true},
		{"a batch over its bound", "batch", []call{{in: move, out: is(5, "-5")}, {in: move, out: is(10, "-10")}}, false},
		{"two won one race", "kv", []call{{in: set("a", -1), out: ok(1)}, {in: set("b", 1), out: ok(2), length: 2}, {in: set("c", 1), out: ok(3)}}, false},
		{"one won a race", "kv", []call{{in: set("a", -1), out: ok(1)}, {in: set("b", 1), out: ok(2), length: 2}, {in: set("c", 1), out: status(409)}}, true},
		{"a version goes back", "kv", []call{{in: set("a", -1), out: ok(5)}, {in: del, out: status(204)}, {in: set("b", -1), out: ok(4)}}, false},
		{"a deleted value is back", "kv", []call{{in: set("a", -1), out: ok(5)}, {in: request{verb: "delete", n: 5}, out: status(204)}, {in: get, out: is(5, "a")}}, false},
		{"a lost value is there", "kv", []call{{in: set("a", -1), out: lost}, {in: get, out: is(5, "a")}, {in: set("b", 5), out: ok(6)}}, true},
		{"a lost value is there, then another version of it", "kv", []call{{in: set("a", -1), out: lost}, {in: get, out: is(5, "a")}, {in: get, out: is(6, "a")}}, false},
		{"two holders", "lock", []call{{in: lock("a"), out: ok(1)}, {in: lock("b"), out: ok(2)}}, false},
		{"a waiter", "lock", []call{{in: lock("a"), out: ok(1)}, {in: lock("b"), out: ok(2), length: 2}, {in: unlock("a"), out: status(204)}}, true},
		{"a token goes back", "lock", []call{{in: lock("a"), out: ok(2)}, {in: unlock("a"), out: status(204)}, {in: lock("b"), out: ok(1)}}, false},
		{"a renewal with another token", "lock", []call{{in: lock("a"), out: ok(2)}, {in: lock("a"), out: ok(3)}}, false},
		{"a lock is lost", "lock", []call{{in: lock("a"), out: ok(2)}, {in: get, out: status(404)}}, false},
		{"another's unlock", "lock", []call{{in: lock("a"), out: ok(2)}, {in: unlock("b"), out: status(204)}}, false},
		{"a restart frees a mutex", "mlock", []call{{in: lock("a"), out: ok(2)}, {in: request{verb: "restart"}}, {in: lock("b"), out: ok(3)}}, true},
		{"a token goes back over a restart", "mlock", []call{{in: lock("a"), out: ok(2)}, {in: request{verb: "restart"}}, {in: lock("b"), out: ok(2)}}, false},
		{"three of three", "semaphore", []call{{in: sem("a", 3), out: ok(1)}, {in: sem("b", 3), out: ok(2)}, {in: sem("c", 3), out: ok(3)}, {in: get, out: is(0, "a:1 b:2 c:3")}}, true},
		{"four of three", "semaphore", []call{{in: sem("a", 3), out: ok(1)}, {in: sem("b", 3), out: ok(2)}, {in: sem("c", 3), out: ok(3)}, {in: sem("d", 9), out: ok(4)}}, false},
		{"a writer among readers", "semaphore", []call{{in: sem("a", 9), out: ok(1)}, {in: sem("b", 1), out: ok(2)}}, false},
		{"a holder is lost", "semaphore", []call{{in: sem("a", 9), out: ok(1)}, {in: sem("b", 9), out: ok(2)}, {in: get, out: is(0, "b:2")}}, false},
		{"a lost grant is there", "semaphore", []call{{in: sem("a", 9), out: lost}, {in: get, out: is(0, "a:4")}, {in: sem("a", 9), out: ok(4)}}, true},
		{"refused though it is free", "semaphore", []call{{in: sem("a", 9), out: status(409)}}, false},
		{"renewed in another mode", "semaphore", []call{{in: sem("a", 9), out: ok(1)}, {in: sem("a", 3), out: ok(1)}}, false},
	} {
		var operations []porcupine.Operation
		for i, x := range c.calls {
			if x.in.verb == "delete" && x.in.n == 0 {
				x.in.n = -1
			}
			at := int64(i) * 10
			operations = append(operations, porcupine.Operation{Input: x.in, Output: x.out, Call: at, Return: at + 5 + 10*x.length})
		}
		if got := porcupine.CheckOperations(models[c.api], operations); got != c.legal {
			t.Errorf("%s: %v is held to be legal: %v", c.api, c.name, got)
		}
	}
}
