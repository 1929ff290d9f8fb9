package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"clouddragon/db"
)

// stored checks an answer to a POST and returns the version.
func (r *rig) stored(a reply) int64 {
	r.t.Helper()
	v, err := strconv.ParseInt(strings.TrimSuffix(a.body, "\n"), 10, 64)
	if a.status != 200 || err != nil || v < 1 {
		r.t.Fatalf("not stored: %v", a)
	}
	if got := a.header["Etag"]; len(got) != 1 || got[0] != fmt.Sprintf("%q", strconv.FormatInt(v, 10)) {
		r.t.Errorf("version %d has the ETag %q", v, got)
	}
	return v
}

// value checks an answer to a GET.
func (r *rig) value(a reply, version int64, typ, body string) {
	r.t.Helper()
	for name, want := range map[string]string{
		"Etag": fmt.Sprintf(`"%d"`, version), "Version": fmt.Sprint(version), "Content-Type": typ,
		"X-Content-Type-Options": "nosniff", "Content-Length": fmt.Sprint(len(body)),
	} {
		if got := a.header.Get(name); got != want {
			r.t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if a.status != 200 || a.body != body {
		r.t.Errorf("got %d and %d bytes, want 200 and %d bytes", a.status, len(a.body), len(body))
	}
}

func TestValueComesBackAsItWasStored(t *testing.T) {
	r := newRig(t, nil)
	const kv = "/db/1/kv/a"
	r.refused(404, `kv "a" of account "1"`, "GET", kv)
	var last int64
	for _, body := range []string{"hello", "", "\x00\xff\r\n", strings.Repeat("0123456789abcdef", 64<<10)} {
		v := r.stored(r.put(kv, body))
		if v <= last {
			t.Errorf("version %d comes after %d", v, last)
		}
		last = v
		r.value(r.do("GET", kv), v, "application/octet-stream", body)
		if a := r.do("HEAD", kv); a.status != 200 || a.length != int64(len(body)) || a.header.Get("Version") != fmt.Sprint(v) || a.body != "" {
			t.Errorf("HEAD: %v", a)
		}
	}
	v := r.stored(r.raw("PUT", request("PUT", kv, "by put")))
	r.value(r.do("GET", kv), v, "application/octet-stream", "by put")
	v = r.stored(r.raw("PUT", request("PUT", kv, "5\r\nby ch\r\n4\r\nunks\r\n0\r\n\r\n", "Transfer-Encoding: chunked")))
	r.value(r.do("GET", kv), v, "application/octet-stream", "by chunks")
	a := r.put(kv, "x", "Accept: application/json")
	if want := fmt.Sprintf("{\"value\":%d}\n", v+1); a.body != want {
		t.Errorf("got %v, want %s", a, want)
	}
	r.value(r.do("GET", kv, "Accept: application/json"), v+1, "application/octet-stream", "x")
	r.want(204, "", "DELETE", kv)
	r.want(204, "", "DELETE", kv)
	r.refused(404, "kv", "GET", kv)
	if again := r.stored(r.put(kv, "again")); again <= v+1 {
		t.Errorf("version %d comes after %d", again, v+1)
	}
}

func TestContentTypeIsKept(t *testing.T) {
	r := newRig(t, nil)
	long := "text/plain; x=" + strings.Repeat("y", db.MaxType-len("text/plain; x="))
	for sent, want := range map[string]string{
		"Content-Type: text/html; charset=utf-8":                          "text/html; charset=utf-8",
		"Content-Type: application/json":                                  "application/json",
		"Content-Type: whatever":                                          "whatever",
		"Content-Type: " + long:                                           long,
		"X-None: 1":                                                       "application/octet-stream",
		"Content-Type:":                                                   "application/octet-stream",
		"Content-Type: application/x-www-form-urlencoded":                 "application/octet-stream",
		"content-type: Application/X-WWW-Form-URLEncoded":                 "application/octet-stream",
		"Content-Type: application/x-www-form-urlencoded; charset=latin1": "application/x-www-form-urlencoded; charset=latin1",
	} {
		v := r.stored(r.put("/db/1/kv/a", "x", sent))
		r.value(r.do("GET", "/db/1/kv/a"), v, want, "x")
	}
	v := r.stored(r.put("/db/1/kv/a", "kept"))
	r.checkRefusal(r.put("/db/1/kv/a", "y", "Content-Type: "+long+"y"), 400, "Content-Type has 256 bytes", "a long type")
	r.value(r.do("GET", "/db/1/kv/a"), v, "application/octet-stream", "kept")
}

func TestVersionChecks(t *testing.T) {
	r := newRig(t, nil)
	const kv = "/db/1/kv/a"
	r.checkRefusal(r.put(kv+"?ver=1", "x"), 409, `"a"`, "a version of nothing")
	one := r.stored(r.put(kv+"?ver=0", "one"))
	r.checkRefusal(r.put(kv+"?ver=0", "x"), 409, `"a"`, "ver=0 of a value")
	r.checkRefusal(r.put(fmt.Sprintf("%s?ver=%d", kv, one+1), "x"), 409, `"a"`, "another version")
	two := r.stored(r.put(fmt.Sprintf("%s?ver=%d", kv, one), "two"))
	r.value(r.do("GET", kv), two, "application/octet-stream", "two")
	r.refused(409, `"a"`, "DELETE", fmt.Sprintf("%s?ver=%d", kv, one))
	r.refused(400, "ver", "DELETE", kv+"?ver=0")
	r.want(204, "", "DELETE", fmt.Sprintf("%s?ver=%d", kv, two))
	r.refused(409, `"a"`, "DELETE", fmt.Sprintf("%s?ver=%d", kv, two))
	r.refused(404, "kv", "GET", kv)
	three := r.stored(r.put(kv+"?ver=0", "three"))
	r.checkRefusal(r.put(fmt.Sprintf("%s?ver=%d", kv, two), "x"), 409, `"a"`, "a version of a deleted value")
	r.value(r.do("GET", kv), three, "application/octet-stream", "three")
}

func TestConditionsInHeaders(t *testing.T) {
	r := newRig(t, nil)
	const kv = "/db/1/kv/a"
	now := r.stored(r.put(kv, "x"))
	// V is the current version, O another one. The value exists or not.
	for _, c := range []struct {
		there  bool
		method string
		query  string
		header string
		status int
	}{
		{true, "POST", "", `If-Match: "V"`, 200},
		{true, "PUT", "", `If-Match: "V"`, 200},
		{true, "POST", "", `If-Match: "O"`, 412},
		{true, "POST", "", `If-Match: "O", "V"`, 200},
		{true, "POST", "", `If-Match: "O" ,W/"7",, "V" ,`, 200},
		{true, "POST", "", "If-Match: \"O\"\r\nIf-Match: \"V\"", 200},
		{true, "POST", "", `If-Match: W/"V"`, 412},
		{true, "POST", "", `If-Match: "0V"`, 412},
		{true, "POST", "", `If-Match: "+V"`, 412},
		{true, "POST", "", `If-Match: "a,V"`, 412},
		{true, "POST", "", `If-Match: *`, 200},
		{false, "POST", "", `If-Match: *`, 412},
		{false, "POST", "", `If-Match: "V"`, 412},
		{false, "POST", "", `If-Match: "0"`, 412},
		{true, "POST", "", `If-Match: "0"`, 412},
		{true, "POST", "", `If-Match: V`, 400},
		{true, "POST", "", `If-Match: "V`, 400},
		{true, "POST", "", `If-Match: "V" "O"`, 400},
		{true, "POST", "", `If-Match: *, "V"`, 400},
		{true, "POST", "", "If-Match: *\r\nIf-Match: \"V\"", 400},
		{true, "POST", "", `If-Match:`, 400},
		{true, "POST", "", `If-Match: ,`, 400},
		{true, "POST", "", `If-Match: w/"V"`, 400},
		{true, "POST", "", `If-None-Match: *`, 412},
		{false, "POST", "", `If-None-Match: *`, 200},
		{true, "POST", "", `If-None-Match: "V"`, 412},
		{true, "POST", "", `If-None-Match: "O"`, 200},
		{false, "POST", "", `If-None-Match: "0"`, 200},
		{true, "POST", "", `If-None-Match: 5`, 400},
		{true, "POST", "?ver=V", `If-Match: "V"`, 200},
		{true, "POST", "?ver=O", `If-Match: "V"`, 409},
		{true, "POST", "?ver=V", `If-Match: "O"`, 412},
		{true, "POST", "?ver=0", `If-None-Match: *`, 412},
		{false, "POST", "?ver=0", `If-None-Match: *`, 200},
		{false, "POST", "?ver=V", `If-None-Match: *`, 409},
		{true, "DELETE", "", `If-Match: "V"`, 204},
		{true, "DELETE", "", `If-Match: "O"`, 412},
		{true, "DELETE", "", `If-Match: *`, 204},
		{false, "DELETE", "", `If-Match: *`, 412},
		{false, "DELETE", "", `If-None-Match: *`, 204},
		{true, "DELETE", "", `If-None-Match: *`, 412},
		{true, "DELETE", "?ver=O", `If-Match: "V"`, 409},
		{true, "DELETE", "?ver=V", `If-Match: "V"`, 204},
		{true, "GET", "", `If-None-Match: "V"`, 304},
		{true, "GET", "", `If-None-Match: W/"V"`, 304},
		{true, "GET", "", `If-None-Match: "O", "V"`, 304},
		{true, "GET", "", `If-None-Match: *`, 304},
		{true, "HEAD", "", `If-None-Match: "V"`, 304},
		{true, "GET", "", `If-None-Match: "O"`, 200},
		{true, "GET", "", `If-None-Match: "abc"`, 200},
		{true, "GET", "", `If-None-Match: abc`, 400},
		{false, "GET", "", `If-None-Match: *`, 404},
		{true, "GET", "", `If-Match: "V"`, 200},
		{true, "GET", "", `If-Match: "O"`, 412},
		{true, "GET", "", "If-Match: \"O\"\r\nIf-None-Match: \"V\"", 412},
		{false, "GET", "", `If-Match: "V"`, 404},
	} {
		if c.there {
			now = r.stored(r.put(kv, "x"))
		} else {
			r.want(204, "", "DELETE", kv)
		}
		fill := strings.NewReplacer("V", fmt.Sprint(now), "O", fmt.Sprint(now-1))
		a := r.raw(c.method, request(c.method, kv+fill.Replace(c.query), "", fill.Replace(c.header)))
		what := fmt.Sprintf("%s%s of a value (%v) with %s", c.method, c.query, c.there, c.header)
		if a.status != c.status {
			t.Errorf("%s: got %v, want %d", what, a, c.status)
		}
		switch a.status {
		case 304:
			if a.body != "" || a.header.Get("ETag") != etag(now) || a.header.Get("Version") != fmt.Sprint(now) {
				t.Errorf("%s: %v", what, a)
			}
		case 400, 409, 412:
			r.checkRefusal(a, c.status, "", what)
			if b := r.do("GET", kv); c.there && b.header.Get("Version") != fmt.Sprint(now) || !c.there && b.status != 404 {
				t.Errorf("%s changed it: %v", what, b)
			}
		}
	}
}

func TestOneOfManyCreatesWins(t *testing.T) {
	r := newRig(t, nil)
	for _, way := range []struct {
		query, header string
		lost          int
	}{{"?ver=0", "X-None: 1", 409}, {"", "If-None-Match: *", 412}} {
		r.want(204, "", "DELETE", "/db/1/kv/a")
		var wg sync.WaitGroup
		status := make([]int, 8)
		for i := range status {
			wg.Go(func() {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if _, err := io.WriteString(c, request("POST", "/db/1/kv/a"+way.query, "x", way.header)); err != nil {
					t.Error(err)
				}
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Error(err)
					return
				}
				status[i] = resp.StatusCode
			})
		}
		wg.Wait()
		won := 0
		for _, s := range status {
			if s == 200 {
				won++
			} else if s != way.lost {
				t.Errorf("%v: a loser got %d", way, s)
			}
		}
		if won != 1 {
			t.Errorf("%v: %d won: %v", way, won, status)
		}
	}
}

func TestEveryIncrementUnderIfMatchCounts(t *testing.T) {
	r := newRig(t, nil)
	r.stored(r.put("/db/1/kv/n", "0"))
	client := &http.Client{}
	defer client.CloseIdleConnections()
	url := "http://" + r.addr + "/db/1/kv/n"
	add := func() (bool, error) {
		resp, err := client.Get(url)
		if err != nil {
			return false, err
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return false, err
		}
		n, err := strconv.Atoi(string(b))
		if err != nil {
			return false, err
		}
		req, err := http.NewRequest("PUT", url, strings.NewReader(strconv.Itoa(n+1)))
		if err != nil {
			return false, err
		}
		req.Header.Set("If-Match", resp.Header.Get("ETag"))
		resp, err = client.Do(req)
		if err != nil {
			return false, err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return false, err
		}
		if resp.StatusCode != 200 && resp.StatusCode != 412 {
			return false, fmt.Errorf("status %d", resp.StatusCode)
		}
		return resp.StatusCode == 200, nil
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for done := 0; done < 10; {
				ok, err := add()
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					done++
				}
			}
		})
	}
	wg.Wait()
	r.want(200, "40", "GET", "/db/1/kv/n")
}

func TestValueExpires(t *testing.T) {
	r := newRig(t, nil)
	r.stored(r.put("/db/1/kv/kept?ttl=0.2", "x"))
	r.stored(r.put("/db/1/kv/kept", "y"))
	r.stored(r.put("/db/1/kv/long?ttl=876000h", "z"))
	r.stored(r.put("/db/1/kv/gone?ttl=200ms", "x"))
	began := time.Now()
	for r.do("GET", "/db/1/kv/gone").status == 200 {
		if time.Since(began) > 20*time.Second {
			t.Fatal("it is still there")
		}
	}
	r.refused(409, "", "DELETE", "/db/1/kv/gone?ver=1")
	r.want(200, "y", "GET", "/db/1/kv/kept")
	r.want(200, "z", "GET", "/db/1/kv/long")
	r.stored(r.put("/db/1/kv/gone?ver=0", "anew"))
}
