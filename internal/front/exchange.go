package front

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Plain answers plain requests. A loop calls Start and Finish, one call at a time
// for each loop, and Submit, which may take as long as the disk does.
type Plain interface {
	// Start begins to answer x. It may take long: then the loop goes on without it.
	Start(x *Exchange) Verdict
	// Submit does what the exchanges ask for, in their order: those whose Start said
	// Pending. Each has its Done called once that is done, by any goroutine. With lead
	// it may be done on the caller's goroutine.
	Submit(xs []*Exchange, lead bool)
	// Finish answers an exchange that was Pending, once it is done: Answered, Odd
	// or Aborted.
	Finish(x *Exchange) Verdict
}

// Verdict is what a Plain says of an exchange.
type Verdict uint8

const (
	// Answered means that the answer is written.
	Answered Verdict = iota
	// Pending means that Submit has to do something first.
	Pending
	// Later means that nothing was done, since an earlier request of the connection
	// is still Pending. Start is called again once none is.
	Later
	// Odd means that nothing was done, and that net/http has to serve the request. It
	// is for Finish only where Start has set Keep.
	Odd
	// Aborted means that the connection has to be closed without an answer.
	Aborted
)

// Exchange is a plain request and its answer, which it is written to as an
// http.ResponseWriter. It belongs to whoever was called with it until that returns.
type Exchange struct {
	// Request is the request as net/http would have read it, but for its context and
	// the address of the client. Its Body is there as a whole, until Start returns.
	Request *http.Request
	// Behind says that an earlier request of the connection is Pending.
	Behind bool
	// Keep is set by Start to keep what was received of the request, so that Finish
	// may say Odd. Later requests of the connection are not started before.
	Keep bool
	// State is whatever the Plain wants to keep. It is kept when the memory of the
	// exchange is used for another.
	State any

	loop    *loop
	conn    *client
	next    *Exchange // of the connection
	verdict Verdict
	ready   bool // Start has returned, and whatever was submitted is done
	pending bool
	size    int // of the request in bytes
	cost    int // bytes of memory

	url    url.URL
	values [fields]string
	reader bytes.Reader
	header http.Header // of the answer
	status int
	body   []byte
}

// Done says that what was submitted is done. The exchange is the loop's again.
func (x *Exchange) Done() { x.loop.post(x) }

// Header returns the headers of the answer.
func (x *Exchange) Header() http.Header { return x.header }

// WriteHeader sets the status of the answer.
func (x *Exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
}

// Write adds to the body of the answer.
func (x *Exchange) Write(p []byte) (int, error) {
	x.WriteHeader(http.StatusOK)
	x.body = append(x.body, p...)
	return len(p), nil
}

// body is the body of a plain request.
type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

func newExchange(ctx context.Context) *Exchange {
	x := &Exchange{header: make(http.Header), Request: new(http.Request).WithContext(ctx)}
	r := x.Request
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	r.URL, r.Header = &x.url, make(http.Header)
	return x
}

// reset makes x the exchange of the request m. known are the headers of the request
// before, which most requests share.
func (x *Exchange) reset(m *message, known *[fields]string) {
	x.Behind, x.Keep, x.ready, x.pending, x.next = false, false, false, false, nil
	x.status, x.body, x.size, x.cost = 0, x.body[:0], m.size, m.size
	clear(x.header)
	x.url = url.URL{Path: string(m.path), RawQuery: string(m.query)}
	r := x.Request
	clear(r.Header)
	for f := range fields {
		if !m.given[f] {
			continue
		}
		if string(m.values[f]) != known[f] {
			known[f] = string(m.values[f])
		}
		x.values[f] = known[f]
		if f != fieldHost {
			r.Header[canonicalNames[f]] = x.values[f : f+1 : f+1]
		}
	}
	r.Method, r.Host, r.ContentLength, r.Body = m.method, x.values[fieldHost], int64(len(m.body)), http.NoBody
	if len(m.body) > 0 {
		x.reader.Reset(m.body)
		r.Body = body{&x.reader}
	}
}

// bufferSize is up to how many bytes net/http tells the length of a body where the
// handler does not.
const bufferSize = 2048

// closes reports whether the connection ends with the answer.
func (x *Exchange) closes() bool {
	for _, v := range x.header["Connection"] {
		if strings.EqualFold(v, "close") {
			return true
		}
	}
	return false
}

// appendTo appends the answer to b, byte for byte as net/http writes it.
func (x *Exchange) appendTo(b []byte, date []byte, names *[]string) []byte {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(x.status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(x.status)...)
	b = append(b, '\r', '\n')
	*names = (*names)[:0]
	for name := range x.header {
		*names = append(*names, name)
	}
	sortStrings(*names)
	for _, name := range *names {
		for _, v := range x.header[name] {
			b = appendField(b, name, v)
		}
	}
	b = append(b, "Date: "...)
	b = append(b, date...)
	b = append(b, '\r', '\n')
	allowed := x.status >= 200 && x.status != http.StatusNoContent && x.status != http.StatusNotModified
	chunked := false
	if allowed && x.header["Content-Length"] == nil {
		if chunked = len(x.body) > bufferSize; !chunked {
			b = append(b, "Content-Length: "...)
			b = strconv.AppendInt(b, int64(len(x.body)), 10)
			b = append(b, '\r', '\n')
		}
	}
	if allowed && len(x.body) > 0 && x.header["Content-Type"] == nil {
		b = appendField(b, "Content-Type", http.DetectContentType(x.body))
	}
	if chunked {
		b = append(b, "Transfer-Encoding: chunked\r\n\r\n"...)
		b = strconv.AppendInt(b, int64(len(x.body)), 16)
		b = append(b, '\r', '\n')
		b = append(b, x.body...)
		return append(b, "\r\n0\r\n\r\n"...)
	}
	b = append(b, '\r', '\n')
	if !allowed {
		return b
	}
	return append(b, x.body...)
}

var noLineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ':', ' ')
	b = append(b, strings.Trim(noLineBreaks.Replace(value), " \t")...)
	return append(b, '\r', '\n')
}

// sortStrings sorts a few strings.
func sortStrings(s []string) {
	for i := 1; i < len(s); i++ {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
}
