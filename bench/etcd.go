package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// etcdReady is in the line that etcd writes once it serves.
var etcdReady = regexp.MustCompile(`(?i)serving (?:insecure )?client (?:requests|traffic)`)

// startEtcd runs an etcd of one member, or returns nil where none is installed.
func startEtcd(ctx context.Context, dir string) (*process, error) {
	if _, err := exec.LookPath("etcd"); err != nil {
		return nil, nil
	}
	client, err := freeAddr()
	if err != nil {
		return nil, err
	}
	peer, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, etcdReady, "etcd", "--name", "bench", "--data-dir", filepath.Join(dir, "data"),
		"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "bench=http://"+peer)
	if err != nil {
		return nil, err
	}
	p.addr = client
	return p, nil
}

// etcdScript is the wrk script of a row that sets values: the same keys and
// sizes, through etcd's HTTP gateway, whose keys and values are base64. Eight
// digits are base64 as they are.
func etcdScript(r *row) string {
	value := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("v", r.value)))
	return fmt.Sprintf(`
function request()
  local body = string.format('{"key":"%%08d","value":"%s"}', math.random(%d))
  return "POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end
`, value, r.ids) + wrkDone
}
