package front

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Plain answers plain requests. Each loop makes one call at a time. Submit may take as
// long as the disk does.
type Plain interface {
	// Start begins to answer x. If it takes long, the loop goes on without it.
	Start(x *Exchange) Verdict
	// Submit carries out the exchanges whose Start returned Pending, in their order, and after
	// those of the Submits that have returned. When one is done, any goroutine calls its Done.
	// With lead, Submit may do the work on the caller's goroutine. If it takes long, the loop goes
	// on without it, but submits nothing that is Behind one of its exchanges until it returns.
	Submit(xs []*Exchange, lead bool)
	// Finish answers a submitted exchange after Done. It returns Answered, Odd or Aborted.
	Finish(x *Exchange) Verdict
	// Resume goes on with an exchange that was Waiting, after Done. If it takes long, the loop goes
	// on without it. It returns Waiting, Answered, Odd or Aborted.
	Resume(x *Exchange) Verdict
	// Leave is called when the client of an exchange that is Waiting, or was submitted with Keep,
	// has hung up. Done should be called soon then. Leave must not block.
	Leave(x *Exchange)
}

// Verdict is what a Plain decides about an exchange.
type Verdict uint8

const (
	// Answered means that the answer is written.
	Answered Verdict = iota
	// Pending means that the exchange has to be submitted first.
	Pending
	// Waiting means that any goroutine calls Done once when there is something to Resume for.
	Waiting
	// Later means that nothing was done because an earlier request of the connection
	// is still Pending. Start is called again when none is.
	Later
	// Odd means that nothing was done and that net/http has to serve the request.
	// Finish may return it only if Start has set Keep.
	Odd
	// Aborted means that the connection has to be closed without an answer.
	Aborted
)

// Exchange is a plain request and its answer. As an http.ResponseWriter it takes the
// answer. A method of Plain may use it until it returns.
type Exchange struct {
	// Request is the request as net/http would have read it, except for its context and
	// the client's address. The whole Body is in memory, and valid until Start returns.
	Request *http.Request
	// Behind says that an earlier request of the connection is Pending.
	Behind bool
	// Start sets Keep to keep the bytes of a Pending request, so that Finish may return Odd, or
	// because its operation may wait. Until it is answered, no later request of the connection
	// is started. An exchange that is Waiting is always kept.
	Keep bool
	// Gone tells Start whether the loop knows that the client has hung up. It tells Finish, if Start
	// has set Keep, and Resume whether the client has hung up by then.
	Gone bool
	// State belongs to the Plain. It stays when the exchange is reused for another request.
	State any

	loop      *loop
	conn      *client
	next      *Exchange // in the connection's list
	verdict   Verdict
	ready     bool // the answer can be written
	pending   bool
	waiting   bool // Done has not been called
	early     bool // Done was called before Start or Resume returned
	left      bool // Leave was called
	submitted bool
	size      int // of the request in bytes
	cost      int // bytes of memory

	url    url.URL
	values [fields]string
	reader bytes.Reader
	header http.Header // of the answer
	status int
	body   []byte
}

// Done reports that the submitted work is done, or the wait is over. The exchange belongs to the
// loop again. Done does not block.
func (x *Exchange) Done() {
	p := x.loop
	p.tell(func() { p.done = append(p.done, x) })
}

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

// reset prepares x for the request m. known holds the headers of the request before;
// most requests repeat them, so their strings are reused.
func (x *Exchange) reset(m *message, known *[fields]string) {
	x.Behind, x.Keep, x.Gone, x.ready, x.pending, x.next = false, false, false, false, false, nil
	x.left, x.submitted = false, false
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

// bufferSize is the largest body for which net/http adds a Content-Length by itself.
const bufferSize = 2048

// closes reports whether the answer closes the connection.
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
	if !isClean(value) {
		value = strings.Trim(noLineBreaks.Replace(value), " \t")
	}
	b = append(b, name...)
	b = append(b, ':', ' ')
	b = append(b, value...)
	return append(b, '\r', '\n')
}

// isClean reports whether a field's value needs no change.
func isClean(value string) bool {
	n := len(value)
	return n == 0 || value[0] > ' ' && value[n-1] > ' ' &&
		strings.IndexByte(value, '\r') < 0 && strings.IndexByte(value, '\n') < 0
}

// sortStrings sorts a short slice.
func sortStrings(s []string) {
	for i := 1; i < len(s); i++ {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
}
