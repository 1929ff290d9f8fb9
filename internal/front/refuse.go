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

// maxHead is how many bytes of a request are kept to find out what is wrong with it.
const maxHead = 4 << 10

// maxEcho is how many bytes of a request are quoted in an error line.
const maxEcho = 64

// keepHead keeps the beginning of the next request. While a handler has a request, only
// net/http's watch reads, one byte. c.mu must be held.
func (c *Conn) keepHead(p []byte) {
	if c.busy && len(p) != 1 {
		return
	}
	c.head = append(c.head, p[:min(len(p), maxHead-len(c.head))]...)
}

// refuse replaces raw, net/http's answer to a request that it cannot parse, by an answer of
// one line that names the fault. The client may still be sending.
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

// parseAnswer returns the status of an answer and the text of its body.
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

// fault returns a line that says what is wrong with a request that begins with head.
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

// short makes a text that a client may have sent fit for an error line: it replaces
// unprintable characters and cuts what is too long.
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

// looksLikeHTTP reports whether bytes that should begin a TLS handshake begin a request.
func looksLikeHTTP(b []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "DELET", "OPTIO", "PATCH"} {
		if string(b) == method {
			return true
		}
	}
	return false
}
