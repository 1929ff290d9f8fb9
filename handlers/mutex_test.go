package handlers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	mlock   = "/db/1/mlock/a"
	munlock = "/db/1/munlock/a"
)

// listing is the answer to a GET: a holder, with the lists of holders and waiters.
type listing struct {
	holding
	Holders *[]holding
	Queue   *[]struct {
		ID     *string
		Waited float64
	}
}

// listed returns who has a mutex and who waits for it.
func (r *rig) listed(target string) listing {
	r.t.Helper()
	a := r.want(200, "*", "GET", target)
	var l listing
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil || l.ID == nil || a.header.Get("Content-Type") != "application/json" {
		r.t.Fatalf("%v: %v", a, err)
	}
	return l
}

// waitFor starts a request and returns once the given number of callers wait for the mutex.
func (r *rig) waitFor(target string, n int) *bufio.Reader {
	r.t.Helper()
	_, b := r.start(request("POST", target, ""))
	for began := time.Now(); r.listed(mlock).Waiters != n; {
		if time.Since(began) > 20*time.Second {
			r.t.Fatalf("there are not %d waiters", n)
		}
	}
	return b
}

func TestHoldersAndQueueOfAMutexAreListed(t *testing.T) {
	r := newRig(t, nil)
	r.refused(404, `mlock "a" of account "1" is not locked`, "GET", mlock)
	one := r.granted(r.do("POST", mlock+"?id=ann&limit=2&dur=100"))
	l := r.listed(mlock)
	if *l.ID != "ann" || l.Token != one || l.TTL > 100 || l.TTL < 80 || l.Waiters != 0 || l.Holders != nil || l.Queue != nil {
		t.Errorf("one holder: %+v", l)
	}
	two := r.granted(r.do("POST", mlock+"?limit=2&dur=200"))
	l = r.listed(mlock)
	if l.Token != one || l.Holders == nil || len(*l.Holders) != 2 || l.Queue == nil || len(*l.Queue) != 0 {
		t.Fatalf("two holders: %+v", l)
	}
	if h := (*l.Holders)[1]; (*l.Holders)[0].Token != one || *h.ID != "" || h.Token != two || h.TTL < 180 {
		t.Errorf("two holders: %+v", *l.Holders)
	}
	b := r.waitFor(mlock+"?id=bob&wait=1m", 1)
	r.waitFor(mlock+"?wait=1m&shared=true", 2)
	r.want(204, "", "POST", fmt.Sprintf("%s?token=%d", munlock, two))
	l = r.listed(mlock)
	if l.Waiters != 2 || len(*l.Holders) != 1 || len(*l.Queue) != 2 {
		t.Fatalf("one holder and two waiters: %+v", l)
	}
	if q := *l.Queue; *q[0].ID != "bob" || q[0].Waited < 0 || q[0].Waited > 20 || *q[1].ID != "" {
		t.Errorf("the queue is %+v", q)
	}
	if h := r.holder(fmt.Sprintf("%s?token=%d", mlock, one)); h.Token != one || *h.ID != "ann" {
		t.Errorf("the holder is %+v", h)
	}
	r.held(r.do("GET", fmt.Sprintf("%s?token=%d", mlock, two)), "ann", 100*time.Second)
	a := r.refused(409, "token 9999 does not hold mutex", "GET", "/db/1/mlock/free?token=9999")
	if a.header.Get("Lock-Expires") != "" {
		t.Errorf("a free mutex is held: %v", a)
	}
	r.want(204, "", "POST", munlock+"?force=true")
	r.granted(r.read(b, "POST"))
}

func TestSemaphoreReadersAndWriters(t *testing.T) {
	r := newRig(t, nil)
	var tokens []int64
	for range 3 {
		tokens = append(tokens, r.granted(r.do("POST", mlock+"?limit=3")))
	}
	r.held(r.do("POST", mlock+"?limit=3&wait=0"), "", 30*time.Second)
	r.checkRefusal(r.do("POST", munlock), 409, "has several holders without an id: give the token=", "an ambiguous unlock")
	for _, token := range tokens {
		r.want(204, "", "POST", fmt.Sprintf("%s?token=%d", munlock, token))
	}
	r.refused(404, "is not locked", "GET", mlock)
	for _, id := range []string{"r1", "r2", "r3"} {
		r.granted(r.do("POST", mlock+"?shared=true&id="+id))
	}
	r.checkRefusal(r.do("POST", mlock+"?id=r1"), 409, `id="r1" holds mutex "a" with another limit= or shared=`, "another mode")
	w := r.waitFor(mlock+"?id=w&wait=1m", 1)
	r.held(r.do("POST", mlock+"?shared=true&id=r4&wait=0"), "r1", 30*time.Second)
	again := r.waitFor(mlock+"?id=w&wait=1m", 1) // the same place
	r.checkRefusal(r.do("POST", mlock+"?id=w&shared=true"), 409, `id="w" waits for mutex "a" with another limit= or shared=`, "another mode")
	r.want(204, "", "POST", munlock+"?force=true")
	if one, two := r.granted(r.read(w, "POST")), r.granted(r.read(again, "POST")); one != two {
		t.Errorf("a retry got token %d, its first call %d", two, one)
	}
	if l := r.listed(mlock); *l.ID != "w" || l.Holders != nil {
		t.Errorf("held by %+v", l)
	}
}

func TestMutexStaysHeldForItsLeastTime(t *testing.T) {
	r := newRig(t, nil)
	token := r.granted(r.do("POST", mlock+"?id=job&least=10m"))
	r.want(204, "", "POST", munlock+"?id=job")
	r.want(204, "", "POST", munlock+"?id=job") // a retry
	r.held(r.do("POST", mlock+"?id=job&wait=0"), "job", 10*time.Minute)
	r.held(r.do("POST", fmt.Sprintf("%s?token=%d", mlock, token)), "job", 10*time.Minute)
	r.checkRefusal(r.do("GET", fmt.Sprintf("%s?token=%d", mlock, token)), 409, "stays held for its least time", "a token at rest")
	r.held(r.do("POST", munlock+"?id=other"), "job", 10*time.Minute)
	if h := r.holder(mlock); h.TTL > 600 || h.TTL < 580 {
		t.Errorf("held by %+v", h)
	}
	r.want(204, "", "POST", munlock+"?force=true")
	r.granted(r.do("POST", mlock+"?id=job&wait=0"))
}
