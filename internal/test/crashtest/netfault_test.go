package crashtest

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// fault is something that breaks.
type fault struct {
	name string
	// strike breaks it, and returns what mends it.
	strike func(c *netCluster, victim, other *netServer) (mend func())
	// failsOver is whether the standby has to take the place of a primary that it strikes.
	failsOver bool
	// goesOn is whether clients have to be served while it is broken.
	goesOn bool
	// silent is whether the primary may answer nothing while it is broken.
	silent bool
	// disk is whether it is the disk that breaks.
	disk bool
	// delays is whether it delays links.
	delays bool
}

// linkFault cuts the links of the victim to those nodes; "" is the other server.
func linkFault(nodes ...string) func(c *netCluster, victim, other *netServer) func() {
	return func(c *netCluster, victim, other *netServer) func() {
		set := func(up bool) {
			for _, node := range nodes {
				setLink(c.t, victim.node, cmp.Or(node, other.node), up)
			}
		}
		set(false)
		return func() { set(true) }
	}
}

// possibleFaults returns the faults that this machine can make. A kernel without TAP devices still
// runs the others.
func possibleFaults(t *testing.T) []fault {
	t.Helper()
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err == nil {
		if err = f.Close(); err == nil {
			return faults
		}
	}
	t.Logf("NO LINK IS DELAYED: that needs TAP devices: %v", err)
	return slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return f.delays })
}

// clusterLease is the lease of the servers.
const clusterLease = 2 * time.Second

// delayFault delays the links of the victim to those nodes; "" is the other server.
func delayFault(nodes ...string) func(c *netCluster, victim, other *netServer) func() {
	return func(c *netCluster, victim, other *netServer) func() {
		return c.delay(victim, other, nodes, 20*time.Millisecond, 50*time.Millisecond, false)
	}
}

// stallFault has the links of the victim to those nodes deliver nothing for longer than the
// lease, and then everything that was sent meanwhile.
func stallFault(nodes ...string) func(c *netCluster, victim, other *netServer) func() {
	return func(c *netCluster, victim, other *netServer) func() {
		over := time.After(clusterLease + time.Second)
		mend := c.delay(victim, other, nodes, 0, 0, true)
		return func() {
			<-over
			mend()
		}
	}
}

// delay delays the links of the victim to those nodes.
func (c *netCluster) delay(victim, other *netServer, nodes []string, least, most time.Duration, stalled bool) (mend func()) {
	var slow []*slowLink
	for _, node := range nodes {
		slow = append(slow, delayLink(c.t, victim.node, cmp.Or(node, other.node), least, most, stalled))
	}
	return func() {
		for _, l := range slow {
			l.mend()
		}
	}
}

// twoFaults is the name of the round in which two faults come one after the other.
const twoFaults = "two faults"

const clockStep = "clock step"

var faults = []fault{
	{name: "kill", failsOver: true, goesOn: true, strike: func(c *netCluster, victim, _ *netServer) func() {
		victim.kill()
		return func() {} // whoever has ended is started once all is mended
	}},
	{name: "cut from etcd", failsOver: true, goesOn: true, strike: linkFault(etcdNode)},
	{name: "power cut", failsOver: true, goesOn: true, disk: true, strike: func(c *netCluster, victim, _ *netServer) func() {
		c.load.ledger.fails()
		cutPower(c.t, victim.volume)
		return func() {
			victim.kill()
			powerUp(c.t, victim.volume)
		}
	}},
	{name: "cut from the other server", goesOn: true, strike: linkFault("")},
	{name: "stop and continue", failsOver: true, goesOn: true, strike: func(c *netCluster, victim, _ *netServer) func() {
		signal := func(s syscall.Signal) {
			// The other fault may have ended it.
			if err := victim.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
				c.t.Fatal(err)
			}
		}
		signal(syscall.SIGSTOP)
		return func() { signal(syscall.SIGCONT) }
	}},
	{name: "etcd without a majority", silent: true, strike: func(c *netCluster, _, _ *netServer) func() {
		c.etcd.signalSome(syscall.SIGSTOP, 2)
		return func() { c.etcd.signalSome(syscall.SIGCONT, 2) }
	}},
	{name: "cut from etcd and the other server", failsOver: true, goesOn: true, strike: linkFault(etcdNode, "")},
	{name: "full disk", disk: true, strike: func(c *netCluster, victim, _ *netServer) func() {
		c.load.ledger.fails()
		return fill(c.t, victim.volume)
	}},
	{name: clockStep, goesOn: true, strike: func(c *netCluster, victim, _ *netServer) func() {
		if os.Getenv(sandboxVariable) != steppable {
			c.t.Log("NO CLOCK WAS STEPPED: that needs a program of this tree, and -binary names one")
		}
		victim.setClock(c.t, pick(c.rng, []time.Duration{-24 * time.Hour, -time.Minute, time.Minute, 24 * time.Hour}))
		return func() { victim.setClock(c.t, 0) }
	}},
	{name: "delay", goesOn: true, delays: true, strike: delayFault(clientsNode, etcdNode, "")},
	{name: "stall to the other server", goesOn: true, delays: true, strike: stallFault("")},
	{name: "stall to etcd", failsOver: true, goesOn: true, delays: true, strike: stallFault(etcdNode)},
	{name: "stall to etcd and the other server", failsOver: true, goesOn: true, delays: true, strike: stallFault(etcdNode, "")},
	{name: twoFaults},
}
