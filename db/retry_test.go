package db

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"clouddragon/internal/test/golden"
	"clouddragon/internal/test/memdisk"
)

// keyed is a write with a retry key, whose answer is made by result.
func keyed(acc, key, request string, op Operation, result func() string) *Retry {
	return &Retry{
		Acc: acc, Key: key, Request: sha256.Sum256([]byte(request)), Keep: time.Hour, Op: op,
		Answer: func() ([]byte, error) { return []byte(result()), nil },
	}
}

// addOnce adds to a counter with a retry key and returns the answer.
func addOnce(d *DB, k Key, n int64, key string) (answer string, replayed bool, err error) {
	op := &CounterAdd{Key: k, Add: n, Min: -1000, Max: 1000}
	said := ""
	r := keyed(k.Acc, key, fmt.Sprint(k, n), op, func() string {
		said = fmt.Sprint("it is ", op.Value)
		return said
	})
	err = d.Do(r)
	if r.Replayed {
		said = string(r.Kept)
	}
	return said, r.Replayed, err
}

func TestAWriteWithAKeyIsDoneOnce(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	k := Key{"a", "c"}
	want := func(what string, key string, n int64, answer string, replays bool) {
		t.Helper()
		if got, replayed, err := addOnce(d, k, n, key); err != nil || got != answer || replayed != replays {
			t.Errorf("%s: %q, replayed %t, %v; want %q, %t", what, got, replayed, err, answer, replays)
		}
	}
	want("first", "one", 1, "it is 1", false)
	want("again", "one", 1, "it is 1", true)
	want("another key", "two", 1, "it is 2", false)
	want("the first again", "one", 1, "it is 1", true)
	if _, _, err := addOnce(d, k, 5, "one"); !errors.Is(err, ErrOtherRequest) {
		t.Errorf("the key with another request: %v", err)
	}
	k.Acc = "b"
	want("the key in another account", "one", 7, "it is 7", false)
	k.Acc = "a"
	if _, _, err := addOnce(d, k, 1000, "three"); !isConflict(err) {
		t.Errorf("a refusal: %v", err)
	}
	wantDone(t, "reset", d.ResetCounter(k))
	want("what was refused before", "three", 1000, "it is 1000", false)
	want("of a thing that has changed", "two", 1, "it is 2", true)

	d = openAgain(t, d, &o)
	want("after a restart", "one", 1, "it is 1", true)
	clock.pass(time.Hour - 1)
	want("shortly before its end", "one", 1, "it is 1", true)
	clock.pass(1)
	wantDone(t, "reset", d.ResetCounter(k))
	want("after its end", "one", 1, "it is 1", false)
	if s := d.Stats().Retries; s != (RetryStats{Kept: 1, Replayed: 2}) {
		t.Errorf("counted %+v", s)
	}
	mustClose(t, d)
}

// Two calls with one key that are decided in one batch are one write, and so are two at
// different times.
func TestTwoWithOneKeyAtOnceAreOneWrite(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	k := Key{"a", "c"}
	for round := range 30 {
		var wg sync.WaitGroup
		var mu sync.Mutex // guards what follows
		firsts, answers := 0, map[string]bool{}
		for range 10 {
			wg.Go(func() {
				answer, replayed, err := addOnce(d, k, 1, fmt.Sprint("key", round))
				mu.Lock()
				defer mu.Unlock()
				if answers[answer] = true; err != nil {
					t.Error(err)
				}
				if !replayed {
					firsts++
				}
			})
		}
		wg.Wait()
		if v, err := d.Counter(k); firsts != 1 || len(answers) != 1 || v != int64(round+1) || err != nil {
			t.Fatalf("%d did it, %d answers, and the counter is %d, %v; want %d", firsts, len(answers), v, err, round+1)
		}
	}
	mustClose(t, d)
}

// An answer is replayed even if Op would now be refused before it is decided.
func TestReplayNeedsNothingOfTheThing(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	k, anything := Key{"a", "v"}, Conditions{Check: AnyVersion}
	wantDone(t, "set", d.Do(&ValueSet{Key: k, Data: make([]byte, 1000), Conditions: anything}))
	budget := int64(2000)
	again := func() *Retry {
		return keyed("a", "key", "ttl", &ValueTTL{Key: k, Conditions: anything, Budget: &budget}, func() string { return "done" })
	}
	wantDone(t, "a new end", d.Do(again()))
	r := again()
	wantDone(t, "with no budget left", d.Do(r))
	if !r.Replayed || string(r.Kept) != "done" {
		t.Errorf("%q, replayed %t", r.Kept, r.Replayed)
	}
	mustClose(t, d)
}

// The answer of a batch that is not atomic is kept whole, with its refusals.
func TestABatchIsKeptWhole(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	k := Key{"a", "c"}
	run := func(atomic bool, key string) (*Retry, error) {
		b := &Batch{Atomic: atomic, Ops: []Operation{
			&CounterAdd{Key: k, Add: 1, Min: 0, Max: 100}, &CounterAdd{Key: k, Add: -50, Min: 0, Max: 100}, &CounterAdd{Key: k, Add: 1, Min: 0, Max: 100},
		}}
		r := keyed("a", key, "batch", b, func() string { return strings.Repeat(fmt.Sprint(b.Errs[0], b.Errs[1], b.Errs[2], "\n"), 50) })
		return r, d.Do(r)
	}
	if _, err := run(true, "atomic"); !isConflict(err) {
		t.Errorf("an atomic batch that is refused: %v", err)
	}
	if _, err := d.Counter(k); !errors.Is(err, ErrNotFound) {
		t.Errorf("it left a counter: %v", err)
	}
	_, err := run(false, "each")
	wantDone(t, "a batch", err)
	r, err := run(false, "each")
	wantDone(t, "the batch again", err)
	if v, _ := d.Counter(k); v != 2 || !r.Replayed || len(r.Kept) < 2000 {
		t.Errorf("the counter is %d, replayed %t, %d bytes", v, r.Replayed, len(r.Kept))
	}
	mustClose(t, d)
}

// An answer that cannot be encoded undoes the write.
func TestAnAnswerThatCannotBeSaidUndoesTheWrite(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	r := keyed("a", "key", "", &CounterAdd{Key: Key{"a", "c"}, Add: 1, Min: math.MinInt64, Max: math.MaxInt64}, nil)
	fault := errors.New("cannot be said")
	r.Answer = func() ([]byte, error) { return nil, fault }
	if err := d.Do(r); !errors.Is(err, fault) {
		t.Errorf("%v", err)
	}
	if _, err := d.Counter(Key{"a", "c"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("it was done: %v", err)
	}
	mustClose(t, d)
}

func TestRetryRecordIsAlwaysTheseBytes(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	d := mustOpen(t, tiny(fs, clock))
	if got, want := retryID("key"), "\x00"+string(golden.Unhex("2c70e12b7a0646f92279f427c7b38e73")); got != want {
		t.Errorf("the id is %x, want %x", got, want)
	}
	_, _, err := addOnce(d, Key{"a", "c"}, 1, "key")
	wantDone(t, "add", err)
	v, err := d.Get(Key{"a", retryID("key")})
	wantDone(t, "get", err)
	sum := sha256.Sum256([]byte("{a c} 1"))
	if string(v.Data) != string(sum[:])+"it is 1" || v.Left != time.Hour {
		t.Errorf("kept is %x for %v", v.Data, v.Left)
	}
	mustClose(t, d)
}

// retryModel is the expected state of counters whose adds all have a key.
type retryModel struct {
	modelDB
	counters map[Key]int64
	kept     map[string]keptAnswer
}

type keptAnswer struct {
	key     Key
	n       int64
	answer  string
	expires int64
}

func (m *retryModel) add(t *rapid.T) {
	k := Key{"a", rapid.SampledFrom([]string{"x", "y"}).Draw(t, "counter")}
	key := fmt.Sprint("key", rapid.IntRange(0, 9).Draw(t, "key"))
	n := int64(rapid.IntRange(-400, 400).Draw(t, "n"))
	was, isKept := m.kept[key]
	isKept = isKept && was.expires > m.now()
	if isKept && rapid.IntRange(0, 3).Draw(t, "same") > 0 {
		k, n = was.key, was.n
	}
	answer, replayed, err := addOnce(m.d, k, n, key)
	sum := m.counters[k] + n
	switch {
	case isKept && (was.key != k || was.n != n):
		if !errors.Is(err, ErrOtherRequest) {
			t.Fatalf("%s stood for %+v, and %v %d is %q, %v", key, was, k, n, answer, err)
		}
	case isKept:
		if err != nil || !replayed || answer != was.answer {
			t.Fatalf("%s: %q, replayed %t, %v; want %q", key, answer, replayed, err, was.answer)
		}
	case sum < -1000 || sum > 1000:
		if !isConflict(err) {
			t.Fatalf("%d and %d: %q, %v", m.counters[k], n, answer, err)
		}
	default:
		want := fmt.Sprint("it is ", sum)
		if err != nil || replayed || answer != want {
			t.Fatalf("%s: %q, replayed %t, %v; want %q", key, answer, replayed, err, want)
		}
		m.give()
		m.counters[k] = sum
		m.kept[key] = keptAnswer{k, n, answer, m.now() + int64(time.Hour)}
	}
	if v, err := m.d.Counter(k); v != m.counters[k] || err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatalf("%v is %d, %v; want %d", k, v, err, m.counters[k])
	}
}

func (m *retryModel) compact(t *rapid.T) {
	if err := m.d.store.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	m.d.store.Compact()
}

func (m *retryModel) restart(t *rapid.T) {
	for key, was := range m.kept { // what has expired stays expired
		if was.expires <= m.now() {
			delete(m.kept, key)
		}
	}
	m.end(t)
	m.down(t)
	m.open(t)
}

func TestKeysAreAsInAMapOverRestartsAndCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &retryModel{modelDB: newModelDB(), counters: map[Key]int64{}, kept: map[string]keptAnswer{}}
		m.open(t)
		defer func() {
			if m.d != nil {
				m.close(t)
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"add": m.add, "add too": m.add, "add as well": m.add,
			"hour":    func(t *rapid.T) { m.clock.pass(25 * time.Minute) },
			"step":    m.step,
			"compact": m.compact,
			"restart": m.restart,
		})
	})
}
