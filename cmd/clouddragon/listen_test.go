package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// socketClient speaks HTTP over a unix socket.
func socketClient(t *testing.T, path string) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// socketPath returns a path that is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "s")
}

func TestIPv4AddressListensOnNothingElse(t *testing.T) {
	for address, want := range map[string]string{"0.0.0.0:0": "0.0.0.0:", "127.0.0.1:0": "127.0.0.1:"} {
		l, err := listen(address, Socket{})
		if err != nil {
			t.Fatal(err)
		}
		if got := bound(l); !strings.HasPrefix(got, want) {
			t.Errorf("%s: bound to %s", address, got)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAddressThatIsNotThereIsNamedAsSuch(t *testing.T) {
	if _, err := listen("192.0.2.1:0", Socket{}); err == nil || !strings.Contains(err.Error(), "no interface of this machine has the address") {
		t.Errorf("got %v", err)
	}
}

func TestStaleSocketIsReplacedAndALiveOneRefused(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	listen := "listen: unix:" + path + "\n"
	config := small(t, listen)
	p := start(t, config)
	if p.addr != "unix:"+path {
		t.Errorf("the line listening has %q, want unix:%s", p.addr, path)
	}
	want(t, socketClient(t, path), "POST", "http://socket/db/1/sequence/a", 200, "1\n")

	other := launch(t, small(t, listen))
	if code := other.exit(); code != 1 || !strings.Contains(other.log, path+" is in use") {
		t.Errorf("a second server: exit %d, want 1 and %q in:\n%s", code, path+" is in use", other.log)
	}
	want(t, socketClient(t, path), "POST", "http://socket/db/1/sequence/a", 200, "2\n")

	p.signal(syscall.SIGKILL)
	p.exit()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("the killed server left no socket: %v", err)
	}
	p = start(t, config)
	want(t, socketClient(t, path), "POST", "http://socket/db/1/sequence/a", 200, "3\n")
	p.stop()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stopped server left its socket: %v", err)
	}
}

func TestAFileThatIsNoSocketIsNotReplaced(t *testing.T) {
	path := socketPath(t)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := listen("unix:"+path, Defaults().Socket); err == nil {
		t.Errorf("listens on %s", l.Addr())
	} else if !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// certificate makes a certificate for 127.0.0.1, writes it and its key, and returns a pool
// that trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: privateDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, key, pool
}

func TestBadCertificateShowsItsLine(t *testing.T) {
	cert, key, _ := certificate(t)
	file := filepath.Join(t.TempDir(), "config.yml")
	for _, c := range []struct{ cert, key, place string }{
		{"/nowhere/c.pem", key, ":2:"},
		{cert, "/nowhere/k.pem", ":3:"},
		{key, key, ":2:"},
	} {
		src := fmt.Sprintf("tls:\n  cert: %s\n  key: %s\n", c.cert, c.key)
		if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(file, noEnv); err == nil || !strings.HasPrefix(err.Error(), file+c.place+" tls.cert ") {
			t.Errorf("%s: got %v, want the fault at %s", src, err, c.place)
		}
	}
}

func TestTLSServesClientsThatTrustTheCertificate(t *testing.T) {
	t.Parallel()
	cert, key, pool := certificate(t)
	p := start(t, small(t, fmt.Sprintf("listen: 127.0.0.1:0\ntls: {cert: %s, key: %s}\n", cert, key)))
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	want(t, &http.Client{Transport: tr}, "POST", "https://"+p.addr+"/db/1/sequence/a", 200, "1\n")
	if status, _ := ask(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a"); status != 400 {
		t.Errorf("plain HTTP: got %d, want 400", status)
	}
	old, err := tls.Dial("tcp", p.addr, &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS11})
	if err == nil {
		t.Error("TLS 1.1 is spoken")
		_ = old.Close()
	}
	p.stop()
}
