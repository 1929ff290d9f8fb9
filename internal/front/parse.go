package front

import "bytes"

// A plain request is one that can be read in one way only: net/http reads every request
// that parse accepts in the same way. All others are left to net/http: rare ones, large
// ones, malformed ones, and those with headers that change how they are answered.

// Limits of a plain request, in bytes.
const (
	maxPlainHead = 8 << 10
	maxPlainBody = 16<<10 - 1
)

// field is a header that a plain request may have.
type field uint8

const (
	fieldHost field = iota
	fieldAccept
	fieldAuthorization
	fieldContentLength
	fieldContentType
	fieldUserAgent
	fieldConnection
	fieldIdempotencyKey
	fieldAcceptEncoding // this one and those below are ignored
	fieldAcceptLanguage
	fields
)

// fieldNames are in lower case; canonicalNames as net/http spells them.
var (
	fieldNames     = [fields]string{"host", "accept", "authorization", "content-length", "content-type", "user-agent", "connection", "idempotency-key", "accept-encoding", "accept-language"}
	canonicalNames = [fields]string{"Host", "Accept", "Authorization", "Content-Length", "Content-Type", "User-Agent", "Connection", "Idempotency-Key", "Accept-Encoding", "Accept-Language"}
)

// message is a plain request, as slices of the bytes that were received.
type message struct {
	method string
	path   []byte
	query  []byte // after the question mark
	values [fields][]byte
	given  [fields]bool
	body   []byte
	size   int // of head and body
}

// verdict is what parse finds.
type verdict uint8

const (
	incomplete verdict = iota // the request is not complete yet
	plain                     // the bytes begin with a plain request
	odd                       // net/http has to read it
)

var plainMethods = [...]string{"GET", "POST", "PUT", "DELETE"}

var (
	version    = []byte(" HTTP/1.1")
	inPath     = set("-._~/:@$&+,;=")
	inQuery    = set("-._~/:@$&+,;=")
	inHost     = set("-._:[]")
	inName     = set("-")
	inValue    = printable()
	keepsAlive = []byte("keep-alive")
)

// set returns the letters, the digits and the bytes of more.
func set(more string) (s [256]bool) {
	for c := range s {
		s[c] = c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || bytes.IndexByte([]byte(more), byte(c)) >= 0
	}
	return s
}

// printable returns the bytes from space to tilde.
func printable() (s [256]bool) {
	for c := ' '; c <= '~'; c++ {
		s[c] = true
	}
	return s
}

// all reports whether every byte of b is in s.
func all(b []byte, s *[256]bool) bool {
	for _, c := range b {
		if !s[c] {
			return false
		}
	}
	return true
}

// parse reads the request at the beginning of b into m. Once it has found a request odd,
// more bytes do not change that.
func parse(b []byte, m *message) verdict {
	*m = message{}
	line, rest, ok := nextLine(b)
	if !ok {
		return tooLong(len(b))
	}
	if !m.requestLine(line) {
		return odd
	}
	for {
		if line, rest, ok = nextLine(rest); !ok {
			return tooLong(len(b))
		}
		if len(line) == 0 {
			break
		}
		if !m.header(line) {
			return odd
		}
	}
	head := len(b) - len(rest)
	if head > maxPlainHead || !m.given[fieldHost] {
		return odd
	}
	length, ok := m.length()
	if !ok || m.method == "GET" && length > 0 {
		return odd
	}
	if len(rest) < length {
		return incomplete
	}
	m.body, m.size = rest[:length], head+length
	return plain
}

// tooLong returns the verdict on a head whose end has not been received.
func tooLong(n int) verdict {
	if n > maxPlainHead {
		return odd
	}
	return incomplete
}

// nextLine returns the next line without its CRLF. For a line that ends in LF alone it returns
// it with its LF, which no valid line has.
func nextLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return nil, b, false
	}
	if i == 0 || b[i-1] != '\r' {
		return b[:i+1], b[i+1:], true
	}
	return b[:i-1], b[i+1:], true
}

// requestLine reads the request line and reports whether it is plain.
func (m *message) requestLine(line []byte) bool {
	for _, method := range plainMethods {
		if n := len(method); len(line) > n+1 && string(line[:n]) == method && line[n] == ' ' {
			m.method, line = method, line[n+1:]
			break
		}
	}
	target, ok := bytes.CutSuffix(line, version)
	if m.method == "" || !ok {
		return false
	}
	path, query, asked := bytes.Cut(target, []byte{'?'})
	if len(path) == 0 || path[0] != '/' || len(path) > 1 && path[1] == '/' || asked && len(query) == 0 {
		return false
	}
	m.path, m.query = path, query
	return all(path, &inPath) && all(query, &inQuery)
}

// header reads a header line and reports whether it is plain.
func (m *message) header(line []byte) bool {
	name, value, ok := bytes.Cut(line, []byte{':'})
	if !ok || !all(name, &inName) || !all(value, &inValue) {
		return false
	}
	f, ok := fieldOf(name)
	if !ok || m.given[f] {
		return false
	}
	value = bytes.Trim(value, " ")
	m.given[f], m.values[f] = true, value
	switch f {
	case fieldHost:
		return len(value) > 0 && all(value, &inHost)
	case fieldConnection:
		return bytes.EqualFold(value, keepsAlive)
	case fieldContentLength:
		return len(value) > 0
	}
	return true
}

// fieldOf finds a header by its name, ignoring case.
func fieldOf(name []byte) (field, bool) {
	for f, known := range fieldNames {
		if len(name) == len(known) && equalFold(name, known) {
			return field(f), true
		}
	}
	return 0, false
}

// equalFold compares letters, digits and hyphens with lower, which is in lower case.
func equalFold(b []byte, lower string) bool {
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// length returns the length of the body, if it is plain.
func (m *message) length() (n int, ok bool) {
	v := m.values[fieldContentLength]
	if len(v) > 1 && v[0] == '0' || len(v) > 5 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, n <= maxPlainBody
}
