package handlers

import (
	"strings"
	"testing"
	"time"

	"clouddragon/db"
)

func TestValueSaysHowLongItLasts(t *testing.T) {
	clock := newHandClock()
	r := newRigOn(t, db.Options{Clock: clock.read}, nil)
	const v = "/db/1/kv/v"
	version := strings.TrimSpace(r.put(v+"?ttl=30", "data", "Content-Type: text/x").body)
	wantTTL := func(want string) {
		t.Helper()
		for _, method := range []string{"GET", "HEAD"} {
			a := r.do(method, v)
			if a.status != 200 || a.header.Get("Ttl") != want || a.header.Get("Version") != version || a.header.Get("Content-Type") != "text/x" {
				t.Errorf("%s: %v, want version %s and the header Ttl with %q", method, a, version, want)
			}
		}
	}
	patch := func(query string, headers ...string) {
		t.Helper()
		a := r.want(200, version+"\n", "PATCH", v+"?"+query, headers...)
		if a.header.Get("ETag") != `"`+version+`"` {
			t.Errorf("PATCH says %v", a)
		}
	}
	clock.pass(1234500 * time.Microsecond)
	wantTTL("28.766")
	patch("ttl=1.5")
	wantTTL("1.500")
	patch("ttl=none&ver=" + version)
	wantTTL("")
	patch("ttl=60", `If-Match: "`+version+`"`)
	wantTTL("60.000")
	if a := r.raw("PATCH", request("PATCH", v, "ttl=7", "Content-Type: application/x-www-form-urlencoded")); a.status != 200 {
		t.Errorf("a ttl in a form: %v", a)
	}
	wantTTL("7.000")

	r.refused(400, "ttl is missing", "PATCH", v)
	r.refused(400, "ttl must be", "PATCH", v+"?ttl=0")
	r.refused(400, "ver must be a whole number from 1", "PATCH", v+"?ttl=1&ver=0")
	r.refused(409, "ver=1"+version, "PATCH", v+"?ttl=1&ver=1"+version)
	r.refused(412, "If-Match failed", "PATCH", v+"?ttl=1", `If-Match: "1`+version+`"`)
	r.refused(409, "does not hold", "PATCH", v+"?ttl=1&lock=l&token=1")
	r.refused(404, `kv "none"`, "PATCH", "/db/1/kv/none?ttl=1")
	wantTTL("7.000")

	clock.pass(7 * time.Second)
	r.refused(404, "", "GET", v)
	r.refused(404, "", "PATCH", v+"?ttl=1")
	if a := r.put(v+"?ttl=none", "anew"); a.status != 200 {
		t.Errorf("POST with ttl=none: %v", a)
	}
	if a := r.do("GET", v); a.header["Ttl"] != nil {
		t.Errorf("a value without an end: %v", a)
	}
}

func TestAnEndOfALargeValueTakesMemory(t *testing.T) {
	r := newRig(t, nil)
	const v = "/db/1/kv/v"
	data := strings.Repeat("0123456789abcdef", 20_000)
	version := r.put(v, data).body
	r.want(200, version, "PATCH", v+"?ttl=60")
	r.want(200, data, "GET", v)
	r.server.memory.mu.Lock()
	r.server.memory.spare = 0
	r.server.memory.total = 1000
	r.server.memory.mu.Unlock()
	r.refused(503, "too many large values", "PATCH", v+"?ttl=60")
}

func TestContentEncodingIsGivenBack(t *testing.T) {
	r := newRig(t, nil)
	const v = "/db/1/kv/v"
	wantEncoding := func(want string) {
		t.Helper()
		for _, method := range []string{"GET", "HEAD"} {
			if a := r.do(method, v); a.status != 200 || a.header.Get("Content-Encoding") != want {
				t.Errorf("%s: %v, want the encoding %q", method, a, want)
			}
		}
	}
	r.put(v, "zipped", "Content-Encoding: gzip")
	wantEncoding("gzip")
	r.do("PATCH", v+"?ttl=60")
	wantEncoding("gzip")
	if a := r.do("GET", v, "Range: bytes=1-3"); a.status != 206 || a.body != "ipp" || a.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("a part of it: %v", a)
	}
	r.put(v, "twice", "Content-Encoding: gzip", "Content-Encoding: br")
	wantEncoding("gzip, br")
	a := r.put(v, "x", "Content-Encoding: "+strings.Repeat("x", 65))
	r.checkRefusal(a, 400, "Content-Encoding has 65 bytes", "a long encoding")
	wantEncoding("gzip, br")
	r.put(v, "plain")
	wantEncoding("")
}
