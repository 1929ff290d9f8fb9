package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// loadCertificate reads a certificate and its key, PEM files; nil if there is none.
func loadCertificate(cert, key string) (*tls.Certificate, error) {
	if cert == "" {
		return nil, nil
	}
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("tls.cert %s, tls.key %s: %w", cert, key, err)
	}
	return &c, nil
}

// listen binds host:port or unix:/path, for as many connections as leave enough
// descriptors to files.
func listen(address string) (net.Listener, error) {
	n, err := maxConnections()
	if err != nil {
		return nil, err
	}
	l, err := bind(address)
	if err != nil {
		return nil, err
	}
	return limit(l, n), nil
}

// bind is listen without a limit. The socket file that a dead server left is
// replaced; one that somebody answers at is not.
func bind(address string) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		l, err := net.Listen(network(address), address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%w: stop whoever has it, or set listen to another port", err)
		}
		return l, err
	}
	l, err := net.Listen("unix", path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	if info, err := os.Lstat(path); err != nil {
		return nil, err
	} else if info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is there and is no socket: remove it, or set listen to another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return nil, errors.Join(fmt.Errorf("%s is in use: another server answers there", path), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%s is there, and whether a server uses it cannot be told: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

// network is that of an address: 0.0.0.0 means all of IPv4, and nothing else.
func network(address string) string {
	host, _, _ := net.SplitHostPort(address)
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is4() {
		return "tcp4"
	}
	return "tcp"
}

// bound is the address that a listener really has, as config.yml would say it.
func bound(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return l.Addr().String()
}
