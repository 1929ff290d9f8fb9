package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/replica"
)

// standbyOf starts a standby of a server and waits until it listens.
func standbyOf(t *testing.T, primary *process, more string) *process {
	t.Helper()
	return start(t, small(t, "listen: "+ownAddr(t)+"\n"+`replica: {of: "http://`+primary.addr+`", `+more+"}\n"))
}

// replicaStatus asks a server for its role.
func (p *process) replicaStatus() (s replica.Status) {
	p.t.Helper()
	code, body := ask(p.t, http.DefaultClient, "GET", "http://"+p.addr+"/replica/status")
	if code != http.StatusOK {
		p.t.Fatalf("GET /replica/status: %d %s", code, body)
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// until polls the role of a server until it is as wanted.
func (p *process) until(what string, ok func(replica.Status) bool) {
	p.t.Helper()
	eventually(p.t, func() string {
		s := p.replicaStatus()
		if ok(s) {
			return ""
		}
		return fmt.Sprintf("not yet: %s; it is %+v", what, s)
	})
}

func inSync(s replica.Status) bool { return s.InSync && s.Live }

// dataOf returns the data directory of a server.
func (p *process) dataOf() string {
	b, err := os.ReadFile(p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	dir, _, _ := strings.Cut(strings.TrimPrefix(string(b), "data: "), "\n")
	return dir
}

func promoted(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"promote"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestStandbyAnswersStaleReadsOnly(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: "+ownAddr(t)+"\n"))
	c := http.DefaultClient
	want(t, c, "POST", "http://"+p.addr+"/db/1/sequence/s?n=7", 200, "7\n")
	want(t, c, "POST", "http://"+p.addr+"/db/1/counter/c?add=3", 200, "3\n")
	sb := standbyOf(t, p, "sync: true")
	sb.until("it is in sync", inSync)
	p.until("its standby is in sync", inSync)
	base := "http://" + sb.addr
	for _, x := range []struct{ method, path string }{
		{"GET", "/db/1/sequence/s"}, {"POST", "/db/1/sequence/s"}, {"GET", "/db/1/sequence/s?stale=false"},
		{"GET", "/db/1/sequence/s?stale=true&not=7"}, {"POST", "/db/1/batch"}, {"GET", "/db/1/lock/l"}, {"POST", "/db/1/mlock/m"},
		{"GET", "/db"}, {"GET", "/db/1/sequence"}, {"GET", "/backup"}, {"GET", "/db/1/events"}, {"GET", "/db/1/tfstate/t"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), x.method, base+x.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusMisdirectedRequest || res.Header.Get("Location") != "http://"+p.addr {
			t.Errorf("%s %s: %d, Location %q; want 421 and the primary's address", x.method, x.path, res.StatusCode, res.Header.Get("Location"))
		}
	}
	want(t, c, "GET", base+"/db/1/sequence/s?stale=true", 200, "7\n")
	want(t, c, "GET", base+"/db/1/counter/c?stale=true", 200, "3\n")
	want(t, c, "GET", "http://"+p.addr+"/db/1/sequence/s?stale=true", 200, "7\n")
	if code, body := ask(t, c, "GET", base+"/db/1/sequence/s?stale=maybe"); code != 400 || !strings.Contains(body, "stale") {
		t.Errorf("stale=maybe: %d %s", code, body)
	}
	want(t, c, "GET", base+"/healthz?role=primary", 503, "this server is not the primary\n")
	want(t, c, "GET", base+"/healthz?role=standby", 200, "ok\n")
	want(t, c, "GET", "http://"+p.addr+"/healthz?role=primary", 200, "ok\n")
	for addr, line := range map[string]string{p.addr: "clouddragon_replica_primary 1\n", sb.addr: "clouddragon_replica_primary 0\n"} {
		if _, body := ask(t, c, "GET", "http://"+addr+"/metrics"); !strings.Contains(body, line) || !strings.Contains(body, "clouddragon_replica_in_sync 1\n") {
			t.Errorf("/metrics lacks %q, or that the standby is in sync", line)
		}
	}
	// Writes reach the standby.
	want(t, c, "POST", "http://"+p.addr+"/db/1/sequence/s", 200, "8\n")
	eventually(t, func() string {
		_, body := ask(t, c, "GET", base+"/db/1/sequence/s?stale=true")
		if body == "8\n" {
			return ""
		}
		return "the standby still says " + body
	})
	sb.stop()
	p.stop()
}

func TestPrimaryAnswersNoWriteWithoutItsStandby(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: "+ownAddr(t)+"\n"))
	c := http.DefaultClient
	url := "http://" + p.addr + "/db/1/sequence/s"
	sb := standbyOf(t, p, "sync: true")
	p.until("the standby is in sync", inSync)
	want(t, c, "POST", url, 200, "1\n")
	sb.signal(syscall.SIGKILL)
	sb.exit()
	eventually(t, func() string {
		code, body := ask(t, c, "PUT", "http://"+p.addr+"/db/1/kv/probe?ver=99") // changes nothing
		if code == 503 && strings.Contains(body, "standby") {
			return ""
		}
		return fmt.Sprintf("without the standby: %d %s", code, body)
	})
	want(t, c, "GET", url, 200, "1\n")
	want(t, c, "GET", "http://"+p.addr+"/healthz?role=primary", 503, "this server is not the primary\n")

	// The same holds after a restart, and reads wait for the standby too.
	p.signal(syscall.SIGKILL)
	p.exit()
	again := start(t, "data: "+p.dataOf()+"\nlisten: "+p.addr+"\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\n")
	for _, method := range []string{"GET", "POST"} {
		if code, body := ask(t, c, method, url); code != 503 || !strings.Contains(body, "standby") {
			t.Errorf("%s after a restart without the standby: %d %s", method, code, body)
		}
	}

	// The standby is back.
	back := start(t, "data: "+sb.dataOf()+"\nlisten: 127.0.0.1:0\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\nreplica: {of: \"http://"+p.addr+"\", sync: true}\n")
	again.until("the standby is in sync again", inSync)
	want(t, c, "POST", url, 200, "2\n")

	// A standby that is stopped says so, and may not be promoted any more.
	back.until("it is in sync", inSync)
	back.stop()
	want(t, c, "POST", url, 200, "3\n")
	out, code := promoted(t, "-data", back.dataOf())
	if code != 75 || !strings.Contains(out, "may lack writes") {
		t.Errorf("promote a standby that has left: exit %d: %s", code, out)
	}
	again.stop()
	if out, code := promoted(t, "-data", back.dataOf(), "-force"); code != 0 || out != "2\n" {
		t.Errorf("promote it by force: exit %d: %s", code, out)
	}
}

// Both a plain request and one that net/http serves are tried.
func TestWriteOnItsWayToAStandbyThatHangsGetsAnAnswer(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: "+ownAddr(t)+"\n"))
	sb := standbyOf(t, p, "sync: true")
	p.until("the standby is in sync", inSync)
	url := "http://" + p.addr + "/db/1/counter/c"
	sent, n := 0, int64(0)
	for _, path := range []string{url + "?add=1", "http://" + p.addr + "/db/1/batch"} {
		p.until("the standby is in sync", inSync)
		sb.pause()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // it is answered after five
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, "POST", path, strings.NewReader("POST counter/c?add=1\n"))
		if err != nil {
			t.Fatal(err)
		}
		if path == url+"?add=1" {
			r.Body, r.ContentLength = nil, 0
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		unknown := strings.Contains(string(body), "outcome is unknown")
		refused := strings.Contains(string(body), "nothing was changed") // the standby had been hanging for longer
		if err != nil || res.StatusCode != 503 || !unknown && !refused {
			t.Errorf("POST %s while the standby hangs: %d %s (%v), want 503 and that the outcome is unknown", path, res.StatusCode, body, err)
		}
		if unknown {
			sent++
		}
		sb.signal(syscall.SIGCONT)
		eventually(t, func() string { // once the late batch is done
			code, body := ask(t, http.DefaultClient, "GET", "http://"+p.addr+"/healthz?role=primary")
			if code == http.StatusOK {
				return ""
			}
			return body
		})
	}
	eventually(t, func() string { // the last one is applied once the standby has it
		_, body := ask(t, http.DefaultClient, "GET", url)
		if _, err := fmt.Sscan(body, &n); err == nil && n == int64(sent) {
			return ""
		}
		return fmt.Sprintf("the counter is %s, want %d", body, sent)
	})
	sb.stop()
	p.stop()
}

func TestPromotedPrimaryGoesOnAlone(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: "+ownAddr(t)+"\n"))
	sb := standbyOf(t, p, "sync: true")
	p.until("the standby is in sync", inSync)
	sb.until("it is in sync", inSync)
	sb.pause()
	defer sb.signal(syscall.SIGKILL)
	if out, code := promoted(t, "-server", "http://"+p.addr); code != 0 || out != "2\n" {
		t.Fatalf("promote the primary: exit %d: %s", code, out)
	}
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/s", 200, "1\n")
	sb.signal(syscall.SIGCONT)
	// The old standby learns of the new epoch and follows it.
	p.until("the standby is in sync in the new epoch", func(s replica.Status) bool { return inSync(s) && s.Epoch == 2 })
	sb.until("it knows the epoch", func(s replica.Status) bool { return s.Epoch == 2 && s.InSync })
}

func TestReplacedServerFollowsOrSaysWhereThePrimaryIs(t *testing.T) {
	t.Parallel()
	c := http.DefaultClient
	p := start(t, small(t, "listen: "+ownAddr(t)+"\n"))
	sb := standbyOf(t, p, "sync: true")
	p.until("the standby is in sync", inSync)
	sb.until("it is in sync", inSync)
	want(t, c, "POST", "http://"+p.addr+"/db/1/mlock/m?id=a&dur=600", 200, "1\n")
	waiter := make(chan int, 1)
	go func() {
		code, _ := ask(t, c, "POST", "http://"+p.addr+"/db/1/mlock/m?id=b&wait=600")
		waiter <- code
	}()
	p.waits("mlock", 1)
	if out, code := promoted(t, "-data", sb.dataOf()); code != 0 || out != "2\n" {
		t.Fatalf("promote: exit %d: %s", code, out)
	}
	if code := <-waiter; code != 503 {
		t.Errorf("a call that waits for a mutex of a replaced server gets %d, want 503", code)
	}
	p.until("it knows that it was replaced", func(s replica.Status) bool { return s.Role == "replaced" })
	for _, method := range []string{"GET", "POST"} {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.addr+"/db/1/sequence/s", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 421 || res.Header.Get("Location") != "http://"+sb.addr {
			t.Errorf("%s to the old primary: %d, Location %q", method, res.StatusCode, res.Header.Get("Location"))
		}
	}
	if code, body := ask(t, c, "POST", "http://"+sb.addr+"/db/1/mlock/m?id=c"); code != 200 || len(body) < 8 {
		t.Errorf("a mutex on the new primary: %d, token %s; want one above all tokens of the old one", code, body)
	}
	p.stop()
	// A restart does not make it the primary again.
	old := start(t, "data: "+p.dataOf()+"\nlisten: 127.0.0.1:0\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\n")
	if code, _ := ask(t, c, "GET", "http://"+old.addr+"/db/1/sequence/s"); code != 421 {
		t.Errorf("a server that was replaced, after a restart: %d, want 421", code)
	}
	old.stop()
	// The promoted server stays the primary, although its configuration says otherwise.
	sb.stop()
	stays := start(t, "data: "+sb.dataOf()+"\nlisten: 127.0.0.1:0\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\nreplica: {of: \"http://"+p.addr+"\", sync: true}\n")
	want(t, c, "GET", "http://"+stays.addr+"/healthz?role=primary", 200, "ok\n")
	// The old primary becomes its standby.
	follows := start(t, "data: "+p.dataOf()+"\nlisten: 127.0.0.1:0\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\nreplica: {of: \"http://"+stays.addr+"\", sync: true}\n")
	stays.until("the old one is in sync", inSync)
	follows.stop()
	stays.stop()
}

// A standby whose log has diverged from the primary's fetches a new copy, and keeps its old
// data.
func TestStandbyThatWentAnotherWayFetchesANewCopy(t *testing.T) {
	t.Parallel()
	c := http.DefaultClient
	p := start(t, small(t, "listen: "+ownAddr(t)+"\n"))
	want(t, c, "POST", "http://"+p.addr+"/db/1/sequence/s?n=5", 200, "5\n")
	sb := standbyOf(t, p, "sync: false")
	sb.until("it follows", func(s replica.Status) bool { return s.Live })
	if out, code := promoted(t, "-data", sb.dataOf()); code != 75 || !strings.Contains(out, "may lack writes") {
		t.Errorf("promote a standby that nobody waits for: exit %d: %s", code, out)
	}
	sb.stop()
	// Both servers answer writes now: the operator has made a mistake.
	if err := os.Remove(filepath.Join(sb.dataOf(), replica.StateFile)); err != nil {
		t.Fatal(err)
	}
	const files = "\nlisten: 127.0.0.1:0\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\n"
	other := start(t, "data: "+sb.dataOf()+files)
	for range 20 {
		ask(t, c, "POST", "http://"+other.addr+"/db/1/sequence/s")
		ask(t, c, "POST", "http://"+p.addr+"/db/1/counter/c")
	}
	other.stop()
	back := start(t, "data: "+sb.dataOf()+files+"replica: {of: \"http://"+p.addr+"\", sync: true}\n")
	back.until("it is in sync", inSync)
	want(t, c, "GET", "http://"+back.addr+"/db/1/sequence/s?stale=true", 200, "5\n")
	if _, err := os.Stat(filepath.Join(sb.dataOf(), "aside", "CHECKPOINT")); err != nil {
		t.Errorf("what it had is not kept: %v", err)
	}
	back.stop()
	p.stop()
}

func TestReplicaNeedsAToken(t *testing.T) {
	t.Parallel()
	c := http.DefaultClient
	p := start(t, small(t, "listen: "+ownAddr(t)+"\ntokens: [{token: all}, {token: reader, readonly: true}, {token: shop, accounts: [shop]}]\n"))
	sb := start(t, small(t, "listen: "+ownAddr(t)+"\ntoken: all\nreplica: {of: \"http://"+p.addr+"\", sync: true}\n"))
	for _, addr := range []string{p.addr, sb.addr} {
		for _, token := range []string{"", "reader", "shop", "other"} {
			for _, path := range []string{"/replica/promote", "/replica/join", "/replica/append?epoch=9", "/replica/beat", "/replica/fence"} {
				r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr+path, strings.NewReader("{}"))
				if err != nil {
					t.Fatal(err)
				}
				if token != "" {
					r.Header.Set("Authorization", "Bearer "+token)
				}
				res, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if s := res.StatusCode; s != 401 && s != 403 && s != 421 {
					t.Errorf("POST %s with the token %q: %d", path, token, s)
				}
			}
		}
	}
	out, err := exec.Command(binary, "promote", "-server", "http://"+p.addr, "-token-file", tokenFile(t, "all")).CombinedOutput()
	if err != nil || string(out) != "2\n" {
		t.Errorf("promote with a good token: %v: %s", err, out)
	}
	sb.stop()
	p.stop()
}

// The token of the primary may be changed while both servers run.
func TestReloadTakesTheTokenOfTheReplica(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: "+ownAddr(t)+"\ntokens: [{token: first}, {token: second}]\n"))
	of := "replica: {of: \"http://" + p.addr + "\", sync: true, token: %s}\n"
	config := small(t, "listen: "+ownAddr(t)+"\ntoken: own\n")
	sb := start(t, config+fmt.Sprintf(of, "wrong"))
	sb.line("cannot be followed now")
	sb.configure(config + fmt.Sprintf(of, "second"))
	sb.signal(syscall.SIGHUP)
	sb.line("following the primary") // this may come before the line that the reload is done
	sb.logs("msg=reloaded")
	if strings.Contains(sb.log, "needs a restart") {
		t.Errorf("a new token is said to need a restart:\n%s", sb.log)
	}
	sb.stop()
	p.stop()
}
