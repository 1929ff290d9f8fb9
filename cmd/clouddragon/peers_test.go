package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"clouddragon/internal/replica"
)

// The routes below /replica/ that operators use follow the rules of all others, on a primary, on
// its standby, and on a standby that has no data yet.
func TestRoutesOfReplicationFollowTheRules(t *testing.T) {
	t.Parallel()
	const tokens = "listen: 127.0.0.1:0\ntoken: full\ntokens: [{token: some, accounts: [a]}, {token: reads, readonly: true}]\n"
	p := start(t, small(t, tokens))
	sb := start(t, small(t, tokens+`replica: {of: "http://`+p.addr+`", sync: true}`+"\n"))
	eventually(t, func() string {
		if code, body := ask(t, http.DefaultClient, "GET", "http://"+sb.addr+"/healthz?role=standby"); code != 200 {
			return body
		}
		return ""
	})
	unreachable, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer unreachable.Close()
	empty := start(t, small(t, tokens+`replica: {of: "http://`+unreachable.Addr().String()+`", sync: true}`+"\n"))
	for name, server := range map[string]*process{"primary": p, "standby": sb, "standby without data": empty} {
		for _, x := range []struct {
			method, path, token, header string
			status                      int
			line                        string // a part of it
		}{
			{"GET", "/replica/status", "full", "", 200, `"role":"`},
			{"HEAD", "/replica/status", "full", "", 200, ""},
			{"GET", "/replica/status", "", "", 401, "a token is needed"},
			{"GET", "/replica/status", "wrong", "", 401, "the token is not known here"},
			{"GET", "/replica/status", "wrong", "Accept: application/json", 401, `"status":401`},
			{"GET", "/replica/status", "some", "", 403, "bound to accounts"},
			{"POST", "/replica/promote", "reads", "", 403, "for reading only"},
			{"GET", "/replica/status?x=1", "full", "", 400, `unknown parameter "x"`},
			{"POST", "/replica/promote?forc=1", "full", "", 400, `unknown parameter "forc"`},
			{"POST", "/replica/promote?force=maybe", "full", "", 400, "force must be"},
			{"POST", "/replica/promote?force=1&force=1", "full", "", 400, "given twice"},
			{"DELETE", "/replica/status", "full", "", 405, "use GET, HEAD"},
			{"GET", "/replica/promote", "full", "", 405, "use POST"},
			{"GET", "/replica/status", "full", "Origin: http://evil.example", 403, "a web page of"},
			{"POST", "/replica/promote?force=1", "full", "Sec-Fetch-Site: cross-site", 403, "another site"},
			{"POST", "/replica/leave", "full", "Origin: http://evil.example", 403, "a web page of"},
			{"GET", "/db/a/kv/k", "", "", 401, "a token is needed"},
			{"GET", "/metrics", "", "", 401, "a token is needed"},
			{"GET", "/healthz?role=primry", "", "", 400, "role must be"},
			{"GET", "/nothing", "full", "", 404, "no such route"},
		} {
			r, err := http.NewRequestWithContext(t.Context(), x.method, "http://"+server.addr+x.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if x.token != "" {
				r.SetBasicAuth("", x.token)
			}
			if key, value, ok := strings.Cut(x.header, ": "); ok {
				r.Header.Set(key, value)
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != x.status || !strings.Contains(string(body), x.line) {
				t.Errorf("%s: %s %s as %q %s: %d %v %q, want %d and %q", name, x.method, x.path, x.token, x.header, res.StatusCode, err, body, x.status, x.line)
			}
			if x.status == 401 && len(res.Header["Www-Authenticate"]) != 2 {
				t.Errorf("%s: %s: WWW-Authenticate is %q", name, x.path, res.Header["Www-Authenticate"])
			}
			if x.status == 405 && res.Header.Get("Allow") == "" {
				t.Errorf("%s: %s %s: no Allow", name, x.method, x.path)
			}
			if got := res.Header.Get("Vary"); got != "Accept" && x.status >= 400 {
				t.Errorf("%s: %s %s: Vary is %q", name, x.method, x.path, got)
			}
		}
		// Nobody was promoted.
		if code, body := asToken(t, "full", "GET", "http://"+server.addr+"/replica/status"); code != 200 || !strings.Contains(body, `"epoch":1,`) {
			t.Errorf("%s: afterwards %d %s", name, code, body)
		}
	}
	if code, body := asToken(t, "full", "GET", "http://"+empty.addr+"/db/a/kv/k?stale=true"); code != 421 || !strings.Contains(body, unreachable.Addr().String()) || strings.Contains(body, "stale") {
		t.Errorf("a standby without data: %d %s", code, body)
	}
	want(t, http.DefaultClient, "GET", "http://"+empty.addr+"/healthz", 503, "the standby does not follow its primary yet\n")
	empty.stop()
	sb.stop()
	p.stop()
}

// asToken calls a server with a token.
func asToken(t *testing.T, token, method, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// A primary is replaced while a write waits for its standby. It stops like any other server.
func TestReplacedServerStopsCleanly(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	sb := standbyOf(t, p, "sync: true")
	p.until("the standby is in sync", inSync)
	sb.until("it is in sync", inSync)
	sb.signal(syscall.SIGKILL)
	sb.exit()
	eventually(t, func() string {
		code, body := ask(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/s")
		if code == 503 && strings.Contains(body, "unknown") {
			return ""
		}
		return fmt.Sprintf("a write without the standby: %d %s", code, body)
	})
	if out, code := promoted(t, "-data", sb.dataOf()); code != 0 || out != "2\n" {
		t.Fatalf("promote: exit %d: %s", code, out)
	}
	config, err := os.ReadFile(sb.config)
	if err != nil {
		t.Fatal(err)
	}
	next := start(t, string(config))
	p.until("it knows that it was replaced", func(s replica.Status) bool { return s.Role == "replaced" })
	p.stop()
	next.stop()
}

// docs/operations.md tells how to restore a backup on servers that were promoted before.
func TestRestoreWithAStandby(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: "+ownAddr(t)+"\n"))
	sb := standbyOf(t, p, "sync: true")
	p.until("the standby is in sync", inSync)
	if out, code := promoted(t, "-server", p.addr); code != 0 || out != "2\n" {
		t.Fatalf("promote: exit %d: %s", code, out)
	}
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/s?n=7", 200, "7\n")
	sb.until("it knows the epoch", func(s replica.Status) bool { return s.Epoch == 2 && s.InSync })
	file := filepath.Join(t.TempDir(), "backup")
	if _, errs, code := call(t, "http://"+p.addr, "backup", "-o", file); code != 0 {
		t.Fatal(errs)
	}
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/s", 200, "8\n")
	sb.stop()
	p.stop()
	for _, dir := range []string{p.dataOf(), sb.dataOf()} {
		if err := os.Rename(dir, dir+".old"); err != nil {
			t.Fatal(err)
		}
	}
	if _, errs, code := call(t, "", "restore", "-data", p.dataOf(), file); code != 0 {
		t.Fatal(errs)
	}
	restored := start(t, "data: "+p.dataOf()+"\nlisten: "+p.addr+"\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\n")
	again := start(t, "data: "+sb.dataOf()+"\nlisten: 127.0.0.1:0\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\nreplica: {of: \"http://"+p.addr+"\", sync: true}\n")
	restored.until("the standby is in sync", inSync)
	want(t, http.DefaultClient, "GET", "http://"+restored.addr+"/db/1/sequence/s", 200, "7\n")
	want(t, http.DefaultClient, "GET", "http://"+again.addr+"/db/1/sequence/s?stale=true", 200, "7\n")
	again.stop()
	restored.stop()
}

// A directory with a typing error in its name gets no files.
func TestPromoteLeavesOtherDirectoriesAlone(t *testing.T) {
	dir := t.TempDir()
	for _, data := range []string{dir, filepath.Join(dir, "missing")} {
		if out, code := promoted(t, "-data", data); code != 1 || !strings.Contains(out, data+" is not the data directory of a server") {
			t.Errorf("promote -data %s: exit %d: %s", data, code, out)
		}
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("it has made %q", left)
	}
}
