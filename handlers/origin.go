package handlers

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// checkOrigin refuses what a web page of another site makes a browser send. It
// does not tell whether the token is right, so it may come before the token.
func (s *server) checkOrigin(c *call) error {
	if c.forAnyPage() {
		return nil
	}
	h := c.r.Header
	for _, site := range h["Sec-Fetch-Site"] {
		if site != "none" && site != "same-origin" {
			return forbidden("the browser says that a page of another site sends this (Sec-Fetch-Site: %s): only pages of this server may", quote(site))
		}
	}
	for _, origin := range h["Origin"] {
		if !sameOrigin(origin, c.r.Host) {
			return forbidden("a web page of %s sends this: only pages of this server may", quote(origin))
		}
	}
	// A page whose name resolves to this machine is of the same origin for the
	// browser (DNS rebinding). Where there is a token, the page does not have it.
	if len(s.tokens.load()) == 0 && c.overTCP() && !isLoopback(c.r.Host) {
		return forbidden("without a token the Host must be localhost or a loopback address, not %s: call the server so, or set a token", quote(c.r.Host))
	}
	return nil
}

// forAnyPage reports whether a page of any site may ask for this.
func (c *call) forAnyPage() bool {
	get := c.r.Method == http.MethodGet || c.r.Method == http.MethodHead
	return get && (c.api == Healthz || c.api == Page)
}

func forbidden(format string, args ...any) error {
	return &refusal{http.StatusForbidden, fmt.Sprintf(format, args...)}
}

// sameOrigin reports whether the origin of a page is at host, the Host of a request.
// The scheme is not compared: a proxy may take TLS off.
func sameOrigin(origin, host string) bool {
	scheme, at, ok := strings.Cut(origin, "://")
	if !ok {
		return false // "null": a page that the browser gives no origin
	}
	switch strings.ToLower(scheme) {
	case "http":
		at, host = strings.TrimSuffix(at, ":80"), strings.TrimSuffix(host, ":80")
	case "https":
		at, host = strings.TrimSuffix(at, ":443"), strings.TrimSuffix(host, ":443")
	default:
		return false
	}
	return at != "" && strings.EqualFold(at, host)
}

// overTCP reports whether the request came over a network. One whose connection is
// not known did, as far as one can tell.
func (c *call) overTCP() bool {
	local, ok := c.r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return !ok || local.Network() != "unix"
}

// isLoopback reports whether a Host, perhaps with a port, is this machine by a name
// that no other site can have. A request of HTTP/1.0 may have none: no browser
// sends that.
func isLoopback(host string) bool {
	if host == "" {
		return true
	}
	name := host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name = host[:i]
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		name, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return false
		}
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}
