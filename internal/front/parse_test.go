package front

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// plainRequests are requests that parse has to accept.
var plainRequests = []string{
	"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST /db/1/sequence/a?n=5&x=%SAFE HTTP/1.1\r\nHost: localhost:8081\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
	"POST /db/1/counter/a HTTP/1.1\r\nhost: [::1]:80\r\nCONTENT-LENGTH: 5\r\nContent-Type:application/x-www-form-urlencoded  \r\n\r\nadd=5",
	"PUT /db/1/kv/a HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\nAuthorization: Bearer x y\r\nContent-Length: 0\r\n\r\n",
	"POST /db/1/sequence/a HTTP/1.1\r\nHost: a\r\nIdempotency-Key: \"order 7\"\r\n\r\n",
	"DELETE /db/1/kv/a HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip, deflate\r\nAccept-Language: de\r\n\r\n",
}

// oddRequests are requests that have to be left to net/http, each for one reason.
var oddRequests = map[string]string{
	"another method":           "PATCH /a HTTP/1.1\r\nHost: a\r\n\r\n",
	"a method in lower case":   "get /a HTTP/1.1\r\nHost: a\r\n\r\n",
	"HTTP/1.0":                 "GET /a HTTP/1.0\r\nHost: a\r\n\r\n",
	"no version":               "GET /a\r\n\r\n",
	"two spaces":               "GET  /a HTTP/1.1\r\nHost: a\r\n\r\n",
	"absolute URI":             "GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
	"asterisk":                 "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
	"two slashes":              "GET //a/b HTTP/1.1\r\nHost: a\r\n\r\n",
	"percent escape":           "GET /a%20b HTTP/1.1\r\nHost: a\r\n\r\n",
	"percent escape in query":  "GET /a?b=%20 HTTP/1.1\r\nHost: a\r\n\r\n",
	"fragment":                 "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
	"empty query":              "GET /a? HTTP/1.1\r\nHost: a\r\n\r\n",
	"byte over 127":            "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
	"no Host":                  "GET /a HTTP/1.1\r\n\r\n",
	"two Hosts":                "GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
	"empty Host":               "GET /a HTTP/1.1\r\nHost:\r\n\r\n",
	"Host with a path":         "GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n",
	"bare line feed":           "GET /a HTTP/1.1\nHost: a\n\n",
	"a bare line feed at last": "GET /a HTTP/1.1\r\nHost: a\r\n\n",
	"folded header":            "GET /a HTTP/1.1\r\nHost: a\r\nAccept: a\r\n b\r\n\r\n",
	"space before the colon":   "GET /a HTTP/1.1\r\nHost : a\r\n\r\n",
	"header without a colon":   "GET /a HTTP/1.1\r\nHost: a\r\nAccept\r\n\r\n",
	"tab in a value":           "GET /a HTTP/1.1\r\nHost: a\r\nAccept: a\tb\r\n\r\n",
	"carriage return alone":    "GET /a HTTP/1.1\r\nHost: a\r\nAccept: a\rb\r\n\r\n",
	"NUL in a value":           "GET /a HTTP/1.1\r\nHost: a\r\nAccept: a\x00b\r\n\r\n",
	"unknown header":           "GET /a HTTP/1.1\r\nHost: a\r\nCookie: b\r\n\r\n",
	"Connection: close":        "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
	"upgrade":                  "GET /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\r\n",
	"Expect":                   "POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
	"chunked":                  "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"two lengths":              "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
	"length with a sign":       "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
	"length with a zero":       "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 01\r\n\r\na",
	"length is a list":         "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
	"empty length":             "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\na",
	"large body":               "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 16384\r\n\r\na",
	"huge length":              "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\na",
	"GET with a body":          "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na",
	"large head":               "GET /a HTTP/1.1\r\nHost: a\r\nAccept: " + strings.Repeat("a", maxPlainHead) + "\r\n\r\n",
	"empty line first":         "\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n",
	"Range":                    "GET /a HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n",
	"two keys":                 "POST /a HTTP/1.1\r\nHost: a\r\nIdempotency-Key: b\r\nIdempotency-Key: c\r\n\r\n",
	"condition":                "GET /a HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\n\r\n",
	"Origin":                   "GET /a HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\n\r\n",
}

func TestPlainRequestIsTakenOnceItIsWhole(t *testing.T) {
	for _, r := range plainRequests {
		b := []byte(strings.ReplaceAll(r, "%SAFE", "safe"))
		var m message
		for n := range b {
			if v := parse(b[:n], &m); v != incomplete {
				t.Errorf("%q: the first %d bytes are %v, want incomplete", b, n, v)
			}
		}
		if v := parse(append(b, "GET"...), &m); v != plain || m.size != len(b) {
			t.Errorf("%q: %v, %d bytes, want plain and %d", b, v, m.size, len(b))
		}
	}
}

func TestOddRequestIsLeftToNetHTTP(t *testing.T) {
	for reason, r := range oddRequests {
		var m message
		if v := parse([]byte(r), &m); v != odd {
			t.Errorf("%s: %v, want odd", reason, v)
		}
	}
}

// FuzzParse holds the promise of parse: whatever it takes, net/http reads the same.
func FuzzParse(f *testing.F) {
	for _, r := range plainRequests {
		f.Add([]byte(r))
		f.Add([]byte(strings.ReplaceAll(r, "%SAFE", "safe")))
	}
	for _, r := range oddRequests {
		f.Add([]byte(r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		if parse(b, &m) != plain {
			return
		}
		raw := bufio.NewReader(bytes.NewReader(b))
		r, err := http.ReadRequest(raw)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", b, err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatalf("net/http cannot read the body of %q: %v", b, err)
		}
		rest, err := io.ReadAll(raw)
		if err != nil {
			t.Fatal(err)
		}
		if r.Method != m.method || r.URL.Path != string(m.path) || r.URL.RawPath != "" || r.URL.RawQuery != string(m.query) ||
			r.URL.ForceQuery || r.URL.Host != "" || r.URL.Scheme != "" || r.URL.Fragment != "" {
			t.Errorf("%q: net/http reads %s %#v", b, r.Method, r.URL)
		}
		if r.Host != string(m.values[fieldHost]) || r.Close || r.ProtoMajor != 1 || r.ProtoMinor != 1 || r.TransferEncoding != nil {
			t.Errorf("%q: net/http reads %+v", b, r)
		}
		if r.ContentLength != int64(len(m.body)) || !bytes.Equal(body, m.body) || m.size+len(rest) != len(b) {
			t.Errorf("%q: net/http reads a body of %d, %q, and leaves %d bytes", b, r.ContentLength, body, len(rest))
		}
		count := 1 // the Host
		for f := fieldAccept; f < fields; f++ {
			values := r.Header[canonicalNames[f]]
			if m.given[f] {
				count++
			}
			if m.given[f] != (len(values) == 1) || len(values) > 1 || len(values) == 1 && values[0] != string(m.values[f]) {
				t.Errorf("%q: net/http reads %s %q", b, canonicalNames[f], values)
			}
		}
		if len(r.Header)+1 != count {
			t.Errorf("%q: net/http reads the headers %q", b, r.Header)
		}
	})
}
