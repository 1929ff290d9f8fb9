package handlers

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Locks on disk take the same parameters as mutexes, and list all holders and waiters.
func TestHoldersAndQueueOfALockAreListed(t *testing.T) {
	r := newRig(t, nil)
	const lock = "/db/1/lock/a"
	lists := func() (holders, queue []heldJSON, has bool) {
		a := r.want(200, "*", "GET", lock)
		var l struct {
			Holders, Queue []heldJSON
		}
		if err := json.Unmarshal([]byte(a.body), &l); err != nil {
			t.Fatal(err)
		}
		has = strings.Contains(a.body, `"holders":[`)
		if has != strings.Contains(a.body, `"queue":[`) {
			t.Errorf("one list without the other: %v", a)
		}
		return l.Holders, l.Queue, has
	}
	one := r.granted(r.do("POST", lock+"?id=ann&limit=2"))
	if _, _, has := lists(); has {
		t.Error("one holder and no waiter are listed")
	}
	two := r.granted(r.do("POST", lock+"?limit=2"))
	if h, q, _ := lists(); len(h) != 2 || len(q) != 0 || h[0].Token != one || h[1].Token != two {
		t.Errorf("the lists are %+v and %+v", h, q)
	}
	r.refused(409, "is held", "POST", lock+"?limit=2")
	r.refused(409, "another limit= or shared=", "POST", lock+"?id=ann&shared=true")
	r.refused(400, "exclude each other", "POST", lock+"?limit=2&shared=true")
	r.refused(400, "limit must be", "POST", lock+"?limit=0")
	r.refused(400, "limit must be", "POST", lock+"?limit=1000001")
	r.refused(400, "least must be", "POST", lock+"?least=25h")
	a := r.want(200, "*", "GET", fmt.Sprintf("%s?token=%d", lock, two))
	if strings.Contains(a.body, "holders") || !strings.Contains(a.body, fmt.Sprintf(`"token":%d`, two)) {
		t.Errorf("the second holder is %v", a)
	}
	r.refused(409, "does not hold", "GET", lock+"?token=999999")
	r.refused(409, "does not hold", "GET", "/db/1/lock/free?token=1")
	// One of the holders has no id, so it needs none; the other does.
	r.refused(409, "id", "DELETE", lock+"?id=bob")
	r.want(204, "", "DELETE", lock)
	r.refused(409, "with an id", "DELETE", lock)
	r.granted(r.do("POST", lock+"?limit=2"))
	r.want(204, "", "DELETE", lock+"?force=true")
	r.want(404, "*", "GET", lock)
	// Two holders without an id cannot be told apart.
	three := r.granted(r.do("POST", lock+"?shared=true"))
	r.granted(r.do("POST", lock+"?shared=true"))
	r.refused(409, "several holders without an id", "DELETE", lock)
	r.refused(409, "not by", "DELETE", fmt.Sprintf("%s?token=%d&id=ann", lock, three))
	r.want(204, "", "DELETE", fmt.Sprintf("%s?token=%d", lock, three))
	r.want(204, "", "DELETE", lock)
	// A least time outlives the unlock.
	r.granted(r.do("POST", lock+"?id=ann&least=10m"))
	r.want(204, "", "DELETE", lock+"?id=ann")
	r.want(204, "", "DELETE", lock+"?id=ann")
	r.refused(409, "least time", "POST", lock+"?id=ann")
	r.want(204, "", "DELETE", lock+"?force=true")
	r.want(404, "*", "GET", lock)
}
