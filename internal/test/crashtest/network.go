package crashtest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A network has a namespace for each of its nodes, and a bridge for each two that talk to each
// other. The bridges have their own namespace. A link is cut by setting its bridge down: both
// ends still have a carrier, but nothing arrives, as with a dead switch.
//
//	clients ──── a
//	   │  ╲    ╱ │
//	   │   ╲  ╱  │
//	  etcd ─┼────┤      (the bridges clients-a, clients-b, clients-etcd, a-b, a-etcd, b-etcd)
//	      ╲    ╱
//	        b
//
// The clients are the test process itself. All namespaces belong to that process, and their
// names are in its own mount namespace, so the network disappears with the process, however
// that ends.
const (
	hub         = "hub"
	clientsNode = "clients"
	etcdNode    = "etcd"
)

// addresses of the nodes.
var addresses = map[string]string{clientsNode: "10.77.0.1", "a": "10.77.0.2", "b": "10.77.0.3", etcdNode: "10.77.0.4"}

// links are the names of all bridges: the nodes that each connects.
var links = []string{"clients-a", "clients-b", "clients-etcd", "a-b", "a-etcd", "b-etcd"}

// makeNetwork makes the network of this process, which has its own namespaces.
func makeNetwork() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to this process: %w", err)
	}
	for _, dir := range []string{"/run", "/dev/shm"} {
		if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	script := []string{"netns add " + hub, "netns add a", "netns add b", "netns add " + etcdNode}
	in := func(node, line string) {
		if node == clientsNode {
			script = append(script, line)
		} else {
			script = append(script, "-n "+node+" "+line)
		}
	}
	for node, address := range addresses {
		in(node, "link set lo up")
		in(node, "addr add "+address+"/32 dev lo")
	}
	for _, link := range links {
		x, y, _ := strings.Cut(link, "-")
		in(hub, "link add "+link+" type bridge")
		in(hub, "link set "+link+" up")
		for node, other := range map[string]string{x: y, y: x} {
			namespace := node
			if node == clientsNode {
				namespace = fmt.Sprint(os.Getpid())
			}
			port := node + "." + other
			in(hub, fmt.Sprintf("link add %s type veth peer name to-%s netns %s", port, other, namespace))
			in(hub, fmt.Sprintf("link set %s master %s up", port, link))
			in(node, fmt.Sprintf("link set to-%s up", other))
			in(node, fmt.Sprintf("route add %s/32 dev to-%s src %s", addresses[other], other, addresses[node]))
		}
	}
	for _, line := range script {
		if err := ip(strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// inNode returns a command that runs in the namespace of a node.
func inNode(node string, command ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + node, "--"}, command...)...)
}

// linkOf returns the link between two nodes.
func linkOf(x, y string) string {
	for _, l := range links {
		if l == x+"-"+y || l == y+"-"+x {
			return l
		}
	}
	panic("no link between " + x + " and " + y)
}

// setLink cuts a link or restores it.
func setLink(t testing.TB, x, y string, up bool) {
	t.Helper()
	state := "down"
	if up {
		state = "up"
	}
	if err := ip("-n", hub, "link", "set", linkOf(x, y), state); err != nil {
		t.Fatal(err)
	}
}
