package db

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is a simple database made of maps, and the real database that has to agree with it.
type model struct {
	modelDB

	numbers map[Key]int64 // sequences and counters: their accounts differ
	locks   map[Key]modelHold
	token   int64 // the last
}

// modelHold is a held lock. Its end is in database time.
type modelHold struct {
	owner string
	token int64
	end   int64
}

func (m *model) open(t *rapid.T) {
	m.modelDB.open(t)
	m.compare(t)
}

// held returns who has a lock now.
func (m *model) held(k Key) (h modelHold, ok bool) {
	h, ok = m.locks[k]
	return h, ok && h.end > m.now()
}

func (m *model) compare(t *rapid.T) {
	for k, want := range m.numbers {
		got, err := m.number(k)
		if err != nil || got != want {
			t.Fatalf("%v is %d, %v; want %d", k, got, err, want)
		}
	}
	_, wall := m.clock.read()
	locks := 0
	for k := range m.locks {
		got, err := m.d.LockHolder(k)
		h, ok := m.held(k)
		if !ok {
			if !errors.Is(err, ErrNotFound) {
				t.Fatalf("%v is free, but its holder is %+v, %v", k, got, err)
			}
			continue
		}
		locks++
		want := Holder{Owner: h.owner, Token: h.token, TTL: time.Duration(h.end - m.now()), Expires: time.Unix(0, wall+h.end-m.now())}
		if err != nil || got != want {
			t.Fatalf("the holder of %v is %+v, %v; want %+v", k, got, err, want)
		}
	}
	// The expiry of a hold may have to wait until a segment is ready.
	for end := time.Now().Add(30 * time.Second); ; {
		used := 0
		for _, c := range m.d.Stats().Tables.Classes {
			used += int(c.Used)
		}
		if used == len(m.numbers)+locks {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d slots are in use; want %d numbers and %d locks", used, len(m.numbers), locks)
		}
		if _, err := m.d.LockHolder(Key{"lock", "none"}); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
}

func (m *model) number(k Key) (int64, error) {
	if k.Acc == "sequence" {
		return m.d.Sequence(k)
	}
	return m.d.Counter(k)
}

// key draws a key whose slot may be of any size.
func (m *model) key(t *rapid.T, acc string) Key {
	n := rapid.IntRange(0, 30).Draw(t, "key")
	return Key{acc, fmt.Sprint(n, strings.Repeat("x", []int{0, 60, 150, 240}[n%4]))}
}

func isConflict(err error) bool {
	var c *ConflictError
	return errors.As(err, &c)
}

func isHeld(err error) bool {
	var h *HeldError
	return errors.As(err, &h)
}

func (m *model) addSequence(t *rapid.T) {
	k := m.key(t, "sequence")
	n := rapid.SampledFrom([]int64{1, 1, 2, MaxBlock}).Draw(t, "n")
	got, err := m.d.AddSequence(k, n)
	if err != nil || got != m.numbers[k]+n {
		t.Fatalf("%d more than %d is %d, %v", n, m.numbers[k], got, err)
	}
	m.numbers[k] = got
}

func (m *model) addCounter(t *rapid.T) {
	k := m.key(t, "counter")
	n := rapid.OneOf(rapid.Int64Range(-5, 5), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, 0})).Draw(t, "n")
	low := rapid.SampledFrom([]int64{math.MinInt64, -3, 0}).Draw(t, "min")
	high := rapid.SampledFrom([]int64{math.MaxInt64, 3, 0}).Draw(t, "max")
	cur := m.numbers[k]
	sum := cur + n
	overflows := n > 0 && sum < cur || n < 0 && sum > cur
	got, err := m.d.AddCounter(k, n, low, high)
	if overflows || sum < low || sum > high {
		if !isConflict(err) {
			t.Fatalf("%d and %d within %d to %d is %d, %v; want a conflict", cur, n, low, high, got, err)
		}
		return
	}
	if err != nil || got != sum {
		t.Fatalf("%d and %d is %d, %v", cur, n, got, err)
	}
	m.numbers[k] = got
}

func (m *model) reset(t *rapid.T) {
	k := m.key(t, rapid.SampledFrom([]string{"sequence", "counter"}).Draw(t, "kind"))
	reset := m.d.ResetCounter
	if k.Acc == "sequence" {
		reset = m.d.ResetSequence
	}
	if err := reset(k); err != nil {
		t.Fatal(err)
	}
	delete(m.numbers, k)
	if v, err := m.number(k); !errors.Is(err, ErrNotFound) {
		t.Fatalf("%v is %d, %v after a reset", k, v, err)
	}
}

func (m *model) owner(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "me", "you", strings.Repeat("o", MaxOwner)}).Draw(t, "owner")
}

// someToken draws the holder's token, another one, or none.
func (m *model) someToken(t *rapid.T, h modelHold) int64 {
	return rapid.SampledFrom([]int64{0, 0, h.token, h.token + 1}).Draw(t, "token")
}

func (m *model) lock(t *rapid.T) {
	k := m.key(t, "lock")
	h, held := m.held(k)
	r := LockRequest{Key: k, Owner: m.owner(t), Token: m.someToken(t, h), Dur: time.Duration(rapid.IntRange(1, 100).Draw(t, "dur")) * time.Second}
	token, err := m.d.Lock(context.Background(), r)
	next := modelHold{owner: r.Owner, token: token, end: m.now() + int64(r.Dur)}
	switch {
	case held && (r.Token == h.token || r.Token == 0 && r.Owner != "" && r.Owner == h.owner):
		if err != nil || token != h.token {
			t.Fatalf("renewing %+v with %+v: %d, %v", h, r, token, err)
		}
		next.owner = h.owner
	case held || r.Token != 0:
		if !isHeld(err) {
			t.Fatalf("%+v is held, or was asked for by token: %+v gets %d, %v", h, r, token, err)
		}
		return
	default:
		if err != nil || token <= m.token {
			t.Fatalf("%+v gets %d, %v; the last token was %d", r, token, err, m.token)
		}
		m.token = token
	}
	m.locks[k] = next
	m.give()
}

func (m *model) unlock(t *rapid.T) {
	k := m.key(t, "lock")
	h, held := m.held(k)
	r := UnlockRequest{Key: k, Owner: m.owner(t), Token: m.someToken(t, h), Force: rapid.Bool().Draw(t, "force")}
	err := m.d.Unlock(r)
	its := r.Token == h.token && (r.Owner == "" || r.Owner == h.owner) || r.Token == 0 && r.Owner == h.owner
	if held && !r.Force && !its {
		if !isHeld(err) {
			t.Fatalf("unlocking %+v with %+v: %v", h, r, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("unlocking %+v (held %t) with %+v: %v", h, held, r, err)
	}
	delete(m.locks, k)
}

// end ends the process: cleanly, by a kill, or by a power cut.
func (m *model) end(t *rapid.T) {
	// Whatever has expired stays expired, however the wall clock is stepped.
	m.compare(t)
	for k := range m.locks {
		if _, ok := m.held(k); !ok {
			delete(m.locks, k)
		}
	}
	m.modelDB.end(t)
}

func TestDatabaseIsAsMapsOverRestartsAndCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{modelDB: newModelDB(), numbers: map[Key]int64{}, locks: map[Key]modelHold{}}
		m.open(t)
		defer func() {
			if m.d != nil {
				m.close(t)
			}
		}()
		actions := map[string]func(*rapid.T){
			"add to a sequence":     m.addSequence,
			"add to a sequence too": m.addSequence,
			"add to a counter":      m.addCounter,
			"add to a counter too":  m.addCounter,
			"reset":                 m.reset,
			"lock":                  m.lock,
			"lock too":              m.lock,
			"unlock":                m.unlock,
			"let time go by":        m.pass,
			"step the wall clock":   m.step,
			"compare":               m.compare,
			"restart": func(t *rapid.T) {
				m.end(t)
				m.down(t)
				m.open(t)
			},
		}
		lives := 4 // each as long as rapid makes one
		if underRace {
			lives = 1
		}
		for range lives {
			t.Repeat(actions)
		}
		m.compare(t)
	})
}
