// Package loopback gives tests addresses for servers that are started more than once.
package loopback

import (
	"net"
	"sync"
	"testing"
)

// handedOut has the addresses that Free has returned.
var handedOut sync.Map

// Free returns a TCP address on that IP address which nobody uses and which is not handed out
// again in this process. It stays free between two runs of a server, provided that no other
// process uses the IP address: give each package one of its own, such as 127.66.0.2.
func Free(t testing.TB, ip string) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, again := handedOut.LoadOrStore(addr, true); !again {
			return addr
		}
	}
}
