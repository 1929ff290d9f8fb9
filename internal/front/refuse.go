package front

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// maxHead is how much of a request is kept to tell what is wrong with it.
const maxHead = 4 << 10

// maxEcho is how much of what a client sent is repeated to it, in bytes.
const maxEcho = 64

// keepHead keeps what came of the next request. While one is with its handler
// only the watch of net/http reads beyond it, a byte. c.mu is held.
func (c *Conn) keepHead(p []byte) {
	if c.busy && len(p) != 1 {
		return
	}
	c.head = append(c.head, p[:min(len(p), maxHead-len(c.head))]...)
}

// refuse writes one line that names the fault instead of raw, the answer of
// net/http to what it cannot take for a request. The client may still be sending.
func (c *Conn) refuse(raw []byte) (int, error) {
	status, reason, ok := parseAnswer(raw)
	if !ok {
		return c.Conn.Write(raw)
	}
	c.mu.Lock()
	head := c.head
	c.mu.Unlock()
	if _, err := c.Conn.Write(answer(status, fault(status, reason, head))); err != nil {
		return 0, err
	}
	c.Linger()
	return len(raw), nil
}

// parseAnswer reads the status of an answer, and what its body says beyond it.
func parseAnswer(raw []byte) (status int, reason string, ok bool) {
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil)
	if err != nil {
		return 0, "", false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, "", false
	}
	reason = strings.TrimPrefix(string(body), fmt.Sprintf("%d %s", r.StatusCode, http.StatusText(r.StatusCode)))
	return r.StatusCode, strings.TrimPrefix(reason, ": "), r.StatusCode >= 400
}

// fault says in a line what is wrong with a request that begins with head.
func fault(status int, reason string, head []byte) string {
	switch status {
	case http.StatusRequestHeaderFieldsTooLarge:
		return fmt.Sprintf("the request line and the headers are too large: the limit is %d bytes", MaxHeader)
	case http.StatusNotImplemented:
		return "this Transfer-Encoding is not supported: send chunked, or a Content-Length"
	case http.StatusExpectationFailed:
		return "this Expect is not supported: only 100-continue is"
	case http.StatusHTTPVersionNotSupported:
		return "this version of HTTP is not supported: use HTTP/1.1"
	}
	if reason != "" {
		return "bad request: " + reason
	}
	_, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	var bad *url.Error
	switch {
	case errors.As(err, &bad):
		return fmt.Sprintf("the path has a bad percent escape or character: %s", short(bad.Err.Error()))
	case err == io.EOF || err == io.ErrUnexpectedEOF && len(head) < maxHead:
		return "bad request: it ends in the middle of its headers"
	case err != nil && err != io.ErrUnexpectedEOF:
		return "bad request: " + short(strings.TrimPrefix(err.Error(), "net/http: "))
	}
	return "bad request: its first line, a header or the length of its body is not valid HTTP"
}

// short makes a text that may hold what a client sent fit for an error line.
func short(s string) string {
	const most = 4 * maxEcho
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// answer returns an answer of one line, after which the connection is closed.
func answer(status int, line string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	b.WriteString("Cache-Control: no-store\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nVary: Accept\r\n")
	b.WriteString("Content-Length: " + strconv.Itoa(len(line)+1) + "\r\n\r\n" + line + "\n")
	return b.Bytes()
}

// looksLikeHTTP says whether what should begin a TLS handshake begins a request.
func looksLikeHTTP(b []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "DELET", "OPTIO", "PATCH"} {
		if string(b) == method {
			return true
		}
	}
	return false
}
