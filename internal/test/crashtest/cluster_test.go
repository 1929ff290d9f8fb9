package crashtest

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"clouddragon/internal/test/loopback"
)

// etcds are the members of an etcd cluster.
type etcds struct {
	t     *testing.T
	urls  []string
	procs []*exec.Cmd
}

// newEtcds starts members with short election timeouts, so that leases can be short.
func newEtcds(t *testing.T, members int) *etcds {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("no etcd here: apt-get install etcd-server")
	}
	return etcdsAt(t, members, exec.Command, func() string { return freeAddress(t) })
}

// etcdsAt starts members of etcd as command does, on free addresses.
func etcdsAt(t *testing.T, members int, command func(string, ...string) *exec.Cmd, free func() string) *etcds {
	t.Helper()
	e := &etcds{t: t}
	var peers, initial []string
	for i := range members {
		e.urls = append(e.urls, "http://"+free())
		peers = append(peers, "http://"+free())
		initial = append(initial, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i := range members {
		cmd := command("etcd", "--name", fmt.Sprintf("m%d", i), "--data-dir", t.TempDir(),
			"--listen-client-urls", e.urls[i], "--advertise-client-urls", e.urls[i],
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(initial, ","), "--heartbeat-interval", "50", "--election-timeout", "500")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		e.procs = append(e.procs, cmd)
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()         // by that signal
		})
	}
	err := within(2*patience, "etcd serves", func() bool {
		for _, u := range e.urls {
			res, err := http.Get(u + "/health")
			if err != nil {
				return false
			}
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				return false
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// freeAddress returns an address that is not in use and is not handed out again. A server whose role
// changes closes its listener and listens there again.
func freeAddress(t *testing.T) string {
	t.Helper()
	return loopback.Free(t, "127.77.0.3")
}

// signal sends a signal to all members.
func (e *etcds) signal(s syscall.Signal) { e.signalSome(s, len(e.procs)) }

// signalSome sends a signal to the first members.
func (e *etcds) signalSome(s syscall.Signal, members int) {
	e.t.Helper()
	for _, p := range e.procs[:members] {
		if err := p.Process.Signal(s); err != nil {
			e.t.Fatal(err)
		}
	}
}

// config is the configuration of a server of a cluster.
func (e *etcds) config(name string) string {
	return fmt.Sprintf("%s\ncluster: {etcd: [%s], name: %s, lease: %v}", smallFiles, `"`+strings.Join(e.urls, `", "`)+`"`, name, clusterLease)
}

// counted returns the same cluster behind a proxy, and how many requests the proxy has passed on.
func (e *etcds) counted() (via *etcds, requests *atomic.Int64) {
	e.t.Helper()
	requests = new(atomic.Int64)
	to, err := url.Parse(e.urls[0])
	if err != nil {
		e.t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(to)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pass.ServeHTTP(w, r)
		requests.Add(1)
	}))
	e.t.Cleanup(proxy.Close)
	return &etcds{t: e.t, urls: []string{proxy.URL}}, requests
}

// elected waits until one server is the primary and the other one is in sync.
func elected(t *testing.T, a, b *server) (primary, standby *server) {
	t.Helper()
	err := eventually("one server is the primary and the other one is in sync", func() bool {
		for _, x := range [][2]*server{{a, b}, {b, a}} {
			s, err := statusOf(x[0].addr)
			if err != nil || s.Role != "primary" || !s.InSync || !mayTakeOver(x[0]) || !answers(x[0]) {
				continue
			}
			primary, standby = x[0], x[1]
			return true
		}
		return false
	})
	if err != nil {
		t.Fatalf("%v; one says:\n%s\nthe other:\n%s", err, a.output(), b.output())
	}
	return primary, standby
}

// mayTakeOver reports whether etcd knows that a server's standby has every write.
func mayTakeOver(primary *server) bool {
	primary.mu.Lock()
	defer primary.mu.Unlock()
	log := primary.log.String()
	return strings.LastIndex(log, "it can take over") > max(strings.LastIndex(log, "the standby was taken out"), strings.LastIndex(log, "elected: this server"))
}

// TestClusterElectsAPrimaryAndLosesNothing kills or hangs the primary under load, or hangs etcd, and
// lets etcd elect another primary. After each failover it checks what clients were told.
func TestClusterElectsAPrimaryAndLosesNothing(t *testing.T) {
	begin(t)
	t.Parallel()
	e := newEtcds(t, 3)
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(*seed, 8))
	ledger := newLedger()
	ledger.prolonged = promotionGrace
	l := &load{ledger: ledger, clients: 16, valueSize: 2 << 10, seed: *seed}
	a := setup{binary: *binary, data: filepath.Join(dir, "a"), config: e.config("a"), listen: freeAddress(t)}
	b := setup{binary: *binary, data: filepath.Join(dir, "b"), config: e.config("b"), listen: freeAddress(t)}
	setups := map[*server]setup{}
	sa := serve(t, a)
	setups[sa] = a
	sb := serve(t, b)
	setups[sb] = b
	rounds := atMost(*rounds, 3)
	for round := range rounds {
		primary, standby := elected(t, sa, sb)
		if err := l.check(primary.addr); err != nil {
			t.Fatalf("%v; the primary says:\n%s", err, primary.output())
		}
		full := ledger.round(1 + rng.IntN(400))
		l.start(primary.addr, round)
		select {
		case <-full:
		case <-time.After(patience):
			t.Errorf("only %d writes were acknowledged in %v", ledger.acked(), patience)
		}
		how := rng.IntN(3)
		var began = time.Now()
		switch how {
		case 0, 1:
			e.pauseInSync(t, primary, filepath.Base(setups[standby].data))
			if how == 0 {
				primary.kill()
			}
		case 2: // the primary loses only etcd, but its lease runs out, so either server can be elected
			e.signal(syscall.SIGSTOP)
			noAnswerWithoutALease(t, primary)
			e.signal(syscall.SIGCONT)
		}
		if how != 2 {
			isPrimary(t, standby)
			t.Logf("away for %v", time.Since(began).Round(time.Millisecond))
		}
		if how == 1 {
			answersNothingOld(t, primary, standby)
		}
		l.stop()
		if how == 2 {
			primary, _ = elected(t, sa, sb)
			standby = primary
		}
		if err := l.check(standby.addr); err != nil {
			t.Fatalf("%v; the new primary says:\n%s", err, standby.output())
		}
		report(t, round, l, standby)
		if err := primary.trouble(); err != nil {
			t.Error(err)
		}
		if how == 0 {
			back := serve(t, setups[primary])
			setups[back] = setups[primary]
			if sa == primary {
				sa = back
			} else {
				sb = back
			}
		}
	}
	primary, standby := elected(t, sa, sb)
	if err := standby.stop(); err != nil {
		t.Error(err)
	}
	// The primary goes on alone once the standby is removed in etcd.
	if err := eventually("the primary goes on alone", func() bool {
		res, err := http.Post("http://"+primary.addr+"/db/alone/sequence/s", "", nil)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}); err != nil {
		t.Errorf("%v:\n%s", err, primary.output())
	}
	// The removed standby is not elected, even with no other server left.
	if err := primary.stop(); err != nil {
		t.Error(err)
	}
	via, requests := e.counted()
	behind := setups[standby]
	behind.config = via.config(filepath.Base(behind.data))
	lonely := serve(t, behind)
	// Each of a dozen reads of etcd is a chance to be elected.
	if err := eventually("the standby asks etcd a dozen times", func() bool {
		if s, err := statusOf(lonely.addr); err == nil && s.Role != "standby" {
			t.Errorf("a standby that may lack writes has become %s", s.Role)
		}
		return requests.Load() >= 12
	}); err != nil {
		t.Errorf("%v:\n%s", err, lonely.output())
	}
	again := serve(t, setups[primary])
	elected(t, lonely, again)
}

// noAnswerWithoutALease waits until a server refuses reads because it cannot renew its lease.
func noAnswerWithoutALease(t *testing.T, s *server) {
	t.Helper()
	err := eventually("the server refuses reads without a lease", func() bool {
		res, err := http.Get("http://" + s.addr + "/db/load/sequence/nobody")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusServiceUnavailable
	})
	if err != nil {
		t.Errorf("%v:\n%s", err, s.output())
	}
}

// answersNothingOld sends reads to a server that hangs, changes the data on the new primary, and
// lets the old one go on. It must not answer with its old data.
func answersNothingOld(t *testing.T, old, new *server) {
	t.Helper()
	const path = "/db/stale/sequence/s"
	ask := func(addr, method string) (int, string) {
		r, err := http.NewRequest(method, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		line, _ := bufio.NewReader(res.Body).ReadString('\n') // an empty one is compared, too
		return res.StatusCode, line
	}
	if code, line := ask(new.addr, "POST"); code != http.StatusOK {
		t.Fatalf("the new primary: %d %s", code, line)
	}
	conns := make([]net.Conn, 20)
	for i := range conns {
		c, err := net.Dial("tcp", old.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		conns[i] = c
	}
	if err := old.goOn(); err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			continue // a server closes its connections when its role changes
		}
		if res.StatusCode != http.StatusServiceUnavailable && res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("a server that was replaced while it hung answered a read with %d", res.StatusCode)
		}
	}
	err := eventually("the old primary follows the new one", func() bool {
		s, err := statusOf(old.addr)
		return err == nil && s.Role == "standby"
	})
	if err != nil {
		t.Errorf("%v:\n%s", err, old.output())
	}
}
