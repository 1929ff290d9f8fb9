package front

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// serve serves h on a loopback port and returns the address.
func serve(t *testing.T, o Options, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Max = 100
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Begin(r)
			h(w, r)
		}),
		ConnContext: ConnContext, ConnState: ConnState, MaxHeaderBytes: MaxHeaderBytes, DisableGeneralOptionsHandler: true,
	}
	done := make(chan error)
	go func() { done <- s.Serve(NewListener(l, o)) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// dial connects. The connection ends with the test, and at the latest after 30 s.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func hello(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		_, _ = io.WriteString(w, "hello\n")
	}
}

// certificate makes a certificate for 127.0.0.1.
func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// checkLine reads one answer, which has to be a line that contains part, and then the end of
// the connection.
func checkLine(t *testing.T, c io.Reader, status int, part, what string) {
	t.Helper()
	b := bufio.NewReader(c)
	a, err := http.ReadResponse(b, nil)
	if err != nil {
		t.Errorf("%.100q: %v", what, err)
		return
	}
	body, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != status || !strings.Contains(string(body), part) || !a.Close {
		t.Errorf("%.100q: got %s %q, %v; want %d with %q", what, a.Status, body, err, status, part)
	}
	if bytes.Count(body, []byte("\n")) != 1 || !bytes.HasSuffix(body, []byte("\n")) || len(body) > 600 {
		t.Errorf("%.100q: %q is not one short line", what, body)
	}
	if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%.100q: the headers are %v", what, a.Header)
	}
	if rest, err := io.ReadAll(b); len(rest) > 0 || err != nil {
		t.Errorf("%.100q: behind the answer comes %q, %v", what, rest, err)
	}
}

var malformed = []struct {
	request string
	status  int
	part    string
}{
	{"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, `bad percent escape or character: invalid URL escape "%zz"`},
	{"GET /db/1/kv/a%2 HTTP/1.1\r\nHost: a\r\n\r\n", 400, `invalid URL escape "%2"`},
	{"GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "the path has a bad"},
	{"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "the path has a bad"},
	{"GET / HTTP/1.1\r\n\r\n", 400, "missing required Host header"},
	{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "too many Host headers"},
	{"GET / HTTP/1.1\r\nHost: a b\x01\r\n\r\n", 400, "malformed"},
	{"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "malformed Host header"},
	{"GET /\r\n\r\n", 400, `malformed HTTP request "GET /"`},
	{"\r\n\r\n", 400, "bad request"},
	{"GET / HTTP/one\r\nHost: a\r\n\r\n", 400, "malformed HTTP version"},
	{"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "use HTTP/1.1"},
	{"GET / HTTP/0.9\r\n\r\n", 505, "use HTTP/1.1"},
	{"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, `invalid method "G@T"`},
	{"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400, "malformed MIME header"},
	{"GET / HTTP/1.1\r\nHost: a\r\nA b: c\r\n\r\n", 400, "invalid header name"},
	{"GET / HTTP/1.1\r\nHost: a\r\nA: b\x00c\r\n\r\n", 400, "malformed"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "Transfer-Encoding is not supported"},
	{"GET / HTTP/1.1\r\nHost: a\r\nExpect: a-miracle\r\n\r\n", 417, "only 100-continue is"},
	{"GET / HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("a", 100<<10) + "\r\n\r\n", 431, "the limit is 65536 bytes"},
	{"GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: a\r\n\r\n", 431, "the limit is 65536 bytes"},
	{"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", 1<<17) + "\r\n", 431, "the limit is 65536 bytes"},
	{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "malformed HTTP request"},
	{"GET / HTTP/1.1\r\nHost: a\r\nA: " + strings.Repeat("a", 5000) + "\r\nno colon\r\n\r\n", 400, "not valid HTTP"},
	{"GET / HTTP/1.1\r\nHost", 400, "malformed MIME header"},
	{"GET / HTTP/1.1\r\nHost: a\r\n", 400, "ends in the middle"},
}

func TestWhatHTTPRefusesIsOneLine(t *testing.T) {
	config, pool := certificate(t)
	for name, o := range map[string]Options{"tcp": {}, "plain": {Plain: true}, "tls": {TLS: config}} {
		addr := serve(t, o, hello)
		connect := func() interface {
			net.Conn
			CloseWrite() error
		} {
			c := dial(t, addr)
			if name == "tls" {
				return tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
			}
			return c.(*net.TCPConn)
		}
		for _, m := range malformed {
			c := connect()
			// The client sends everything, closes its sending side, and then reads the answer.
			if _, err := io.WriteString(c, m.request); err != nil {
				t.Errorf("%s: sending %.100q: %v", name, m.request, err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			checkLine(t, c, m.status, m.part, m.request)

			// The same after a request that was answered.
			c = connect()
			b := bufio.NewReader(c)
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			a, err := http.ReadResponse(b, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(a.Body); string(body) != "hello\n" {
				t.Fatalf("%s: got %q, %v", name, body, err)
			}
			if _, err := io.WriteString(c, m.request); err != nil {
				t.Errorf("%s: sending %.100q: %v", name, m.request, err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			checkLine(t, b, m.status, m.part, m.request)
		}
	}
}

// A client that sends its whole request before it reads gets the answer and no reset.
func TestMalformedUploadIsReadToItsEnd(t *testing.T) {
	addr := serve(t, Options{}, hello)
	const size = 20 << 20
	c := dial(t, addr)
	if _, err := fmt.Fprintf(c, "PUT /%%zz HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Errorf("sending: %v", err)
	}
	checkLine(t, c, 400, "bad percent escape", "an upload")
}

// An error line repeats only a short, printable part of what the client sent.
func FuzzFault(f *testing.F) {
	for _, m := range malformed {
		f.Add([]byte(m.request[:min(len(m.request), maxHead)]))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		line := fault(400, "", head)
		for _, r := range line {
			if !unicode.IsPrint(r) {
				t.Fatalf("the line is %q", line)
			}
		}
		if line == "" || len(line) > 500 || !utf8.ValidString(line) {
			t.Fatalf("the line is %q", line)
		}
	})
}

// A value that looks like an error answer of net/http is sent unchanged.
func TestWhatHandlersWriteIsLeftAlone(t *testing.T) {
	const like = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
	value := strings.Repeat(like, 1000)
	addr := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		for i := range 10 {
			_, _ = io.WriteString(w, value[i*len(value)/10:(i+1)*len(value)/10])
			_ = http.NewResponseController(w).Flush()
		}
	})
	c := dial(t, addr)
	b := bufio.NewReader(c)
	for range 3 {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		a, err := http.ReadResponse(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(a.Body); string(body) != value || err != nil {
			t.Fatalf("got %d bytes, %v", len(body), err)
		}
	}
}

// fill returns a request whose line and headers have n bytes.
func fill(n int) string {
	const start, end = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nA: ", "\r\n\r\n"
	return start + strings.Repeat("a", n-len(start)-len(end)) + end + "abc"
}

func TestLargestHeader(t *testing.T) {
	addr := serve(t, Options{}, hello)
	c := dial(t, addr)
	b := bufio.NewReader(c)
	for range 2 {
		if _, err := io.WriteString(c, fill(MaxHeader)); err != nil {
			t.Fatal(err)
		}
		a, err := http.ReadResponse(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(a.Body); string(body) != "hello\n" {
			t.Fatalf("got %q, %v", body, err)
		}
	}
	c = dial(t, addr)
	if _, err := io.WriteString(c, fill(MaxHeader+1)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	checkLine(t, c, 431, "the limit is 65536 bytes", "a byte more")
}

func TestHTTPOnAPortWithTLS(t *testing.T) {
	config, pool := certificate(t)
	addr := serve(t, Options{TLS: config}, hello)
	for _, method := range []string{"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS"} {
		c := dial(t, addr)
		if _, err := io.WriteString(c, method+" /db/1/kv/a HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		checkLine(t, c, 400, "this port speaks TLS", method)
	}
	for _, noise := range []string{"\x00\x00\x00\x00\x00\x00\x00\x00", "\x16\x03\x01\x00\x02hi"} {
		c := dial(t, addr)
		if _, err := io.WriteString(c, noise); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(c); bytes.Contains(got, []byte("HTTP")) {
			t.Errorf("%q is answered with %q", noise, got)
		}
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	a, err := client.Get("https://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if body, err := io.ReadAll(a.Body); string(body) != "hello\n" || a.ProtoMajor != 1 {
		t.Errorf("got %q over %s, %v", body, a.Proto, err)
	}
}

// With Options.Plain, net/http gets everything that it asks for.
func TestPlainSavesNothing(t *testing.T) {
	s := &socket{reads: []error{nil, nil, nil}}
	c := &Conn{Conn: s, busy: true, plain: true}
	c.SkipWatch()
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("the watch read %d bytes, %v", n, err)
	}
	at := time.Now().Add(time.Hour)
	for range 2 {
		if err := c.SetReadDeadline(at); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.deadlines) < 2 {
		t.Errorf("the socket was told %v", s.deadlines)
	}
}

// A flood of refused uploads takes only a limited number of goroutines.
func TestFewConnectionsLinger(t *testing.T) {
	for range lingerMost {
		lingering <- struct{}{}
	}
	server, _ := pair(t)
	server.(*Conn).Linger() // returns at once, though the client sends nothing and stays
	for range lingerMost {
		<-lingering
	}
}
