package crashtest

import (
	"math"
	"strconv"
	"strings"

	"github.com/anishathalye/porcupine"
)

// request is one call on one thing, as the models know it.
type request struct {
	verb     string
	n        int64 // what is added, or the version asked for
	min, max int64
	who      string // the owner, or what is stored
}

// response is its answer. An unknown one may have been done or not.
type response struct {
	unknown bool
	status  int
	n       int64  // the value, the version or the token
	who     string // the owner, or what is stored
}

// state is the state of a thing. The server chooses tokens and versions: a model learns each
// from its answer, and knows only that it is above the earlier ones.
type state struct {
	there bool
	n     int64 // 0: not known yet, for a version or a token
	who   string
	last  int64 // the highest token or version known
}

// model makes a model of one thing from a function for its calls: next reports whether an
// answer is possible and returns the new state.
func model(next func(s state, in request, out response) (state, bool)) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{state{}} },
		Step: func(s, in, out any) []any {
			answer := out.(response)
			after, ok := next(s.(state), in.(request), answer)
			switch {
			case answer.unknown && ok && after != s:
				return []any{s, after}
			case answer.unknown:
				return []any{s}
			case !ok:
				return nil
			}
			return []any{after}
		},
		Hash: func(s any) uint64 {
			x := s.(state)
			h := uint64(x.n)*31 + uint64(x.last)
			for i := range len(x.who) {
				h = h*31 + uint64(x.who[i])
			}
			return h
		},
	}
	return m.ToModel()
}

var models = map[string]porcupine.Model{
	"sequence": model(nextNumber), "counter": model(nextNumber), "kv": model(nextValue), "lock": model(nextLock), "mlock": model(nextLock),
	"semaphore": model(nextSemaphore), "batch": model(nextPair),
}

// modelOf returns the model of a thing by its path.
func modelOf(target string) porcupine.Model {
	if strings.Contains(target, "/semaphore") {
		return models["semaphore"]
	}
	return models[apiOf(target)]
}

// nextNumber is a sequence or a counter.
func nextNumber(s state, in request, out response) (state, bool) {
	switch in.verb {
	case "get":
		return s, out.unknown || (out.status == 200) == s.there && out.n == s.n
	case "delete":
		return state{}, out.unknown || out.status == 204
	}
	sum := s.n + in.n
	if sum < in.min || sum > in.max {
		return s, !out.unknown && out.status == 409
	}
	return state{there: true, n: sum}, out.unknown || out.status == 200 && out.n == sum
}

// nextPair is two counters. The second one is in the field last. A batch moves an amount from
// the second to the first, or reads both. A single call reads the first or adds to the second.
func nextPair(s state, in request, out response) (state, bool) {
	switch in.verb {
	case "both":
		return s, out.unknown || out.status == 200 && out.n == s.n && out.who == strconv.FormatInt(s.last, 10)
	case "get":
		return s, out.unknown || (out.status == 200 || s.n == 0) && out.n == s.n
	case "add":
		s.last += in.n
		return s, out.unknown || out.status == 200 && out.n == s.last
	}
	sum := s.n + in.n
	if sum < in.min || sum > in.max {
		return s, !out.unknown && out.status == 409
	}
	s.n, s.last = sum, s.last-in.n
	return s, out.unknown || out.status == 200 && out.n == s.n && out.who == strconv.FormatInt(s.last, 10)
}

// nextValue is a value. No two stored values are the same.
func nextValue(s state, in request, out response) (state, bool) {
	matches := in.n < 0 || in.n == 0 && !s.there || in.n > 0 && s.there && s.n == in.n
	switch in.verb {
	case "get":
		if out.unknown || out.status == 404 {
			return s, out.unknown || !s.there
		}
		ok := s.there && s.who == out.who && (s.n == out.n || s.n == 0 && out.n > s.last)
		return state{there: true, n: out.n, who: s.who, last: max(s.last, out.n)}, ok
	case "delete":
		if !matches {
			return s, !out.unknown && out.status == 409
		}
		return state{last: s.last}, out.unknown || out.status == 204
	}
	if !matches {
		return s, !out.unknown && out.status == 409
	}
	after := state{there: true, n: out.n, who: in.who, last: max(s.last, out.n)}
	return after, out.unknown || out.status == 200 && out.n > s.last
}

// nextLock is a lock or a mutex whose holds do not expire.
func nextLock(s state, in request, out response) (state, bool) {
	switch in.verb {
	case "restart":
		return state{last: s.last}, true
	case "get":
		if out.unknown || out.status == 404 {
			return s, out.unknown || !s.there
		}
		ok := s.there && s.who == out.who && (s.n == out.n || s.n == 0 && out.n > s.last)
		return state{there: true, n: out.n, who: s.who, last: max(s.last, out.n)}, ok
	case "unlock":
		if s.there && s.who != in.who {
			return s, !out.unknown && out.status == 409
		}
		return state{last: s.last}, out.unknown || out.status == 204
	}
	switch {
	case s.there && s.who != in.who:
		return s, !out.unknown && out.status == 409
	case s.there && s.n != 0:
		return s, out.unknown || out.status == 200 && out.n == s.n
	}
	after := state{there: true, n: out.n, who: in.who, last: max(s.last, out.n)}
	return after, out.unknown || out.status == 200 && out.n > s.last
}

// unbounded are the bounds of an add that has none.
func unbounded(r request) request {
	r.min, r.max = math.MinInt64, math.MaxInt64
	return r
}

func apiOf(target string) string { return strings.Split(target, "/")[3] }
