package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"clouddragon/internal/client"
)

// moveRig is two servers, each with an address that it keeps when it restarts, and a map.
type moveRig struct {
	t        *testing.T
	from, to *movedServer
	file     string // the map
	c        *http.Client
}

type movedServer struct {
	*process
	base, config string
}

// newMoveRig starts both servers. to is added to the target's configuration.
func newMoveRig(t *testing.T, to ...string) *moveRig {
	t.Helper()
	r := &moveRig{t: t, file: filepath.Join(t.TempDir(), "shards.map"), c: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	r.from, r.to = newMovedServer(t, ""), newMovedServer(t, strings.Join(to, "\n"))
	text := fmt.Sprintf("# the shards\n# backend one %s\n# backend two %s http://10.0.0.9:1\n\nother one\nshop one\na%%2Fb one\n", r.from.base, r.to.base)
	if err := os.WriteFile(r.file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return r
}

func newMovedServer(t *testing.T, more string) *movedServer {
	t.Helper()
	addr := ownAddr(t)
	s := &movedServer{base: "http://" + addr, config: small(t, "listen: "+addr+"\ntoken: secret\n"+more)}
	s.process = start(t, s.config)
	return s
}

// kill ends a server with SIGKILL and starts it again.
func (s *movedServer) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	s.exit()
	s.process = start(s.t, s.config)
}

// call sends a request to a server and returns the status, the body and the header.
func (r *moveRig) call(s *movedServer, method, path, body string, headers ...string) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequest(method, s.base+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := r.c.Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error(), nil
	}
	return res.StatusCode, string(b), res.Header
}

// wants makes a call and checks its status and body; "*" is any body.
func (r *moveRig) wants(s *movedServer, status int, want, method, path, body string, headers ...string) (string, http.Header) {
	r.t.Helper()
	got, b, h := r.call(s, method, path, body, headers...)
	if got != status || want != "*" && b != want {
		r.t.Errorf("%s %s on %s: %d %q, want %d %q", method, path, s.base, got, b, status, want)
	}
	return b, h
}

func (r *moveRig) number(s *movedServer, method, path string) int64 {
	r.t.Helper()
	b, _ := r.wants(s, 200, "*", method, path, "")
	n, err := strconv.ParseInt(strings.TrimSpace(b), 10, 64)
	if err != nil {
		r.t.Errorf("%s %s: %q is no number", method, path, b)
	}
	return n
}

// mover is one run of the command, in this process. It writes its steps to out.
func (r *moveRig) mover(acc string, out io.Writer) *mover {
	r.t.Helper()
	m := &mover{account: acc, out: out}
	for _, x := range []struct {
		end *moveEnd
		s   *movedServer
	}{{&m.from, r.from}, {&m.to, r.to}} {
		server, err := client.New(x.s.base, "secret")
		if err != nil {
			r.t.Fatal(err)
		}
		x.end.Server, x.end.address = server, x.s.base
	}
	return m
}

// move runs the real command.
func (r *moveRig) move(code int, args ...string) string {
	r.t.Helper()
	cmd := exec.Command(binary, append([]string{"move", "-from", r.from.base, "-to", r.to.base}, args...)...)
	cmd.Env = append(os.Environ(), "CLOUDDRAGON_TOKEN=secret")
	b, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		r.t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		r.t.Fatalf("clouddragon move %q: exit %d, want %d; it says:\n%s", args, got, code, b)
	}
	return string(b)
}

func (r *moveRig) mapped() string {
	r.t.Helper()
	b, err := os.ReadFile(r.file)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func TestMoveTakesEverythingAlong(t *testing.T) {
	t.Parallel()
	r := newMoveRig(t)
	const acc = "/db/a%2Fb"
	odd := "%FF%0A%2F%20%25"
	// The data before the move.
	r.wants(r.from, 200, "5000\n", "POST", acc+"/sequence/"+odd+"?above=4999", "")
	r.wants(r.from, 200, "-7\n", "POST", acc+"/counter/plain?add=-7", "")
	r.wants(r.from, 200, "3\n", "POST", acc+"/counter/ends?add=3&ttl=1000", "")
	r.wants(r.from, 200, "*", "POST", acc+"/rate/r?limit=10&per=10000&cost=4", "")
	value := strings.Repeat("v", 60000)
	for i := range 40 { // more than one request takes
		r.wants(r.from, 200, "*", "PUT", fmt.Sprintf("%s/kv/large%d", acc, i), strings.Repeat(strconv.Itoa(i), 30000))
	}
	version := r.number(r.from, "PUT", acc+"/kv/empty")
	_, h := r.wants(r.from, 200, "*", "PUT", acc+"/kv/"+odd+"?ttl=2000", value, "Content-Type: text/x-odd", "Content-Encoding: br")
	large := strings.Trim(h.Get("ETag"), `"`)
	r.number(r.from, "PUT", acc+"/kv/gone")
	last := r.number(r.from, "PUT", acc+"/kv/gone")
	r.wants(r.from, 204, "", "DELETE", acc+"/kv/gone", "")
	lock := r.number(r.from, "POST", acc+"/lock/l?id=me&dur=3000&least=2000")
	for range 3 {
		r.number(r.from, "POST", acc+"/lock/several?limit=3&dur=3000")
	}
	mutex := r.number(r.from, "POST", acc+"/mlock/m?id=me&dur=3000")
	r.wants(r.from, 200, "1\n", "POST", acc+"/sequence/once", "", "Idempotency-Key: k1")
	r.wants(r.from, 200, "*", "LOCK", acc+"/tfstate/s", `{"ID":"lock-1"}`)
	r.wants(r.from, 200, "*", "POST", acc+"/tfstate/s?ID=lock-1", `{"serial":1}`)
	r.wants(r.from, 200, "1\n", "POST", "/db/other/sequence/s", "")
	r.wants(r.to, 200, "1\n", "POST", "/db/there/sequence/s", "")
	r.wants(r.to, 200, "1\n", "POST", "/db/there/mlock/m", "")

	out := r.move(0, "-account", "a/b", "-map", r.file)
	for _, line := range []string{"frozen on", "arrives on", "things are copied", "does not live on", "on two in", "lives on", "removed from", "reload HAProxy"} {
		if !strings.Contains(out, line) {
			t.Errorf("the command does not say %q:\n%s", line, out)
		}
	}
	if got, want := r.mapped(), "\nother one\nshop one\na%2Fb two\n"; !strings.HasSuffix(got, want) || !strings.HasPrefix(got, "# the shards\n# backend one") {
		t.Errorf("the map is\n%s", got)
	}
	if info, err := os.Stat(r.file); err != nil || info.Mode().Perm() != 0o640 {
		t.Error(info.Mode(), err)
	}

	check := func() {
		t.Helper()
		r.wants(r.to, 200, "5000\n", "GET", acc+"/sequence/"+odd, "")
		r.wants(r.to, 200, "-7\n", "GET", acc+"/counter/plain", "")
		_, h := r.wants(r.to, 200, "3\n", "GET", acc+"/counter/ends", "")
		r.within("the counter's end", h.Get("Ttl"), 900, 1000)
		r.wants(r.to, 200, "6\n", "GET", acc+"/rate/r?limit=10&per=10000", "")
		_, h = r.wants(r.to, 200, "", "GET", acc+"/kv/empty", "")
		if h.Get("Version") != strconv.FormatInt(version, 10) {
			t.Errorf("the empty value: version %s, want %d", h.Get("Version"), version)
		}
		_, h = r.wants(r.to, 200, value, "GET", acc+"/kv/"+odd, "", "Accept-Encoding: br")
		if h.Get("Version") != large || h.Get("Content-Type") != "text/x-odd" || h.Get("Content-Encoding") != "br" {
			t.Errorf("the large value: %v, want version %s", h, large)
		}
		r.within("the value's end", h.Get("Ttl"), 1900, 2000)
		r.wants(r.to, 404, "*", "GET", acc+"/kv/gone", "")
		for i := range 40 {
			r.wants(r.to, 200, strings.Repeat(strconv.Itoa(i), 30000), "GET", fmt.Sprintf("%s/kv/large%d", acc, i), "")
		}
		b, _ := r.wants(r.to, 200, "*", "GET", fmt.Sprintf("%s/lock/l?token=%d", acc, lock), "")
		if !strings.Contains(b, `"id":"me"`) {
			t.Errorf("the lock is held by %s", b)
		}
		r.wants(r.to, 409, "*", "POST", acc+"/lock/several?limit=3", "")
		r.wants(r.to, 200, "1\n", "POST", acc+"/sequence/once", "", "Idempotency-Key: k1")
		r.wants(r.to, 200, `{"serial":1}`, "GET", acc+"/tfstate/s", "")
		r.wants(r.to, 423, `{"ID":"lock-1"}`, "LOCK", acc+"/tfstate/s", `{"ID":"lock-2"}`)
		r.wants(r.to, 404, "*", "GET", acc+"/mlock/m", "")
		r.wants(r.to, 200, "empty\n", "GET", acc+"/kv?limit=1", "")
		r.wants(r.to, 200, "large9\n%FF%0A%2F%20%25\n", "GET", acc+"/kv?after=large8", "")

		r.wants(r.from, 421, fmt.Sprintf("account \"a/b\" has moved to %s: ask that server\n", r.to.base), "GET", acc+"/kv/empty", "")
		r.wants(r.from, 421, "*", "POST", acc+"/sequence/once", "", "Idempotency-Key: k1")
		r.wants(r.from, 200, "other\n", "GET", "/db", "")
		r.wants(r.to, 200, "a%2Fb\nthere\n", "GET", "/db", "")
		r.wants(r.from, 200, "1\n", "GET", "/db/other/sequence/s", "")
	}
	check()
	r.from.kill()
	r.to.kill()
	check()
	// New versions and tokens are above all earlier ones.
	if got := r.number(r.to, "PUT", acc+"/kv/gone"); got <= last {
		t.Errorf("version %d was given after %d", got, last)
	}
	if got := r.number(r.to, "POST", acc+"/mlock/m"); got <= mutex {
		t.Errorf("token %d was given after %d", got, mutex)
	}
	r.wants(r.to, 204, "", "DELETE", fmt.Sprintf("%s/lock/several?token=%d", acc, lock+1), "")
	if got := r.number(r.to, "POST", acc+"/lock/several?limit=3"); got <= mutex {
		t.Errorf("token %d was given after %d", got, mutex)
	}
	r.wants(r.to, 409, "*", "PUT", acc+"/kv/x?lock=l&token=1000000", "v")
	r.wants(r.to, 200, "*", "PUT", fmt.Sprintf("%s/kv/x?lock=l&token=%d", acc, lock), "v")

	// A second run has nothing left to do. Then the account moves back.
	if out := r.move(0, "-account", "a/b", "-map", r.file); strings.Contains(out, "reload") {
		t.Errorf("a move that is done says\n%s", out)
	}
	r.from, r.to = r.to, r.from
	r.move(0, "-account", "a/b", "-map", r.file)
	r.wants(r.to, 200, "5000\n", "GET", acc+"/sequence/"+odd, "")
	r.wants(r.from, 421, "*", "GET", acc+"/sequence/"+odd, "")
	r.from.stop()
	r.to.stop()
}

// within checks a header that has a number of seconds.
func (r *moveRig) within(what, text string, low, high float64) {
	r.t.Helper()
	if n, err := strconv.ParseFloat(text, 64); err != nil || n < low || n > high {
		r.t.Errorf("%s is in %q seconds, want %v to %v", what, text, low, high)
	}
}

func TestMoveCanBeGivenUp(t *testing.T) {
	t.Parallel()
	r := newMoveRig(t)
	for n := range moveSteps {
		acc := "acc" + strconv.Itoa(n)
		r.fill(acc)
		out := &atStep{n: n, then: func() error { return errCrash }}
		if err := r.mover(acc, out).run(t.Context(), r.file); !errors.Is(err, errCrash) {
			t.Fatalf("step %d: %v", n, err)
		}
		if strings.Contains(out.all.String(), "does not live on") {
			out := r.move(1, "-undo", "-account", acc)
			if !strings.Contains(out, "has moved to") {
				t.Errorf("giving up a move that is decided says\n%s", out)
			}
			r.move(0, "-account", acc, "-map", r.file)
			continue
		}
		r.wants(r.from, 503, fmt.Sprintf("account %q is being moved to another server: try again shortly\n", acc), "GET", "/db/"+acc+"/kv/k0", "")
		for range 2 { // it can be repeated
			r.move(0, "-undo", "-account", acc)
		}
		r.wants(r.from, 200, "value 299", "GET", "/db/"+acc+"/kv/k299", "")
		r.wants(r.from, 409, "*", "POST", "/db/"+acc+"/lock/l0?id=other", "")
		b, _ := r.wants(r.to, 200, "*", "GET", "/db", "")
		if strings.Contains(b, acc+"\n") {
			t.Errorf("something of %s is left on the target:\n%s", acc, b)
		}
		if strings.Contains(r.mapped(), acc) {
			t.Errorf("the map has a line of %s", acc)
		}
		// The account can be moved later.
		r.move(0, "-account", acc, "-map", r.file)
		r.moved(acc, nil)
	}
	r.from.stop()
	r.to.stop()
}

func TestMoveRefusesWhatWouldMixAccounts(t *testing.T) {
	t.Parallel()
	r := newMoveRig(t)
	r.fill("shop")
	r.wants(r.to, 200, "1\n", "POST", "/db/shop/sequence/mine", "")
	out := r.move(1, "-account", "shop", "-map", r.file)
	if !strings.Contains(out, `account "shop" already has data here`) {
		t.Errorf("it says\n%s", out)
	}
	r.wants(r.to, 200, "1\n", "GET", "/db/shop/sequence/mine", "")
	r.wants(r.to, 404, "*", "GET", "/db/shop/kv/k0", "")
	r.move(0, "-undo", "-account", "shop")
	r.wants(r.from, 200, "value 0", "GET", "/db/shop/kv/k0", "")
	r.wants(r.to, 200, "2\n", "POST", "/db/shop/sequence/mine", "")

	for _, c := range []struct {
		code int
		part string
		args []string
	}{
		{64, "-account ACCOUNT is missing", []string{"-map", r.file}},
		{64, "-map FILE is missing", []string{"-account", "x"}},
		{64, "not a possible name of an account", []string{"-account", "..", "-map", r.file}},
		{64, "unknown argument", []string{"-account", "x", "-map", r.file, "y"}},
		{1, "no such file", []string{"-account", "x", "-map", r.file + "x"}},
		{1, "does not say which backend has the server", []string{"-account", "x", "-map", r.file, "-to", "http://127.0.0.1:1"}},
		{64, "must not have a user", []string{"-account", "x", "-map", r.file, "-to", "http://:secret@127.0.0.1:1"}},
		{64, "same server", []string{"-account", "x", "-map", r.file, "-to", r.from.base + "/"}},
	} {
		if out := r.move(c.code, c.args...); !strings.Contains(out, c.part) {
			t.Errorf("%q: it says\n%s, want %q", c.args, out, c.part)
		}
	}
	cmd := exec.Command(binary, "move", "-account", "x", "-from", r.from.base, "-to", r.to.base, "-map", r.file)
	cmd.Env = append(os.Environ(), "CLOUDDRAGON_TOKEN=wrong")
	if b, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != 77 {
		t.Errorf("a wrong token: %v, %s", err, b)
	}
	r.to.stop()
	if out := r.move(69, "-account", "shop", "-map", r.file); !strings.Contains(out, "no answer from") {
		t.Errorf("a target that is down: it says\n%s", out)
	}
	r.from.stop()
}
