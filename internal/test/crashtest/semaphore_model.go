package crashtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// holderIn is one holder in the state of a lock with several.
type holderIn struct{ limit, token int64 } // token 0: not known yet

// holdersIn parses the holders in a state's who, by their owners.
func holdersIn(s state) map[string]holderIn {
	all := map[string]holderIn{}
	for _, part := range strings.Fields(s.who) {
		owner, rest, _ := strings.Cut(part, ":")
		var h holderIn
		if _, err := fmt.Sscanf(rest, "%d:%d", &h.limit, &h.token); err != nil {
			panic(err)
		}
		all[owner] = h
	}
	return all
}

// holding returns the state with those holders.
func holding(all map[string]holderIn, last int64) state {
	var parts []string
	for _, owner := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, fmt.Sprintf("%s:%d:%d", owner, all[owner].limit, all[owner].token))
	}
	return state{who: strings.Join(parts, " "), last: last}
}

// nextSemaphore is a lock or a mutex that may have several holders: a semaphore, or readers
// and writers. Its holds do not expire. The model does not know who waits, so it allows a
// refusal even where the call would be granted if nobody waited.
func nextSemaphore(s state, in request, out response) (state, bool) {
	all := holdersIn(s)
	mine, holds := all[in.who]
	switch in.verb {
	case "restart":
		return state{last: s.last}, true
	case "get":
		if out.unknown || out.status == 404 {
			return s, out.unknown || len(all) == 0
		}
		seen := strings.Fields(out.who) // owner:token
		last := s.last
		for _, part := range seen {
			owner, number, _ := strings.Cut(part, ":")
			h, ok := all[owner]
			if !ok || h.token != 0 && fmt.Sprint(h.token) != number {
				return s, false
			}
			if _, err := fmt.Sscan(number, &h.token); err != nil {
				return s, false
			}
			all[owner], last = h, max(last, h.token)
		}
		return holding(all, last), len(seen) == len(all)
	case "unlock":
		if !holds && len(all) > 0 {
			return s, !out.unknown && out.status == 409
		}
		delete(all, in.who)
		return holding(all, s.last), out.unknown || out.status == 204
	}
	if holds {
		same := mine.limit == in.n
		if !same || out.unknown || out.status == 409 {
			return s, out.unknown || !same && out.status == 409
		}
		ok := out.status == 200 && (out.n == mine.token || mine.token == 0)
		all[in.who] = holderIn{mine.limit, out.n}
		return holding(all, max(s.last, out.n)), ok
	}
	allowed := in.n
	for _, h := range all {
		allowed = min(allowed, h.limit)
	}
	if !out.unknown && out.status == 409 {
		return s, len(all) > 0
	}
	if int64(len(all)) >= allowed {
		return s, false
	}
	all[in.who] = holderIn{in.n, out.n}
	return holding(all, max(s.last, out.n)), out.unknown || out.status == 200 && out.n > s.last
}
