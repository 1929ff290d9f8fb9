package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"clouddragon/internal/systemd"
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

// passedSocket returns the socket that systemd passes to the server, or nil. With an error
// it returns an exit code.
func passedSocket(c Config) (l net.Listener, code int, err error) {
	l, err = systemd.Listener(os.Getenv, os.Getpid())
	if l == nil {
		return nil, exitFailed, err
	}
	if !c.hasToken() && !local(bound(l)) {
		err := fmt.Errorf("systemd's socket %s can be reached from other machines and no token is set: set token (or %s), or ListenStream= to 127.0.0.1 or a path",
			bound(l), TokenVariable)
		return nil, exitConfig, errors.Join(err, l.Close())
	}
	return l, exitOK, nil
}

// listen binds host:port or unix:/path. It replaces the socket file of a dead server, but
// not one where a server answers.
func listen(address string, s Socket) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		l, err := net.Listen(network(address), address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%w: stop the program that uses it, or set listen to another port", err)
		}
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			return nil, fmt.Errorf("%w: no interface of this machine has the address (yet)", err)
		}
		return l, err
	}
	l, err := s.listen(path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	if info, err := os.Lstat(path); err != nil {
		return nil, err
	} else if info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s exists and is not a socket: remove it, or set listen to another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return nil, errors.Join(fmt.Errorf("%s is in use: another server answers there", path), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%s exists, and it could not be found out whether a server uses it: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return s.listen(path)
}

// listen makes a socket and then sets its mode and its group. Until they are set only its
// owner may connect.
func (s Socket) listen(path string) (net.Listener, error) {
	gid, err := s.group()
	if err != nil {
		return nil, fmt.Errorf("socket.group: %w", err)
	}
	mask := syscall.Umask(0o077)
	l, err := net.Listen("unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, err
	}
	if gid >= 0 {
		err = os.Chown(path, -1, gid)
	}
	if err == nil {
		err = os.Chmod(path, s.Mode)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// group returns the number of the socket's group, -1 if none is set.
func (s Socket) group() (int, error) {
	if s.Group == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(s.Group, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(s.Group)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// network returns the network of an address. 0.0.0.0 means IPv4 only.
func network(address string) string {
	host, _, _ := net.SplitHostPort(address)
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is4() {
		return "tcp4"
	}
	return "tcp"
}

// bound returns the actual address of a listener, in the form of config.yml.
func bound(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return l.Addr().String()
}
