// Package client calls a Cloud Dragon server over HTTP for the program's own
// commands.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// DefaultServer is used if neither a flag nor the environment names a server.
const DefaultServer = "http://localhost:8081"

// maxAnswer is the longest answer that Call reads.
const maxAnswer = 16 << 20

// Reason says why a call failed.
type Reason uint8

// The reasons for a failure.
const (
	Unavailable Reason = iota // no answer, or the server cannot do it now
	Foreign                   // an answer that is not from Cloud Dragon
	Unreachable               // there was no connection, so the request was never sent
	BadRequest                // 400
	Denied                    // 401 or 403: the token
	NotFound                  // 404
	Conflict                  // 409
)

// Error is the failure of a call.
type Error struct {
	Reason Reason
	Status int    // of the answer, 0 if there was none
	Line   string // what was wrong, in one line
}

func (e *Error) Error() string { return e.Line }

// Failed reports whether err is an *Error with this reason.
func Failed(err error, reason Reason) bool {
	var e *Error
	return errors.As(err, &e) && e.Reason == reason
}

// Server is a server that can be called. Several goroutines may call its methods at
// the same time.
type Server struct {
	base  string // without a trailing slash
	shown string // in messages
	token string
	http  *http.Client
}

// New returns the server at an address: http://HOST:PORT, https://HOST:PORT,
// HOST:PORT or unix:/PATH. The token may be empty.
func New(address, token string) (*Server, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		// Calls are rare, and a kept connection may be dead by the next one.
		DisableKeepAlives: true,
		DialContext:       findLocalhost(new(net.Dialer).DialContext),
	}
	s := &Server{shown: address, token: token}
	s.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" {
			return nil, fmt.Errorf("the server %q has no path: want unix:/PATH", address)
		}
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		s.base = "http://localhost"
		return s, nil
	}
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the server %q is not an address: want http://HOST:PORT, https://HOST:PORT or unix:/PATH", s.shown)
	}
	s.shown = u.Redacted()
	s.base = strings.TrimRight(u.String(), "/")
	return s, nil
}

// dialer is net.Dialer's DialContext.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// findLocalhost dials the loopback addresses if the name localhost cannot be resolved:
// minimal systems have no /etc/hosts. RFC 6761 allows it, and curl does it too.
func findLocalhost(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		host, port, splitErr := net.SplitHostPort(address)
		if !errors.As(err, new(*net.DNSError)) || splitErr != nil || host != "localhost" {
			return c, err
		}
		for _, loopback := range []string{"127.0.0.1", "::1"} {
			if c, err = dial(ctx, network, net.JoinHostPort(loopback, port)); err == nil {
				return c, nil
			}
		}
		return nil, err
	}
}

// String returns the server's address for messages.
func (s *Server) String() string { return s.shown }

// Answer is the answer to a call that succeeded.
type Answer struct {
	Header http.Header
	Body   []byte
}

// Call sends a request without a body. The path starts with a slash and is
// encoded. An answer outside 200 to 299 is an *Error. accept may be empty.
func (s *Server) Call(ctx context.Context, method, path string, query url.Values, accept string) (Answer, error) {
	return s.Send(ctx, method, path, query, accept, nil)
}

// Send is Call with a body; nil means none.
func (s *Server) Send(ctx context.Context, method, path string, query url.Values, accept string, data []byte) (Answer, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	var content io.Reader
	if data != nil {
		content = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, s.base+path, content)
	if err != nil {
		return Answer{}, &Error{Reason: BadRequest, Line: err.Error()}
	}
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	response, err := s.http.Do(r)
	if err != nil {
		return Answer{}, s.unanswered(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return Answer{}, s.unanswered(err)
	}
	if len(body) > maxAnswer {
		return Answer{}, &Error{Foreign, response.StatusCode, fmt.Sprintf("%s answers with more than %d bytes", s, maxAnswer)}
	}
	if response.StatusCode/100 == 2 {
		return Answer{response.Header, body}, nil
	}
	return Answer{}, s.refused(response, string(body))
}

// unanswered returns the error of a call that got no answer, or only a part of one.
func (s *Server) unanswered(err error) error {
	reason := Unavailable
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		reason = Unreachable
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // without the URL
	}
	line := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		line = "it took too long"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		line = "the connection ended early"
	}
	return &Error{Reason: reason, Line: fmt.Sprintf("no answer from %s: %s", s, oneLine(line))}
}

// refused returns the error for an answer outside 200 to 299.
func (s *Server) refused(response *http.Response, body string) error {
	status := response.StatusCode
	reason := map[int]Reason{400: BadRequest, 401: Denied, 403: Denied, 404: NotFound, 409: Conflict, 413: BadRequest}[status]
	line := strings.TrimSuffix(body, "\n")
	// A refusal by Cloud Dragon is one line of plain text.
	ours := strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain") && line != "" && line == oneLine(line)
	switch {
	case ours && reason != Unavailable:
		return &Error{reason, status, line}
	case reason == Denied:
		return &Error{Denied, status, fmt.Sprintf("%s refuses the token: %s", s, response.Status)}
	case ours && (status >= 500 || status == http.StatusMisdirectedRequest):
		return &Error{Unavailable, status, line}
	}
	if status < 500 {
		reason = Foreign
	}
	return &Error{reason, status, fmt.Sprintf("%s answers %s: is it a Cloud Dragon server?", s, response.Status)}
}

// oneLine replaces control characters with spaces and truncates long text.
func oneLine(s string) string {
	const most = 1000
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// Path returns the path that consists of these names, encoded.
func Path(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(url.QueryEscape(name), "+", "%20"))
	}
	return b.String()
}

// Pages calls a listing and all pages that follow, and calls each with every answer.
func (s *Server) Pages(ctx context.Context, path string, query url.Values, accept string, each func(Answer) error) error {
	for {
		one, cancel := context.WithTimeout(ctx, callTimeout)
		answer, err := s.Call(one, "GET", path, query, accept)
		cancel()
		if err != nil {
			return err
		}
		if err := each(answer); err != nil {
			return err
		}
		next, ok := nextPage(answer.Header)
		if !ok {
			return nil
		}
		path, query = next.EscapedPath(), next.Query()
	}
}

// nextPage returns the address in a Link header with rel="next".
func nextPage(h http.Header) (*url.URL, bool) {
	for _, link := range h.Values("Link") {
		target, parameters, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		if !ok || !strings.Contains(parameters, `rel="next"`) {
			continue
		}
		u, err := url.Parse(target)
		return u, err == nil
	}
	return nil, false
}
