package handlers

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"clouddragon/internal/replica"
)

// A server can hang between reading and answering, and be replaced meanwhile.
func TestAnswerIsAdmittedOnceMoreBeforeItIsSent(t *testing.T) {
	var asked atomic.Int64 // of the request
	var hung atomic.Bool
	r := newRig(t, func(o *Options, _ *http.Server) {
		o.Admit = func(bool, bool) error {
			if asked.Add(1) > 1 && hung.Load() {
				return &replica.LeaseError{}
			}
			return nil
		}
	})
	r.want(200, "1\n", "POST", "/db/1/sequence/s")
	r.stored(r.put("/db/1/kv/v", "value"))
	r.want(200, "*", "POST", "/db/1/lock/l?id=a")
	hung.Store(true)
	for _, c := range []struct {
		status       int
		method, path string
	}{
		{503, "GET", "/db/1/sequence/s"},
		{503, "GET", "/db/1/sequence/none"},
		{503, "GET", "/db/1/kv/v"},
		{503, "GET", "/db/1/kv/none"},
		{503, "GET", "/db/1/lock/l"},
		{503, "GET", "/db/1/sequence"},
		{503, "POST", "/db/1/mlock/m?id=a"},
		{503, "POST", "/db/1/lock/l?id=b"},      // the refusal says that the lock is held
		{503, "PUT", "/db/1/kv/v?ver=99"},       // the refusal says which version is stored
		{200, "POST", "/db/1/sequence/s"},       // the write is done, so no other server can have been elected without it
		{400, "GET", "/db/1/sequence/s?typo=1"}, // says nothing about stored data
		{200, "GET", "/healthz"}, {200, "GET", "/"},
	} {
		asked.Store(0)
		body := "*"
		if c.status == 503 {
			body = (&replica.LeaseError{}).Error() + "\n"
		}
		r.want(c.status, body, c.method, c.path)
	}
}

func TestStandbyIsSaidInTheAnswer(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) {
		o.Role = func() Role { return Standby }
		o.Admit = func(write, stale bool) error {
			if stale && !write {
				return nil
			}
			return &replica.AwayError{Primary: "http://10.0.0.1:8081", Follows: true}
		}
	})
	for _, path := range []string{"/db/1/sequence/s", "/db/1/sequence/s?stale=false", "/db/1/sequence/s?stale=true&not=1", "/db/1/lock/l", "/db/1/sequence",
		"/db", "/db/1/mlock/l", "/db/1/rate/r?limit=1&per=1", "/db/1/lock/l?stale=true&not=none", "/db/1/lock/l?stale=true&not=none&wait=0", "/db/1/mlock/l?stale=true&not=1"} {
		r.want(421, "*", "GET", path)
	}
	for _, path := range []string{"/db/1/sequence/s?stale=true", "/db/1/counter/s?stale=true", "/db/1/kv/s?stale=true", "/db/1/lock/l?stale=true", "/db/1/mlock/l?stale=true"} {
		r.want(404, "*", "GET", path)
	}
	r.want(200, "5\n", "GET", "/db/1/rate/r?limit=5&per=1&stale=true")
	for _, path := range []string{"/db?stale=true", "/db/1/kv?stale=true", "/db/1/lock?stale=true", "/db/1/mlock?stale=true&prefix=a"} {
		r.want(200, "", "GET", path)
	}
	res, err := http.Post("http://"+r.addr+"/db/1/sequence/s", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 421 || res.Header.Get("Location") != "http://10.0.0.1:8081" {
		t.Errorf("a write to a standby: %d, Location %q", res.StatusCode, res.Header.Get("Location"))
	}
	if s := strings.TrimSpace((&replica.AwayError{}).Error()); !strings.HasSuffix(s, "ask the primary") {
		t.Errorf("without an address: %q", s)
	}
}

// On a primary stale=true changes nothing, in an event loop or not, and in pages.
func TestPrimaryTakesStale(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "*", "POST", "/db/1/lock/l?id=me")
	r.want(200, "*", "POST", "/db/1/mlock/m?id=me")
	for _, id := range []string{"a", "b"} {
		r.want(200, "*", "POST", "/db/"+id+"/sequence/"+id)
		r.want(200, "*", "POST", "/db/1/sequence/"+id)
	}
	for _, c := range []struct {
		status     int
		path, body string
	}{
		{200, "/db/1/lock/l?", "*"}, {200, "/db/1/mlock/m?", "*"}, {409, "/db/1/lock/l?token=99&", "*"},
		{200, "/db/1/rate/r?limit=5&per=1&", "5\n"}, {200, "/db/1/lock?", "l\n"}, {200, "/db/1/mlock?", "m\n"}, {200, "/db?", "1\na\nb\n"},
	} {
		r.want(c.status, c.body, "GET", c.path+"stale=true")
		r.want(c.status, c.body, "GET", c.path+"stale=false")
	}
	for path, want := range map[string]string{
		"/db/1/sequence?limit=1&stale=true":  `</db/1/sequence?stale=true&after=a&limit=1>; rel="next"`,
		"/db/1/sequence?limit=1&stale=false": `</db/1/sequence?after=a&limit=1>; rel="next"`,
		"/db?limit=1&stale=true":             `</db?stale=true&after=1&limit=1>; rel="next"`,
	} {
		if got := r.do("GET", path).header.Get("Link"); got != want {
			t.Errorf("the Link of %s is %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{"/db/1/lock/l?stale=maybe", "/db/1/rate/r?limit=5&per=1&stale=1", "/db?stale=yes", "/db/1/lock?stale=yes"} {
		r.refused(400, "stale must be true or false", "GET", path)
	}
	for _, line := range []string{"GET lock/l?stale=true", "GET rate/r?limit=5&per=1&stale=true", "GET kv/v?stale=false", "GET sequence/a?stale=true"} {
		if a := r.batch("", line+"\n"); a.status != 400 || !strings.Contains(a.body, "stale is not allowed in a batch") {
			t.Errorf("%s in a batch: %d %s", line, a.status, a.body)
		}
	}
}
