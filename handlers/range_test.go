package handlers

import (
	"fmt"
	"strings"
	"testing"
)

func TestRangeGivesAPartOfAValue(t *testing.T) {
	r := newRig(t, nil)
	value := strings.Repeat("0123456789", 10_000)
	v := r.stored(r.put("/db/1/kv/a", value))
	size := len(value)
	for _, c := range []struct {
		header   string
		from, to int // both 0: the whole value
	}{
		{"bytes=0-0", 0, 1},
		{"bytes=10-19", 10, 20},
		{"bytes=99990-", 99_990, size},
		{"bytes=0-", 0, size},
		{"bytes=5-99999999999999999999999", 5, size},
		{"bytes=-1", size - 1, size},
		{"bytes=-999999", 0, size},
		{"Bytes=3-4", 3, 5},
		// Several, or malformed.
		{"bytes=0-1,5-6", 0, 0},
		{"bytes=9-3", 0, 0},
		{"bytes=", 0, 0},
		{"bytes=-", 0, 0},
		{"bytes=a-b", 0, 0},
		{"bytes=+1-2", 0, 0},
		{"bytes 1-2", 0, 0},
		{"lines=1-2", 0, 0},
		{"", 0, 0},
	} {
		a := r.do("GET", "/db/1/kv/a", "Range: "+c.header)
		if c.to == 0 {
			r.value(a, v, "application/octet-stream", value)
			continue
		}
		want := fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, size)
		if a.status != 206 || a.body != value[c.from:c.to] || a.header.Get("Content-Range") != want || a.length != int64(c.to-c.from) {
			t.Errorf("%q: got %d with %d bytes, Content-Length %d, Content-Range %q; want 206 with %q",
				c.header, a.status, len(a.body), a.length, a.header.Get("Content-Range"), want)
		}
		if a.header.Get("Content-Security-Policy") != "sandbox" || a.header.Get("Etag") != etag(v) {
			t.Errorf("%q: the headers are %v", c.header, a.header)
		}
	}
	for _, header := range []string{"bytes=100000-", "bytes=100000-100001", "bytes=99999999999999999999999-", "bytes=-0"} {
		a := r.refused(416, "past the end", "GET", "/db/1/kv/a", "Range: "+header)
		if got := a.header.Get("Content-Range"); got != "bytes */100000" {
			t.Errorf("%q: Content-Range is %q", header, got)
		}
	}
	// A HEAD ignores ranges, and if If-Range names another version, the value is sent whole.
	if a := r.do("HEAD", "/db/1/kv/a", "Range: bytes=0-0"); a.status != 200 || a.length != int64(size) {
		t.Errorf("HEAD: %v", a)
	}
	r.want(206, "0", "GET", "/db/1/kv/a", "Range: bytes=0-0", "If-Range: "+etag(v))
	r.want(200, value, "GET", "/db/1/kv/a", "Range: bytes=0-0", "If-Range: "+etag(v+1))
	r.want(200, value, "GET", "/db/1/kv/a", "Range: bytes=0-0", "If-Range: Sat, 01 Jan 2000 00:00:00 GMT")
	r.want(304, "", "GET", "/db/1/kv/a", "Range: bytes=0-0", "If-None-Match: "+etag(v))

	r.stored(r.put("/db/1/kv/empty", ""))
	r.refused(416, "past the end", "GET", "/db/1/kv/empty", "Range: bytes=0-")
	r.refused(416, "past the end", "GET", "/db/1/kv/empty", "Range: bytes=-1")
}

// A browser that opens a value runs nothing that is in it.
func TestValuesAreSandboxed(t *testing.T) {
	r := newRig(t, nil)
	r.stored(r.put("/db/1/kv/a", "<script>", "Content-Type: text/html"))
	for _, method := range []string{"GET", "HEAD"} {
		if got := r.do(method, "/db/1/kv/a").header.Get("Content-Security-Policy"); got != "sandbox" {
			t.Errorf("%s: Content-Security-Policy is %q", method, got)
		}
	}
}
