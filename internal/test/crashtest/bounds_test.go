package crashtest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// side runs f for the given number of clients at once, each on its own connection, and returns
// the first errors.
func side(addr string, clients int, f func(i int, c raw) error) error {
	errs := make([]error, clients)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			c, err := dialRaw(addr)
			if err == nil {
				if err = c.SetDeadline(time.Now().Add(3 * patience)); err == nil {
					err = f(i, c)
				}
				closed(c)
			}
			errs[i] = err
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// ask sends a request and reads the whole answer. It returns the status and the number of
// bytes.
func ask(c raw, request, method string) (status int, n int64, err error) {
	if _, err := io.WriteString(c, request); err != nil {
		return 0, 0, err
	}
	r, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return 0, 0, err
	}
	n, err = io.Copy(io.Discard, r.Body)
	return r.StatusCode, n, errors.Join(err, r.Body.Close())
}

// wantStatus sends a request and compares the answer. A read that finds no memory for a large value in
// half a minute, as on a busy machine, is sent again.
func wantStatus(c raw, method, target, headers, body string, want int, length int64) error {
	request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\n%s", method, target, headers)
	if body != "" {
		request += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	status, n, err := ask(c, request+"\r\n"+body, method)
	for err == nil && method == "GET" && status == http.StatusServiceUnavailable {
		status, n, err = ask(c, request+"\r\n"+body, method)
	}
	if err == nil && (status != want || length >= 0 && n != length) {
		err = fmt.Errorf("%s %s: %d with %d bytes, want %d with %d", method, target, status, n, want, length)
	}
	return err
}

// Whatever many clients ask for, and however slowly, the server stays within the documented
// memory for values (256 MiB here), plus a little for itself and for one batch.
func TestCrowdsStayWithinMemory(t *testing.T) {
	begin(t)
	if raceEnabled {
		t.Skip("the race detector takes several times the memory")
	}
	const (
		large, medium = 64 << 20, 8 << 20
		bound         = 256 << 20
		besides       = 288 << 20 // a batch of the largest value, a copy of it while it grows, what is garbage on a busy machine, and the process
	)
	s := serve(t, setup{binary: *binary, data: filepath.Join(t.TempDir(), "data"), config: "log: {segment: 256MiB}\nlimits: {value: 64MiB}"})
	addr := s.addr
	for name, size := range map[string]int{"large": large, "medium": medium} {
		if err := side(addr, 1, func(_ int, c raw) error {
			return wantStatus(c, "PUT", "/db/1/kv/"+name, "", strings.Repeat("v", size), 200, -1)
		}); err != nil {
			t.Fatal(err)
		}
	}
	last := 0
	for _, crowd := range []struct {
		name    string
		clients int
		act     func(i int, c raw) error
	}{
		{"HEAD of a large value", 400, func(_ int, c raw) error {
			return wantStatus(c, "HEAD", "/db/1/kv/large", "", "", 200, 0)
		}},
		{"a condition that fails", 40, func(i int, c raw) error {
			return wantStatus(c, "PUT", "/db/1/kv/large", "If-Match: \"999999\"\r\n", "new", 412, -1)
		}},
		{"a value that has not changed", 40, func(_ int, c raw) error {
			return wantStatus(c, "GET", "/db/1/kv/large", "If-None-Match: *\r\n", "", 304, 0)
		}},
		{"GET of a large value", 40, func(_ int, c raw) error {
			return wantStatus(c, "GET", "/db/1/kv/large", "", "", 200, large)
		}},
		{"a part of a large value", 40, func(_ int, c raw) error {
			return wantStatus(c, "GET", "/db/1/kv/large", "Range: bytes=5-9\r\n", "", 206, 5)
		}},
		{"GET of a medium value", 400, func(_ int, c raw) error {
			return wantStatus(c, "GET", "/db/1/kv/medium", "", "", 200, medium)
		}},
		{"uploads of a mebibyte", 400, func(i int, c raw) error {
			return wantStatus(c, "PUT", fmt.Sprintf("/db/1/kv/up-%d", i%50), "", strings.Repeat("u", 1<<20), 200, -1)
		}},
		{"chunked uploads", 40, func(i int, c raw) error {
			chunk := fmt.Sprintf("%x\r\n%s\r\n", 100_000, strings.Repeat("c", 100_000))
			return wantStatus(c, "PUT", fmt.Sprintf("/db/1/kv/up-%d", i), "Transfer-Encoding: chunked\r\n\r\n"+strings.Repeat(chunk, 20)+"0\r\n", "", 200, -1)
		}},
		{"parameters in a large body", 200, func(i int, c raw) error {
			body := "n=1" + strings.Repeat("&", 1<<20-3)
			status, _, err := ask(c, fmt.Sprintf("POST /db/1/sequence/s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(body), body), "POST")
			if err == nil && status != 200 && status != 400 {
				err = fmt.Errorf("a form of 1 MiB: %d", status)
			}
			return err
		}},
		{"scrapes", 200, func(_ int, c raw) error {
			status, _, err := ask(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET")
			if err == nil && status != 200 && status != 503 {
				err = fmt.Errorf("a scrape: %d", status)
			}
			return err
		}},
		{"large headers on locks that are waited for", 200, func(i int, c raw) error {
			return wantStatus(c, "POST", fmt.Sprintf("/db/1/mlock/crowd?id=%d&dur=60&wait=100ms", i),
				"X-Large: "+strings.Repeat("h", 60<<10)+"\r\n", "", map[bool]int{true: 200, false: 409}[false], -1)
		}},
		{"the other calls", 200, func(i int, c raw) error {
			for _, call := range []string{"POST /db/1/sequence/a", "POST /db/1/counter/a", "GET /db/1/counter/a", "POST /db/1/lock/%d?id=a",
				"GET /db/1/lock/%d", "DELETE /db/1/lock/%d?id=a", "POST /db/1/munlock/%d", "DELETE /db/1/kv/none", "GET /healthz"} {
				if strings.Contains(call, "%d") {
					call = fmt.Sprintf(call, i)
				}
				method, target, _ := strings.Cut(call, " ")
				status, _, err := ask(c, method+" "+target+" HTTP/1.1\r\nHost: localhost\r\n\r\n", method)
				if err != nil || status >= 300 {
					return fmt.Errorf("%s: %d %w", call, status, err)
				}
			}
			return nil
		}},
	} {
		if crowd.name == "large headers on locks that are waited for" {
			if err := side(addr, 1, func(_ int, c raw) error {
				return wantStatus(c, "POST", "/db/1/mlock/crowd?dur=1h", "", "", 200, -1)
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := side(addr, crowd.clients, crowd.act); err != nil {
			t.Errorf("%s: %v", crowd.name, err)
		}
		v, err := s.vitals()
		if err != nil {
			t.Fatal(err)
		}
		if v.memory > last {
			t.Logf("after %d clients with %s the peak is %d MiB", crowd.clients, crowd.name, v.memory>>20)
			last = v.memory
		}
	}

	// Uploads that stop before their last byte, and clients that do not read, keep their
	// memory. There are more of them than there is memory for.
	slow, err := crowdOf(addr, 40, func(int) string { return "GET /db/1/kv/large HTTP/1.1\r\nHost: localhost\r\n\r\n" })
	if err != nil {
		t.Fatal(err)
	}
	var uploads sync.WaitGroup
	var open []raw
	for i := range 600 {
		c, err := dialRaw(addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Time{}); err != nil { // it lasts until hangUp
			t.Fatal(err)
		}
		open = append(open, c)
		uploads.Go(func() {
			// The write blocks if the server has no memory for the body, and ends with the
			// connection.
			_, err := fmt.Fprintf(c, "PUT /db/1/kv/slow-%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n%s", i, strings.Repeat("s", 999_999))
			if err != nil && !gaveUp(err) {
				t.Error(err)
			}
		})
	}
	// Calls that need no memory are served meanwhile.
	if err := side(addr, 20, func(i int, c raw) error {
		for range 50 {
			if err := wantStatus(c, "PUT", fmt.Sprintf("/db/1/kv/small-%d", i), "", "small", 200, -1); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	v, err := s.vitals()
	hangUp(open)
	hangUp(slow)
	uploads.Wait()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("with 600 uploads that stopped and 40 readers that do not read the peak is %d MiB", v.memory>>20)
	if v.memory > bound+besides {
		t.Errorf("the server took up to %d MiB, want at most %d", v.memory>>20, (bound+besides)>>20)
	}
	if err := side(addr, 1, func(_ int, c raw) error {
		return wantStatus(c, "GET", "/db/1/kv/large", "", "", 200, large)
	}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if err := errors.Join(s.stop(), s.trouble()); err != nil {
		t.Error(err)
	}
}

// With few descriptors and many segments, the server starts, serves every value, and accepts
// as many connections as it has descriptors left for.
func TestFewDescriptorsAreEnough(t *testing.T) {
	begin(t)
	t.Parallel()
	o := setup{binary: *binary, data: filepath.Join(t.TempDir(), "data"), config: smallFiles, files: 64}
	const keys = 600 // four a segment
	value := func(i int) string { return strconv.Itoa(i) + strings.Repeat("v", 14<<10) }
	for range 2 {
		s := serve(t, o)
		c := &client{addr: s.addr}
		for i := range keys {
			mustBe(t, c, 200, "PUT", fmt.Sprintf("/db/1/kv/%d", i), value(i))
		}
		c.close()
		if err := side(s.addr, 20, func(i int, c raw) error {
			for k := i; k < keys; k += 7 {
				if err := wantStatus(c, "GET", fmt.Sprintf("/db/1/kv/%d", k), "", "", 200, int64(len(value(k)))); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if err := errors.Join(s.stop(), s.trouble()); err != nil {
			t.Error(err)
		}
	}
	o.files = 30
	s := launch(t, o)
	if code, err := s.wait(patience); err != nil || code != 1 || !strings.Contains(s.output(), "set it to 64") {
		t.Errorf("with 30 descriptors: exit code %d, %v, want 1 and what to set:\n%s", code, err, s.output())
	}
}
