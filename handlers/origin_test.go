package handlers

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"clouddragon/internal/front"
)

func TestPagesOfOtherSitesAreRefused(t *testing.T) {
	r := newRig(t, nil)
	for _, header := range []string{
		"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Sec-Fetch-Site: whatever",
		"Origin: http://evil.example", "Origin: null", "Origin: ", "Origin: http://localhost:8082", "Origin: http://localhost.evil.example",
		"Origin: file://localhost", "Origin: http://", "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site",
		"Sec-Fetch-Site: same-origin\r\nOrigin: http://evil.example",
	} {
		for _, call := range []struct{ method, target string }{
			{"POST", "/db/1/sequence/a"}, {"GET", "/db/1/kv/a"}, {"DELETE", "/db/1/lock/a"}, {"GET", "/nothing"}, {"OPTIONS", "/db/1/kv/a"}, {"POST", "/healthz"},
		} {
			r.refused(403, "only pages of this server", call.method, call.target, header)
		}
		r.want(200, "ok\n", "GET", "/healthz", header)
		r.want(200, string(page), "GET", "/", header)
	}
	for i, header := range []string{
		"Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin", "Origin: http://localhost", "Origin: HTTP://LOCALHOST:80", "Origin: https://localhost:443",
		"Sec-Fetch-Site: same-origin\r\nOrigin: http://localhost",
	} {
		if a := r.do("POST", "/db/1/counter/a", header); a.status != 200 {
			t.Errorf("%d, %s: %v", i, header, a)
		}
	}
	r.refused(404, "there is no sequence", "GET", "/db/1/sequence/a")
}

// A page of another site is refused even if the browser sends a token along.
func TestPagesOfOtherSitesAreRefusedWithAToken(t *testing.T) {
	r := newRig(t, guarded)
	r.refused(403, "only pages of this server", "POST", "/db/1/sequence/a", basic("", "all"), "Sec-Fetch-Site: cross-site")
	r.refused(404, "there is no sequence", "GET", "/db/1/sequence/a", bear("all"))
}

// hosts are values of the Host header, each with whether a server without a token answers it.
var hosts = map[string]bool{
	"localhost": true, "LocalHost:8081": true, "127.0.0.1": true, "127.0.0.1:8081": true, "127.9.8.7:1": true, "[::1]": true, "[::1]:8081": true,
	"[::ffff:127.0.0.1]:80": true,
	"evil.example":          false, "evil.example:8081": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false, "10.0.0.1:8081": false,
	"0.0.0.0": false, "[::]:80": false, "[fe80::1]": false, "127.1": false, "2130706433": false, "localhost.": false, "[localhost]": false, "x": false,
}

func askAs(host string) string {
	return strings.Replace(request("POST", "/db/1/sequence/a", ""), "Host: localhost", "Host: "+host, 1)
}

func TestWithoutATokenTheHostMustBeThisMachine(t *testing.T) {
	r := newRig(t, nil)
	for host, good := range hosts {
		a := r.raw("POST", askAs(host))
		if good && a.status != 200 {
			t.Errorf("%s: %v", host, a)
		} else if !good {
			r.checkRefusal(a, 403, "without a token the Host must be localhost", host)
		}
		// Everybody may ask for the health of a server.
		if a := r.raw("GET", strings.Replace(request("GET", "/healthz", ""), "localhost", host, 1)); a.status != 200 {
			t.Errorf("the health, as %s: %v", host, a)
		}
	}
	if a := r.raw("GET", "GET /db/1/sequence/b HTTP/1.0\r\n\r\n"); a.status != 404 {
		t.Errorf("without a Host: %v", a)
	}
}

func TestWithATokenAnyHostIsServed(t *testing.T) {
	r := newRig(t, guarded)
	for host := range hosts {
		a := r.raw("POST", strings.Replace(askAs(host), "\r\n\r\n", "\r\n"+bear("all")+"\r\n\r\n", 1))
		if a.status != 200 {
			t.Errorf("%s: %v", host, a)
		}
	}
}

func TestOnAUnixSocketAnyHostIsServed(t *testing.T) {
	r := newRig(t, nil)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: r.server, ConnContext: front.ConnContext}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	}()
	r.network, r.addr = "unix", l.Addr().String()
	for host := range hosts {
		if a := r.raw("POST", askAs(host)); a.status != 200 {
			t.Errorf("%s: %v", host, a)
		}
	}
}
