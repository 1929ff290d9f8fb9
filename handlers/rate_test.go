package handlers

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"testing"
)

func wantHeaders(t *testing.T, a reply, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := a.header.Get(pairs[i]); got != pairs[i+1] {
			t.Errorf("%v: header %s is %q, want %q", a, pairs[i], got, pairs[i+1])
		}
	}
}

func TestRateAnswersHowManyAreLeft(t *testing.T) {
	r := newRig(t, nil)
	const hourly = "/db/a/rate/x?limit=100&per=100h"
	a := r.want(200, "100\n", "GET", hourly)
	wantHeaders(t, a, "RateLimit-Policy", `"default";q=100;w=360000`, "RateLimit", `"default";r=100;t=0`)
	r.want(200, "99\n", "POST", hourly)
	a = r.want(200, "94\n", "POST", hourly+"&cost=5")
	wantHeaders(t, a, "RateLimit-Policy", `"default";q=100;w=360000`, "RateLimit", `"default";r=94;t=21600`, "Retry-After", "")
	r.want(200, "94\n", "GET", hourly)
	r.want(200, `{"value":94}`+"\n", "GET", hourly, "Accept: application/json")
	r.want(200, "94\n", "GET", hourly+"&burst=100")
	r.want(200, "4\n", "GET", hourly+"&burst=10")

	a = r.refused(409, `rate "x" allows 94 more now, and 95 in `, "POST", hourly+"&cost=95")
	wantHeaders(t, a, "RateLimit-Policy", `"default";q=100;w=360000`)
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	ms, err2 := strconv.Atoi(a.header.Get("Retry-After-Ms"))
	if err != nil || err2 != nil || seconds < 3000 || seconds > 3600 || (ms+999)/1000 != seconds {
		t.Errorf("%v: want it allowed within the hour", a)
	}
	r.want(200, "0\n", "POST", hourly+"&cost=94")
	r.want(200, "0\n", "GET", hourly)
	r.refused(409, "allows 0 more now", "POST", hourly)
	r.refused(409, "allows 0 more now", "POST", hourly+"&wait=1")
	r.want(204, "", "DELETE", "/db/a/rate/x")
	r.want(204, "", "DELETE", "/db/a/rate/x")
	r.want(200, "100\n", "GET", hourly)
	// The same id in another API or another account is another thing.
	r.want(404, "*", "GET", "/db/a/counter/x")
	r.want(200, "100\n", "GET", strings.Replace(hourly, "/a/", "/b/", 1))
}

func TestRateWaits(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "0\n", "POST", "/db/a/rate/x?limit=20&per=1&burst=1")
	r.want(200, "0\n", "POST", "/db/a/rate/x?limit=20&per=1&burst=1&wait=10")
	r.want(200, "0\n", "POST", "/db/a/rate/x?limit=20&per=1&burst=1&wait=10")
}

// The place of a client that hangs up goes to the next one.
func TestClientThatHangsUpGivesItsPlaceOfARateBack(t *testing.T) {
	r := newRig(t, nil)
	const slow = "/db/a/rate/x?limit=1&per=5m&burst=1"
	r.want(200, "0\n", "POST", slow)
	c := r.dial()
	if _, err := io.WriteString(c, request("POST", slow+"&wait=9m", "")); err != nil {
		t.Fatal(err)
	}
	// Another call would have to wait ten minutes if the first were still there.
	for r.do("POST", "/db/a/rate/x?limit=1&per=4m&burst=1").header.Get("Retry-After") <= "300" {
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for r.do("POST", "/db/a/rate/x?limit=1&per=4m&burst=1").header.Get("Retry-After") > "300" {
	}
	// Waiting calls are served once the rate is deleted.
	c = r.dial()
	if _, err := io.WriteString(c, request("POST", slow+"&wait=9m", "")); err != nil {
		t.Fatal(err)
	}
	for r.do("POST", "/db/a/rate/x?limit=1&per=4m&burst=1").header.Get("Retry-After") <= "300" {
	}
	r.want(204, "", "DELETE", "/db/a/rate/x")
	if a := r.read(bufio.NewReader(c), "POST"); a.status != 200 || a.body != "0\n" {
		t.Errorf("got %v", a)
	}
}

func TestRateRefusesBadParameters(t *testing.T) {
	r := newRig(t, nil)
	for query, part := range map[string]string{
		"":                                     "limit is missing",
		"?limit=1":                             "per is missing",
		"?per=1":                               "limit is missing",
		"?limit=0&per=1":                       "limit must be a whole number from 1 to 1000000000",
		"?limit=1000000001&per=1":              "limit must be",
		"?limit=1&per=0":                       "per must be",
		"?limit=1&per=-1":                      "per must be",
		"?limit=1&per=NaN":                     "per must be",
		"?limit=1&per=876001h":                 "per must be",
		"?limit=1&per=1&burst=0":               "burst must be",
		"?limit=1&per=1&burst=1000000001":      "burst must be",
		"?limit=1&per=1&cost=0":                "cost must be",
		"?limit=1&per=1&cost=2":                "cost must be a whole number from 1 to 1",
		"?limit=10&per=1&burst=3&cost=4":       "cost must be a whole number from 1 to 3",
		"?limit=1&per=1&wait=11m":              "wait must be",
		"?limit=1&per=1&wait=-1":               "wait must be",
		"?limit=1&per=1&n=1":                   `unknown parameter "n"`,
		"?limit=1&per=1&limit=1":               "limit is given twice",
		"?limit=1.5&per=1":                     "limit must be",
		"?limit=1&per=1&cost=5&burst=5&cost=5": "cost is given twice",
	} {
		r.refused(400, part, "POST", "/db/a/rate/x"+query)
	}
	r.refused(400, `unknown parameter "cost"`, "GET", "/db/a/rate/x?limit=1&per=1&cost=1")
	r.refused(400, "limit is missing", "GET", "/db/a/rate/x")
	r.refused(400, `unknown parameter "limit"`, "DELETE", "/db/a/rate/x?limit=1")
	r.refused(405, "method", "PUT", "/db/a/rate/x?limit=1&per=1")
	r.want(200, "1\n", "GET", "/db/a/rate/x?limit=1&per=1")
	r.want(200, "999999999\n", "POST", "/db/a/rate/y?limit=1000000000&per=876000h")
	r.want(200, "0\n", "POST", "/db/a/rate/z?limit=1000000000&per=1&cost=1000000000")
	a := r.do("HEAD", "/db/a/rate/x?limit=1&per=0.5")
	if a.status != 200 {
		t.Errorf("got %v", a)
	}
	wantHeaders(t, a, "RateLimit-Policy", `"default";q=1;w=1`, "RateLimit", `"default";r=1;t=0`)
}

func TestBatchCountsRates(t *testing.T) {
	r := newRig(t, nil)
	const both = "POST rate/x?limit=2&per=1h\nPOST counter/done\n"
	for i, want := range []string{"200 1\n200 1\n", "200 0\n200 2\n"} {
		if a := r.put("/db/a/batch", both, "Content-Type: text/plain"); a.status != 200 || a.body != want {
			t.Errorf("batch %d: got %v, want %q", i, a, want)
		}
	}
	a := r.put("/db/a/batch", both, "Content-Type: text/plain")
	r.checkRefusal(a, 409, `line 1: rate "x" allows 0 more now`, "a batch over the rate")
	if a.header.Get("Retry-After") == "" {
		t.Errorf("%v: it does not say when to try again", a)
	}
	r.want(200, "2\n", "GET", "/db/a/counter/done")
	a = r.put("/db/a/batch", "POST rate/x?limit=2&per=1h&wait=1\n", "Content-Type: text/plain")
	r.checkRefusal(a, 400, "wait", "a batch that waits")
}
