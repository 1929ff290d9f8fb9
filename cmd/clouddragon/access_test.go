package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// reload asks for a reload and returns the line that says how it went.
func (p *process) reload() string {
	p.t.Helper()
	p.signal(syscall.SIGHUP)
	return p.line("reloaded")
}

// opens checks whether a token is known.
func (p *process) opens(token string, known bool) {
	p.t.Helper()
	status, body := ask(p.t, http.DefaultClient, "GET", "http://:"+token+"@"+p.addr+"/db/1/kv/nothing")
	if want := map[bool]int{true: 404, false: 401}[known]; status != want {
		p.t.Errorf("the token %s: got %d %q, want %d", token, status, body, want)
	}
}

func TestReloadTakesTokens(t *testing.T) {
	t.Parallel()
	base := fmt.Sprintf("data: %s\nlisten: 127.0.0.1:0\nlog: {segment: 1MiB}\n", t.TempDir())
	file := filepath.Join(t.TempDir(), "tokens.yml")
	list := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list("- token: c1\n")
	limits, name := "limits: {value: 64KiB}\n", "tokens_file: "+file+"\n"
	p := launch(t, base+limits+"token: a1\ntokens: [{token: b1}]\n"+name)
	if line := p.serves(); !strings.Contains(line, "token=required") {
		t.Errorf("got %q, want that a token is required", line)
	}
	for _, token := range []string{"a1", "b1", "c1"} {
		p.opens(token, true)
	}

	list("- token: c2\n")
	p.configure(base + "limits: {value: 32KiB}\ntoken: a2\ntokens: [{token: b2}]\n" + name)
	if line := p.reload(); !strings.Contains(line, "tokens=3") {
		t.Errorf("got %q, want the number of tokens", line)
	}
	if !strings.Contains(p.log, `needs a restart" keys=limits`) {
		t.Errorf("the log does not say that limits needs a restart:\n%s", p.log)
	}
	for _, token := range []string{"a", "b", "c"} {
		p.opens(token+"1", false)
		p.opens(token+"2", true)
	}

	for _, c := range []struct{ config, tokens, says string }{
		{"token: a3\nlimits: {value: 1d}\n", "", "config.yml:5: limits.value"},
		{limits + "token: a3\n" + name, "- token: c 3\n", "tokens.yml:1: [0].token"},
		{limits + "token: a3\n" + name, "", "config.yml:6: tokens_file: " + file + " lists no token"},
		{limits, "", "has no token any more"},
		{limits + "token: a3\ntls: {cert: /nowhere/c, key: /nowhere/k}\n", "", "open /nowhere/c"},
	} {
		list(c.tokens)
		p.configure(base + c.config)
		if line := p.reload(); !strings.Contains(line, "not reloaded") || !strings.Contains(line, c.says) {
			t.Errorf("%q, %q: got %q, want a fault that says %q", c.config, c.tokens, line, c.says)
		}
		p.opens("a2", true)
		p.opens("c2", true)
		p.opens("a3", false)
	}
	p.stop()
}

func TestReloadLeavesTheTokenOfTheEnvironment(t *testing.T) {
	t.Parallel()
	config := small(t, "listen: 127.0.0.1:0\n")
	p := start(t, config+"token: a1\n", "CLOUDDRAGON_TOKEN=env")
	p.configure(config + "token: a2\n")
	if line := p.reload(); !strings.Contains(line, "tokens=1") {
		t.Errorf("got %q, want one token", line)
	}
	p.opens("env", true)
	p.opens("a2", false)
	p.stop()
}

// TestReloadThatHangsDoesNotKeepTheServerFromAStop reads its configuration from a pipe to
// which nobody ever writes.
func TestReloadThatHangsDoesNotKeepTheServerFromAStop(t *testing.T) {
	t.Parallel()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	if err := os.Remove(p.config); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(p.config, 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a", 200, "1\n")
	p.stop()
}

func TestReloadClosesAServerThatWasOpen(t *testing.T) {
	t.Parallel()
	config := small(t, "listen: 127.0.0.1:0\n")
	p := launch(t, config)
	if line := p.serves(); !strings.Contains(line, "token=none") {
		t.Errorf("got %q, want that no token is needed", line)
	}
	p.opens("anything", true)
	p.configure(config + "token: a1\n")
	p.reload()
	p.opens("anything", false)
	p.opens("a1", true)
	p.stop()
}

func TestReloadTakesTheCertificate(t *testing.T) {
	t.Parallel()
	cert, key, before := certificate(t)
	newCert, newKey, after := certificate(t)
	config := small(t, fmt.Sprintf("listen: 127.0.0.1:0\ntls: {cert: %s, key: %s}\n", cert, key))
	p := start(t, config)
	client := func(pool *x509.CertPool) *http.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	url := "https://" + p.addr + "/db/1/sequence/a"
	old := client(before)
	want(t, old, "POST", url, 200, "1\n")

	// Both files change in place, as in a renewal. If only one has changed, that is a fault.
	replace := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	replace(newCert, cert)
	if line := p.reload(); !strings.Contains(line, "not reloaded") || !strings.Contains(line, "config.yml:5: tls.cert") {
		t.Errorf("a certificate without its key: got %q", line)
	}
	want(t, client(before), "POST", url, 200, "2\n")
	replace(newKey, key)
	if line := p.reload(); strings.Contains(line, "not reloaded") || !strings.Contains(line, "certificate=") {
		t.Errorf("got %q, want the new certificate", line)
	}
	want(t, client(after), "POST", url, 200, "3\n")
	want(t, old, "POST", url, 200, "4\n") // its connection goes on
	if res, err := client(before).Get(url); err == nil {
		t.Error("the old certificate is served still")
		_ = res.Body.Close()
	}
	p.configure(strings.Split(config, "tls:")[0])
	p.reload()
	if !strings.Contains(p.log, "turning TLS on or off needs a restart") {
		t.Errorf("the log does not say that tls needs a restart:\n%s", p.log)
	}
	want(t, client(after), "POST", url, 200, "5\n")
	p.stop()
}

func TestSocketHasItsModeAndGroup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config string
		mode   os.FileMode
		gid    uint32
	}{
		{"", 0o600, uint32(os.Getegid())},
		{"socket: {mode: 0666}\n", 0o666, uint32(os.Getegid())},
		{fmt.Sprintf("socket: {mode: \"0660\", group: %d}\n", someGroup(t)), 0o660, someGroup(t)},
	} {
		path := socketPath(t)
		p := start(t, small(t, "listen: unix:"+path+"\n"+c.config))
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if gid := info.Sys().(*syscall.Stat_t).Gid; info.Mode().Perm() != c.mode || gid != c.gid {
			t.Errorf("%q: the socket has mode %o and group %d, want %o and %d", c.config, info.Mode().Perm(), gid, c.mode, c.gid)
		}
		want(t, socketClient(t, path), "POST", "http://socket/db/1/sequence/a", 200, "1\n")
		p.stop()
	}
}

// someGroup returns a group to which the test may change a file.
func someGroup(t *testing.T) uint32 {
	t.Helper()
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		groups = append(groups, 12345)
	}
	return uint32(append([]int{os.Getegid()}, groups...)[len(groups)])
}
