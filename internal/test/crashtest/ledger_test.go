package crashtest

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestLedgerKnowsABrokenPromise keeps a ledger of broken promises.
func TestLedgerKnowsABrokenPromise(t *testing.T) {
	sequence := func(l *ledger, o outcome, last int64) {
		e := l.beginSequence("s", 1)
		l.endSequence("s", 1, e, o, last)
	}
	set := func(l *ledger, data string, o outcome, version int64) {
		e, _ := l.beginValue("v")
		l.endSet("v", data, e, o, version)
	}
	remove := func(l *ledger, o outcome) {
		e, _ := l.beginValue("v")
		l.endDelete("v", e, o, false)
	}
	lock := func(l *ledger, owner string, o outcome, token int64) *hold {
		return l.endLock("lock", "l", owner, time.Hour, l.beginLock(), o, token)
	}
	unlock := func(l *ledger, h *hold) { l.endUnlock(h, true, l.beginUnlock(h), done) }
	keyed := func(l *ledger, o outcome, last string) *keyedCall {
		c := &keyedCall{key: "k" + last, target: keyedSequence, n: 1}
		l.endKeyed(c, l.beginKeyed(c), o, last+"\n")
		return c
	}
	move := func(l *ledger, o outcome, n int64) {
		c := &keyedCall{key: fmt.Sprint("move-", n), target: keyedBatch, n: 5}
		l.endKeyed(c, l.beginKeyed(c), o, fmt.Sprintf("200 5\n200 -5\n200 %d\n200 9\n", n))
	}
	again := func(l *ledger, c *keyedCall, body, replayed string) {
		l.repeated(c, answer{status: 200, header: http.Header{"Idempotency-Replayed": {replayed}}, body: body})
	}
	is := func(owner string, token int64) holder {
		return holder{ID: owner, Token: token, Expires: time.Now().Add(time.Hour)}
	}
	for _, c := range []struct {
		name   string
		broken bool
		play   func(*ledger)
	}{
		{"all is there", false, func(l *ledger) { sequence(l, done, 1); l.recoveredSequence("s", 1) }},
		{"a lost add is there", false, func(l *ledger) { sequence(l, done, 1); sequence(l, lost, 0); l.recoveredSequence("s", 2) }},
		{"a lost add is not there", false, func(l *ledger) { sequence(l, done, 1); sequence(l, lost, 0); l.recoveredSequence("s", 1) }},
		{"an acknowledged add is lost", true, func(l *ledger) { sequence(l, done, 1); sequence(l, done, 2); l.recoveredSequence("s", 1) }},
		{"a value nobody asked for", true, func(l *ledger) { sequence(l, done, 1); l.recoveredSequence("s", 2) }},
		{"a refused add is there", true, func(l *ledger) { sequence(l, refused, 0); l.recoveredSequence("s", 1) }},
		{"a value twice", true, func(l *ledger) { sequence(l, done, 1); sequence(l, done, 1); l.recoveredSequence("s", 2) }},
		{"a value again after a restart", true, func(l *ledger) { sequence(l, done, 1); l.recoveredSequence("s", 1); sequence(l, done, 1) }},
		{"what was read is lost", true, func(l *ledger) { sequence(l, lost, 0); l.endRead("s", 0, 1); l.recoveredSequence("s", 0) }},
		{"a stale read", true, func(l *ledger) { sequence(l, done, 1); l.endRead("s", l.beginRead("s"), 0) }},
		{"a counter without an add", true, func(l *ledger) { l.endCounter("c", 3, false, l.beginCounter(), done); l.recoveredCounter("c", 0, 0) }},
		{"a lost subtraction", false, func(l *ledger) { l.endCounter("c", 3, true, l.beginCounter(), lost); l.recoveredCounter("c", -8, 0) }},
		{"half of a lost add", true, func(l *ledger) { l.endCounter("c", 3, false, l.beginCounter(), lost); l.recoveredCounter("c", 4, 0) }},
		{"beyond its bound", true, func(l *ledger) {
			l.endCounter("c", 9, false, l.beginCounter(), done)
			l.recoveredCounter("c", 512, 100)
		}},
		{"a value is there", false, func(l *ledger) { set(l, "a", done, 1); l.recoveredValue("v", 1, "a") }},
		{"a value is lost", true, func(l *ledger) { set(l, "a", done, 1); l.recoveredValue("v", 0, "") }},
		{"a value before the last", true, func(l *ledger) { set(l, "a", done, 1); set(l, "b", done, 2); l.recoveredValue("v", 1, "a") }},
		{"another's bytes", true, func(l *ledger) { set(l, "a", done, 1); l.recoveredValue("v", 1, "b") }},
		{"a deleted value is back", true, func(l *ledger) { set(l, "a", done, 1); remove(l, done); l.recoveredValue("v", 1, "a") }},
		{"a lost delete was done", false, func(l *ledger) { set(l, "a", done, 1); remove(l, lost); l.recoveredValue("v", 0, "") }},
		{"a lost delete before the value", false, func(l *ledger) { remove(l, lost); set(l, "a", done, 1); l.recoveredValue("v", 0, "") }},
		{"a delete that had ended before the value", true, func(l *ledger) { remove(l, done); set(l, "a", done, 1); l.recoveredValue("v", 0, "") }},
		{"a lost value with an old version", true, func(l *ledger) { set(l, "a", done, 5); l.round(0); set(l, "b", lost, 0); l.recoveredValue("v", 5, "b") }},
		{"a version twice", true, func(l *ledger) { set(l, "a", done, 5); set(l, "b", done, 5) }},
		{"a version goes back over a restart", true, func(l *ledger) { set(l, "a", done, 5); l.round(0); set(l, "b", done, 4) }},
		{"a lock is held on", false, func(l *ledger) { lock(l, "a", done, 1); l.recoveredLock("l", time.Now(), is("a", 1)) }},
		{"a lock is lost", true, func(l *ledger) { lock(l, "a", done, 1); l.recoveredLock("l", time.Now(), holder{}) }},
		{"a freed lock is back", true, func(l *ledger) { unlock(l, lock(l, "a", done, 1)); l.recoveredLock("l", time.Now(), is("a", 1)) }},
		{"a lost grant is there", false, func(l *ledger) { lock(l, "a", lost, 0); l.recoveredLock("l", time.Now(), is("a", 1)) }},
		{"a holder nobody knows", true, func(l *ledger) { lock(l, "a", lost, 0); l.recoveredLock("l", time.Now(), is("b", 1)) }},
		{"a lock ends too early", true, func(l *ledger) {
			lock(l, "a", done, 1)
			l.recoveredLock("l", time.Now(), holder{ID: "a", Token: 1, Expires: time.Now().Add(time.Minute)})
		}},
		{"two holders", true, func(l *ledger) {
			lock(l, "a", done, 1)
			lock(l, "b", done, 2)
			l.recoveredLock("l", time.Now(), is("b", 2))
		}},
		{"one after the other", false, func(l *ledger) {
			unlock(l, lock(l, "a", done, 1))
			lock(l, "b", done, 2)
			l.recoveredLock("l", time.Now(), is("b", 2))
		}},
		{"a token goes back", true, func(l *ledger) { unlock(l, lock(l, "a", done, 2)); lock(l, "b", done, 1) }},
		{"a token twice over a restart", true, func(l *ledger) { unlock(l, lock(l, "a", done, 2)); l.round(0); lock(l, "b", done, 2) }},
		{"a key is replayed", false, func(l *ledger) { again(l, keyed(l, done, "1"), "1\n", "true"); l.recoveredKeyed(1) }},
		{"a lost key is done again", false, func(l *ledger) { again(l, keyed(l, lost, ""), "1\n", ""); l.recoveredKeyed(1) }},
		{"a key is done twice", true, func(l *ledger) { again(l, keyed(l, done, "1"), "2\n", ""); l.recoveredKeyed(2) }},
		{"a lost key was done, and is done again", true, func(l *ledger) { again(l, keyed(l, lost, ""), "2\n", ""); l.recoveredKeyed(2) }},
		{"two keys have one value", true, func(l *ledger) { keyed(l, done, "1"); again(l, keyed(l, lost, ""), "1\n", "") }},
		{"a batch is whole", false, func(l *ledger) { move(l, done, 1); l.recoveredMoves(moved{5, -5, 1, "move-1"}, true) }},
		{"a batch is in parts", true, func(l *ledger) { move(l, lost, 1); l.recoveredMoves(moved{5, 0, 1, "move-1"}, false) }},
		{"a batch is lost", true, func(l *ledger) { move(l, done, 1); l.recoveredMoves(moved{}, false) }},
		{"a batch without its value", true, func(l *ledger) { move(l, done, 1); l.recoveredMoves(moved{5, -5, 1, ""}, true) }},
		{"acknowledged without power", true, func(l *ledger) { l.wasCut(); sequence(l, done, 1) }},
		{"acknowledged as the power goes", false, func(l *ledger) { e := l.beginSequence("s", 1); l.wasCut(); l.endSequence("s", 1, e, done, 1) }},
	} {
		l := newLedger()
		l.round(0)
		c.play(l)
		if got := l.broken(); (len(got) > 0) != c.broken {
			t.Errorf("%s: found %q", c.name, got)
		}
	}
}
