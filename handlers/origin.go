package handlers

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// checkOrigin refuses requests that a web page of another site makes a browser send. Its
// answer does not depend on the token, so it may run before the token is checked.
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
	// DNS rebinding: if the name of a page's site resolves to this machine, the browser
	// takes the two for the same origin. With a token that is harmless, because the page
	// does not have it.
	if len(s.tokens.load()) == 0 && !s.isLoopback(c.r.Host) && c.overTCP() {
		return forbidden("without a token the Host must be localhost or a loopback address, not %s: call the server so, or set a token", quote(c.r.Host))
	}
	return nil
}

// forAnyPage reports whether pages of all sites may send this request.
func (c *call) forAnyPage() bool {
	get := c.r.Method == http.MethodGet || c.r.Method == http.MethodHead
	return get && (c.api == Healthz || c.api == Page)
}

func forbidden(format string, args ...any) error {
	return &refusal{http.StatusForbidden, fmt.Sprintf(format, args...)}
}

// sameOrigin reports whether an Origin is the Host of the request. The scheme is not
// compared, because a proxy may end TLS.
func sameOrigin(origin, host string) bool {
	scheme, at, ok := strings.Cut(origin, "://")
	if !ok {
		return false // "null": the browser does not tell the page's origin
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

// overTCP reports whether the request came over TCP. If the connection is unknown, it
// returns true.
func (c *call) overTCP() bool {
	local, ok := c.r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return !ok || local.Network() != "unix"
}

// isLoopback is isLoopback, for which the last Host need not be parsed again.
func (s *server) isLoopback(host string) bool {
	if last := s.loopback.Load(); last != nil && *last == host {
		return true
	}
	ok := isLoopback(host)
	if ok {
		s.loopback.Store(&host)
	}
	return ok
}

// isLoopback reports whether a Host, with or without a port, is a name of this machine
// that no other site can have. HTTP/1.0 requests may have no Host; that is accepted,
// because browsers do not send them.
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
