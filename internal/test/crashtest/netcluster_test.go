package crashtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// netToken is the token of the servers, which have to have one since others can reach them.
const netToken = "token-of-the-crash-tests"

// withToken sends the token with each call.
type withToken struct{ http.RoundTripper }

func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+netToken)
	return w.RoundTripper.RoundTrip(r)
}

// netServer is a server at a node of the network, with a disk of its own.
type netServer struct {
	*server
	node   string
	volume *volume
	setup  setup
}

// netCluster is two servers and etcd in a network, and the clients' books.
type netCluster struct {
	t       *testing.T
	rng     *rand.Rand
	etcd    *etcds
	servers []*netServer
	load    *load
	history *history
	acks    int
	faults  []fault
	outages outages // of rounds in which the standby took over

	clients sync.WaitGroup // of the history
	enough  context.CancelFunc
}

// newNetCluster starts the cluster. The process is in its own network.
func newNetCluster(t *testing.T) *netCluster {
	t.Helper()
	credentials = "Authorization: Bearer " + netToken + "\r\n"
	http.DefaultClient = &http.Client{Transport: withToken{http.DefaultTransport}, Timeout: patience}
	ledger := newLedger()
	ledger.prolonged = promotionGrace
	c := &netCluster{t: t, rng: rand.New(rand.NewPCG(*seed, 9)), history: newHistory(), faults: possibleFaults(t),
		load: &load{ledger: ledger, clients: 12, valueSize: 2 << 10, seed: *seed}}
	last := atomic.Int32{}
	last.Store(2378)
	c.etcd = etcdsAt(t, 3, func(name string, args ...string) *exec.Cmd {
		return inNode(etcdNode, append([]string{name}, args...)...)
	},
		func() string { return fmt.Sprintf("%s:%d", addresses[etcdNode], last.Add(1)) })
	for _, node := range []string{"a", "b"} {
		// The data grows with each round, and a standby may need room for two copies of it.
		s := &netServer{node: node, volume: newVolume(t, ext4, 96+int64(atMost(*rounds, 4)/2))}
		listen := addresses[node] + ":8081"
		s.setup = setup{binary: *binary, data: filepath.Join(s.volume.dir, "data"), node: node, listen: listen, step: filepath.Join(t.TempDir(), "step"),
			config: c.etcd.config(node) + "\ntoken: " + netToken}
		c.load.servers = append(c.load.servers, listen)
		c.servers = append(c.servers, s)
		s.server = serve(t, s.setup)
	}
	return c
}

// settled waits until both servers are in sync again.
func (c *netCluster) settled() (primary, standby *netServer) {
	c.t.Helper()
	p, _ := elected(c.t, c.servers[0].server, c.servers[1].server)
	if p == c.servers[0].server {
		return c.servers[0], c.servers[1]
	}
	return c.servers[1], c.servers[0]
}

// revive starts every server that has ended on what is on its disk.
func (c *netCluster) revive() {
	c.t.Helper()
	for _, s := range c.servers {
		select {
		case <-s.exited:
			if err := s.trouble(); err != nil {
				c.t.Error(err)
			}
			s.server = serve(c.t, s.setup)
		default:
		}
	}
}

// start lets all clients run.
func (c *netCluster) start(primary *netServer, round int) {
	c.load.start(primary.addr, round)
	ctx, cancel := context.WithCancel(context.Background())
	c.enough = cancel
	for n := range 6 {
		l := &linearClient{history: c.history, client: client{addr: primary.addr, most: changeAfter}, n: n, round: round, things: 1000 + round,
			rng: rand.New(rand.NewPCG(*seed, uint64(round)<<16|uint64(n)|1<<15)), servers: c.load.servers}
		c.clients.Go(func() {
			defer l.client.close()
			next := time.NewTicker(thinkTime)
			defer next.Stop()
			for ctx.Err() == nil && l.step() {
				select {
				case <-next.C:
				case <-ctx.Done():
				}
			}
		})
	}
}

// stop ends all clients, once the servers are in sync again, and sends what has no
// answer and a key again.
func (c *netCluster) stop(primary *netServer, round int) {
	c.t.Helper()
	c.load.stop()
	c.enough()
	c.clients.Wait()
	for n := range c.history.retries {
		l := &linearClient{history: c.history, client: client{addr: primary.addr}, n: n, round: round}
		if !l.again() {
			c.t.Errorf("a call with a key could not be sent again")
		}
		l.client.close()
	}
	c.history.killed()
}

// served waits until so many more writes were acknowledged.
func (c *netCluster) served(acks int, when string) {
	c.t.Helper()
	select {
	case <-c.load.ledger.more(acks):
	case <-time.After(patience):
		c.fatal("%s: no %d writes were acknowledged in %v", when, acks, patience)
	}
}

// fatal ends the test with what the servers say.
func (c *netCluster) fatal(format string, args ...any) {
	c.t.Helper()
	for _, s := range c.servers {
		c.t.Logf("%s says:\n%s", s.node, s.output())
	}
	c.t.Fatalf(format, args...)
}

// checked compares what is there with the books.
func (c *netCluster) checked(primary *netServer) {
	c.t.Helper()
	if err := c.load.check(primary.addr); err != nil {
		c.fatal("%v", err)
	}
	c.history.check(c.t)
	c.history.things = make(map[string][]porcupine.Operation)
	for _, x := range c.load.broken() {
		c.t.Error(x)
	}
	for _, s := range c.servers {
		if err := s.trouble(); err != nil {
			c.t.Error(err)
		}
	}
	if c.t.Failed() {
		c.fatal("a promise was broken")
	}
}

// TestClusterInANetworkLosesNothing breaks something in each round, or two things one after
// the other, under load, and mends it: processes, links, disks, etcd and clocks. Each round
// has to be served again, and what clients were told has to be true.
func TestClusterInANetworkLosesNothing(t *testing.T) {
	begin(t)
	if !sandboxed(t) {
		return
	}
	c := newNetCluster(t)
	began := time.Now()
	for round := range atMost(*rounds, 4) {
		c.round(round)
	}
	c.outages.log(t, "faults of the primary after which the standby took over")
	t.Logf("%d rounds in %.0f s, %d acknowledged writes", atMost(*rounds, 4), time.Since(began).Seconds(), c.acks)
	primary, standby := c.settled()
	for _, s := range []*netServer{standby, primary} {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}
	for _, s := range c.servers {
		if out, err := exec.Command(*binary, "verify", s.setup.data).CombinedOutput(); err != nil {
			t.Errorf("verify: %v: %s", err, out)
		}
	}
}

const primaryRole = "primary"

// round breaks something and mends it.
func (c *netCluster) round(round int) {
	c.t.Helper()
	primary, standby := c.settled()
	c.load.ledger.round(0)
	c.start(primary, round)
	c.served(1+c.rng.IntN(300), "before the fault")
	began := time.Now()
	var mends []func()
	names := ""
	kinds := c.choose(round)
	disk := (*netServer)(nil) // whose disk is broken
	struck := ""              // the role of the last victim
	for i, f := range kinds {
		victim, other, role := primary, standby, primaryRole
		if f.disk && disk == primary || disk != standby && c.rng.IntN(3) == 0 {
			victim, other, role = standby, primary, "standby"
		}
		struck = role
		if f.disk {
			disk = victim
		}
		names += fmt.Sprintf("%s (%s), ", f.name, role)
		c.load.ledger.mayFailOver()
		c.load.stopped.Store(0)
		mends = append(mends, f.strike(c, victim, other))
		switch {
		case i > 0 || len(kinds) > 1 && c.rng.IntN(2) == 0:
			c.felt(names)
		case f.goesOn || f.disk && victim == standby:
			if f.failsOver && victim == primary {
				// A standby that was taken out before the fault, as on a busy machine, cannot take over.
				out := false
				if err := eventually("the standby takes over", func() bool {
					listed, err := c.etcd.lists(standby.node)
					out = err == nil && !listed
					return out || answers(standby.server)
				}); err != nil {
					c.fatal("%v", err)
				}
				if out {
					c.t.Logf("%sno server takes over, since the standby was not in sync", names)
					struck = ""
					break
				}
			}
			c.served(20+c.rng.IntN(200), "under: "+names)
		case f.silent:
			noAnswerWithoutALease(c.t, primary.server)
		default:
			c.felt(names)
		}
	}
	broken := time.Since(began)
	c.rng.Shuffle(len(mends), func(i, j int) { mends[i], mends[j] = mends[j], mends[i] })
	for _, mend := range mends {
		mend()
	}
	c.revive()
	c.load.ledger.mayFailOver()
	c.served(20, "mended: "+names)
	primary, _ = c.settled()
	c.stop(primary, round)
	c.checked(primary)
	c.acks += c.load.ledger.acks
	if len(kinds) == 1 && kinds[0].failsOver && struck == primaryRole {
		c.outages = append(c.outages, c.load.ledger.away())
	}
	c.t.Logf("round %d: %sbroken for %.1f s, in sync after %.1f s, no write acknowledged for %.1f s, %d writes", round, names, broken.Seconds(), time.Since(began).Seconds(), c.load.ledger.away().Seconds(), c.load.ledger.acks)
}

// choose returns the fault of a round, or two.
func (c *netCluster) choose(round int) []fault {
	faults, of := c.faults, c.faults
	if *only != "" {
		names := strings.Split(*only, ",")
		of = slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return !slices.Contains(names, f.name) })
		if len(of) != len(names) {
			c.t.Fatalf("not each of these is a fault: %q", names)
		}
	}
	f := of[(int(*seed%uint64(len(of)))+round)%len(of)] // a run of few rounds tries others than the last one
	if f.name != twoFaults {
		return []fault{f}
	}
	for {
		two := c.rng.Perm(len(faults) - 1)
		// The standby takes over by its own clock, so locks end early if the clocks differ.
		// A link is delayed once at a time.
		if x, y := faults[two[0]], faults[two[1]]; x.name != clockStep && y.name != clockStep && !(x.delays && y.delays) {
			return []fault{x, y}
		}
	}
}

// felt waits until some calls were not served, or many were.
func (c *netCluster) felt(names string) {
	c.t.Helper()
	many := c.load.ledger.more(300)
	err := eventually("a fault is felt", func() bool {
		select {
		case <-many:
			return true
		default:
			return c.load.stopped.Load() >= 10
		}
	})
	if err != nil {
		c.fatal("%s%v", names, err)
	}
}
