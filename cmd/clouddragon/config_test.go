package main

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func noEnv(string) string { return "" }

func TestEmptyFileMeansDefaults(t *testing.T) {
	for _, src := range []string{"", "\n", "# nothing\n", "---\n", "---\n---\n", "\ufeff"} {
		c, err := ParseConfig("config.yml", []byte(src), noEnv)
		if err != nil {
			t.Errorf("%q: %v", src, err)
		} else if !reflect.DeepEqual(c, Defaults()) {
			t.Errorf("%q: got %+v, want the defaults", src, c)
		}
	}
}

func TestShippedConfigIsTheDefaults(t *testing.T) {
	c, err := LoadConfig("../../config.yml", noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, Defaults()) {
		t.Errorf("config.yml sets %+v, want the defaults %+v", c, Defaults())
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	src := `
listen: unix:/run/clouddragon.sock
data: /srv/dragon
token: "full"
tokens:
  - {token: "ro", accounts: [shop, 7], readonly: true}
  - token: rw
tls: {cert: c.pem, key: k.pem}
tokens_file: /etc/tokens
socket: {mode: "0660", group: dragon}
limits: {value: 512KiB, dur: 90m, wait: 2.5, waiters: 7, batch: 8, replay: 500ms, watchers: 9}
log:
  segment: 1GiB
  garbage: 50
  audit: true
backup: {time: 2h, hold: 3GiB}
front: {enabled: false, loops: 3}
accounts: [shop, 7]
replica: {of: "http://10.0.0.1:8081", token: other, sync: true}
cluster: {etcd: [], name: "", lease: 5s}
advertise: https://10.0.0.2
`
	want := Config{
		Listen: "unix:/run/clouddragon.sock", Data: "/srv/dragon", Token: "full",
		Tokens:     []Token{{Token: "ro", Accounts: []string{"shop", "7"}, ReadOnly: true}, {Token: "rw"}},
		TokensFile: "/etc/tokens",
		Cert:       "c.pem", Key: "k.pem",
		Socket: Socket{Mode: 0o660, Group: "dragon"},
		Limits: Limits{
			Value: 512 << 10, Dur: 90 * time.Minute, Wait: 2500 * time.Millisecond, Waiters: 7,
			Batch: 8, Replay: 500 * time.Millisecond, Watchers: 9,
		},
		Segment: 1 << 30,
		Garbage: 50,
		Audit:   true,
		Backup:  Backup{Time: 2 * time.Hour, Hold: 3 << 30},
		Front:   Front{Loops: 3},

		Accounts:  []string{"shop", "7"},
		Replica:   Replica{Of: "http://10.0.0.1:8081", Token: "other", Sync: true},
		Cluster:   Cluster{Lease: 5 * time.Second},
		Advertise: "https://10.0.0.2",
	}
	got, err := ParseConfig("config.yml", []byte(src), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestConfigWithEveryKeyAndItsDefaultStarts(t *testing.T) {
	t.Parallel()
	p := start(t, `listen: 127.0.0.1:0
data: `+t.TempDir()+`
token: ""
tokens:
  - {token: "…", accounts: [shop, billing], readonly: true}
tls: {cert: "", key: ""}     # files; both or neither
tokens_file: ""
socket: {mode: "0600", group: ""}
limits: {value: 8MiB, dur: 24h, wait: 10m, waiters: 100000, batch: 10000, replay: 24h, watchers: 100000}
log: {segment: 64MiB, garbage: 100}
front: {enabled: true, loops: 0}
`)
	p.stop()
}

// TestFaultyConfigShowsItsLine tries one faulty file in each case. The message has to contain
// the place, the line and the reason.
func TestFaultyConfigShowsItsLine(t *testing.T) {
	long := "unix:/" + strings.Repeat("s", 107)
	for _, c := range []struct{ name, src, place, line, reason string }{
		{"unknown key", "data: d\nlimit: {}\n", ":2:", "limit: {}", `unknown key "limit": known here: accounts, advertise, backup, cluster, data, front, limits, listen, log, replica, socket, tls, token, tokens, tokens_file`},
		{"unknown key, flow", "limits: {value: 1MiB, burst: 3}\n", ":1:", "limits: {value: 1MiB, burst: 3}", `unknown key "limits.burst"`},
		{"unknown key, token", "tokens:\n  - token: a\n    role: admin\n", ":3:", "", `unknown key in tokens[0]: known here: accounts, readonly, token`},
		{"no address of a primary", "replica:\n  of: 10.0.0.1:8081\n", ":2:", "of: 10.0.0.1:8081", "want http://HOST:PORT"},
		{"sync with nobody", "data: d\nreplica:\n  sync: true\n", ":3:", "sync: true", "replica.sync is set without replica.of"},
		{"a standby that nobody reaches", "listen: 0.0.0.0:1\ntoken: a\nreplica:\n  of: http://a:1\n", ":4:", "", "set advertise"},
		{"a standby of itself", "listen: 127.0.0.1:8082\nreplica: {of: \"http://127.0.0.1:8082/\"}\n", ":2:", "replica: {of:", "is this server itself"},
		{"a name without etcd", "cluster:\n  name: a\n", ":2:", "name: a", "cluster.name is set without cluster.etcd"},
		{"a prefix without a name", "cluster:\n  etcd: [http://a:2379]\n  name: shop/\n", ":3:", "name: shop/", "has no name after the prefix"},
		{"a cluster without a name", "cluster:\n  etcd: [http://a:2379]\n", ":2:", "etcd: [http://a:2379]", "cluster.etcd is set without cluster.name"},
		{"an empty member of etcd", "cluster:\n  etcd: [\"\"]\n", ":2:", "", "cluster.etcd[0]"},
		{"a short lease", "cluster:\n  lease: 10ms\n", ":2:", "lease: 10ms", "1s to 1m"},
		{"a primary and etcd", "replica: {of: \"http://a:1\"}\ncluster: {etcd: [\"http://b:2379\"], name: a}\n", ":1:", "", "both set"},
		{"merge key", "<<: {data: d}\n", ":1:", "", `unknown key "<<"`},
		{"complex key", "? data\n: d\n", ":1:", "", "unknown key"},
		{"duplicate key", "data: a\nlisten: 127.0.0.1:1\n\"data\": b\n", ":3:", `"data": b`, "data is given twice, first on line 1"},
		{"duplicate nested key", "limits:\n  dur: 1h\n  dur: 2h\n", ":3:", "dur: 2h", "limits.dur is given twice, first on line 2"},
		{"second document", "data: a\n---\ndata: b\n", ":3:", "data: b", "second document"},
		{"directive", "%YAML 1.2\n---\ndata: a\n", ":1:", "", "want a mapping"},
		{"syntax", "data: a\nlimits: {dur: 1h\n", ":2:", "limits: {dur: 1h", "'}'"},
		{"indented too far", "limits:\n  value: 8MiB\n    dur: 1h\n", ":3:", "    dur: 1h", "mapping value is not allowed"},
		{"indented too far after a comment", "data: d # here\n\n  bogus: 1\n", ":3:", "  bogus: 1", "not allowed"},
		{"no key", "data: d\n: x\n", ":2:", "", "mapping value is not allowed"},
		{"tab", "limits:\n\tdur: 1h\n", ":2:", "\tdur: 1h", "that cannot start any token"},
		{"crlf", "data: a\r\nlisten: x\r\n", ":2:", "\n    listen: x", "not an address"},
		{"not a mapping", "- listen\n", ":1:", "", "the file: want a mapping (key: value), got a list"},
		{"scalar for a mapping", "limits: 5\n", ":1:", "limits: 5", "limits: want a mapping (key: value), got a number"},
		{"mapping for text", "listen: {host: a}\n", ":1:", "listen: {host: a}", "listen: want text, got a mapping"},
		{"number for text", "data: 5\n", ":1:", "data: 5", "data: want text, got a number (put it in quotes)"},
		{"nothing for a list", "data: d\ntokens: [{token: a, accounts: }]\n", ":2:", "", "tokens[0].accounts: want a list, got nothing"},
		{"nothing for text", "data:\n", ":1:", "data:", "data: want text, got nothing"},
		{"port alone", "listen: 8081\n", ":1:", "listen: 8081", `listen: "8081" is not an address: write host:port`},
		{"two units", "limits: {dur: 1h30m}\n", ":1:", "dur: 1h30m", `limits.dur: "1h30m" is not a duration: write a number of seconds, or one number with one unit`},
		{"no batch", "limits: {batch: 0}\n", ":1:", "batch: 0", "limits.batch: 0 is not in 1 to 1000000"},
		{"no replay", "limits: {replay: 0s}\n", ":1:", "replay: 0s", "limits.replay: 0s is not in 1ms to 8784h"},
		{"no watchers", "limits: {watchers: 0}\n", ":1:", "watchers: 0", "limits.watchers: 0 is not in 1 to 10000000"},
		{"negative loops", "front: {loops: -1}\n", ":1:", "loops: -1", "front.loops: -1 is not in 0 to 1024"},
		{"text for front", "front: {enabled: maybe}\n", ":1:", "enabled: maybe", "front.enabled: want true or false, got text"},
		{"mode in words", "socket: {mode: rw}\n", ":1:", "mode: rw", `socket.mode: "rw" is not a file mode`},
		{"mode too large", "socket: {mode: '1777'}\n", ":1:", "mode: '1777'", `socket.mode: "1777" is not a file mode`},
		{"text for a list", "tokens: [{token: a, accounts: shop}]\n", ":1:", "", "tokens[0].accounts: want a list, got text"},
		{"text for a bool", "tokens: [{token: a, readonly: yes}]\n", ":1:", "", "tokens[0].readonly: want true or false, got text"},
		{"bool for a size", "limits: {value: true}\n", ":1:", "value: true", "limits.value: want a size, got true or false"},
		{"list for a duration", "limits: {dur: [1h]}\n", ":1:", "dur: [1h]", "limits.dur: want a duration, got a list"},
		{"anchor", "data: &d x\n", ":1:", "data: &d x", "data: want text, got an anchor"},
		{"empty data", "data: ''\n", ":1:", "data: ''", "data: it is empty"},
		{"size unit", "limits: {value: 8MB}\n", ":1:", "value: 8MB", `limits.value: "8MB" is not a size`},
		{"size overflow", "limits: {value: 99999999999GiB}\n", ":1:", "99999999999GiB", "is not a size"},
		{"negative size", "limits: {value: -1}\n", ":1:", "value: -1", `"-1" is not a size`},
		{"no size", "limits: {value: 0}\n", ":1:", "value: 0", "limits.value: 0 is not in 1 to 512MiB"},
		{"small segment", "log: {segment: 4KiB}\n", ":1:", "segment: 4KiB", "log.segment: 4KiB is not in 64KiB to 1GiB"},
		{"odd segment", "log: {segment: 100000000}\n", ":1:", "segment: 100000000", "log.segment: 100000000 is not a multiple of 4KiB"},
		{"value over half a segment", "log: {segment: 8MiB}\nlimits: {value: 5MiB}\n", ":2:", "value: 5MiB", "limits.value (5MiB) is larger than half of log.segment (8MiB)"},
		{"default value over half a segment", "data: d\nlog:\n  segment: 8MiB\n", ":3:", "segment: 8MiB", "set limits.value to 4MiB or less, or log.segment to 16MiB or more"},
		{"duration unit", "limits: {dur: 1d}\n", ":1:", "dur: 1d", `limits.dur: "1d" is not a duration`},
		{"no duration", "limits: {dur: 0}\n", ":1:", "dur: 0", "limits.dur: 0 is not in 1ms to"},
		{"negative duration", "limits: {wait: -5s}\n", ":1:", "wait: -5s", `limits.wait: "-5s" is not a duration`},
		{"NaN duration", "limits: {wait: .nan}\n", ":1:", "wait: .nan", "limits.wait: want a duration, got a number"},
		{"no waiters", "limits: {waiters: 0}\n", ":1:", "waiters: 0", "limits.waiters: 0 is not in 1 to 10000000"},
		{"waiters in words", "limits: {waiters: many}\n", ":1:", "waiters: many", `limits.waiters: "many" is not a whole number`},
		{"too little garbage", "log:\n  garbage: 5\n", ":2:", "garbage: 5", "log.garbage: 5 is not in 10 to 10000"},
		{"half a waiter", "limits: {waiters: 1.5}\n", ":1:", "waiters: 1.5", `limits.waiters: "1.5" is not a whole number`},
		{"no port", "listen: localhost\n", ":1:", "listen: localhost", `listen: "localhost" is not an address`},
		{"port too large", "listen: 127.0.0.1:65536\n", ":1:", "listen: 127.0.0.1:65536", `the port "65536" is not in 0 to 65535`},
		{"port by name", "listen: 127.0.0.1:http\n", ":1:", "listen: 127.0.0.1:http", `the port "http" is not in 0 to 65535`},
		{"no socket path", "listen: 'unix:'\n", ":1:", "listen: 'unix:'", `no path after "unix:"`},
		{"long socket path", "listen: " + long + "\n", ":1:", long, "at most 107 bytes, got 108"},
		{"open to the world", "data: d\nlisten: 0.0.0.0:8081\n", ":2:", "listen: 0.0.0.0:8081", "no token is set: set token (or CLOUDDRAGON_TOKEN), or listen on 127.0.0.1 or unix:/path"},
		{"open, no host", "listen: :8081\n", ":1:", "listen: :8081", "no token is set"},
		{"open, IPv6", "listen: '[::]:8081'\n", ":1:", "listen: '[::]:8081'", "no token is set"},
		{"open, by name", "listen: example.com:8081\n", ":1:", "listen: example.com:8081", "no token is set"},
		{"cert alone", "tls: {cert: c.pem}\n", ":1:", "tls: {cert: c.pem}", "tls.cert is set without tls.key"},
		{"key alone", "tls:\n  cert: ''\n  key: k.pem\n", ":3:", "key: k.pem", "tls.key is set without tls.cert"},
		{"token with a space", "data: d\ntoken: 'a b'\n", ":2:", "", "token: a token must not have spaces"},
		{"listed token empty", "tokens: [{token: ''}]\n", ":1:", "", "tokens[0].token: it is empty"},
		{"listed token missing", "tokens:\n  - token: a\n  - readonly: true\n", ":3:", "", "tokens[1]: token is missing"},
		{"token twice", "tokens:\n  - token: a\n  - token: a\n", ":3:", "", "tokens[1].token: the same token as tokens[0].token"},
		{"full token listed", "token: a\ntokens:\n  - token: a\n", ":3:", "", "tokens[0].token: the same token as the one with full access"},
		{"shard account too long", "data: d\naccounts:\n  - ok\n  - " + strings.Repeat("x", 65) + "\n", ":4:", "", "accounts[1]: an account has 1 to 64 bytes, got 65"},
		{"shard account that is a dot", "accounts: [.]\n", ":1:", "accounts: [.]", `accounts[0]: "." is not a possible name of an account`},
		{"text for shard accounts", "data: d\naccounts: shop\n", ":2:", "accounts: shop", "accounts: want a list, got text"},
		{"account too long", "tokens: [{token: a, accounts: [" + strings.Repeat("x", 65) + "]}]\n", ":1:", "", "tokens[0].accounts[0]: an account has 1 to 64 bytes, got 65"},
		{"account that is a dot", "tokens:\n  - token: a\n    accounts:\n      - ok\n      - ..\n", ":5:", "", `tokens[0].accounts[1]: ".." is not a possible name of an account`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseConfig("some/config.yml", []byte(c.src), noEnv)
			if err == nil {
				t.Fatal("accepted")
			}
			msg := err.Error()
			for _, want := range []string{"some/config.yml" + c.place, c.line, c.reason} {
				if !strings.Contains(msg, want) {
					t.Errorf("got:\n%s\nwant in it: %q", msg, want)
				}
			}
		})
	}
}

func TestWithoutTokenOnlyLocalAddressesServe(t *testing.T) {
	for listen, local := range map[string]bool{
		"127.0.0.1:0": true, "127.1.2.3:80": true, "[::1]:8081": true, "localhost:8081": true, "unix:/a": true, "unix:a": true,
		"[::ffff:127.0.0.1]:1": true, "10.0.0.1:80": false, ":80": false, "localhost.example.com:80": false, "[::]:0": false,
	} {
		_, err := ParseConfig("config.yml", []byte("listen: '"+listen+"'\n"), noEnv)
		if (err == nil) != local {
			t.Errorf("%s without a token: got error %v, want it to be accepted: %v", listen, err, local)
		}
		if _, err := ParseConfig("config.yml", []byte("tokens: [{token: a}]\nlisten: '"+listen+"'\n"), noEnv); err != nil {
			t.Errorf("%s with a token: %v", listen, err)
		}
	}
}

func TestEnvironmentOverridesToken(t *testing.T) {
	env := func(v string) func(string) string {
		return func(k string) string {
			if k == "CLOUDDRAGON_TOKEN" {
				return v
			}
			return ""
		}
	}
	for _, c := range []struct{ src, env, want string }{
		{"token: file", "", "file"},
		{"token: file", "env", "env"},
		{"listen: 0.0.0.0:80", "env", "env"},
	} {
		got, err := ParseConfig("config.yml", []byte(c.src), env(c.env))
		if err != nil || got.Token != c.want {
			t.Errorf("%s with %q: got %q, %v; want %q", c.src, c.env, got.Token, err, c.want)
		}
	}
	if _, err := ParseConfig("config.yml", nil, env("a b")); err == nil || !strings.Contains(err.Error(), "CLOUDDRAGON_TOKEN: a token must not have spaces") {
		t.Errorf("a bad token in the environment: got %v", err)
	}
}

func TestMissingConfigSaysWhatToDo(t *testing.T) {
	_, err := LoadConfig(filepath.Join(t.TempDir(), "config.yml"), noEnv)
	if err == nil || !strings.Contains(err.Error(), "-config FILE") {
		t.Errorf("got %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("listen: 127.0.0.1:0\nlimits: {value: 8MiB, dur: 24h}\n")
	f.Add("tokens:\n  - {token: a, accounts: [shop, 1], readonly: true}\n")
	f.Add("? a\n: b\n---\n%YAML 1.2\n")
	f.Fuzz(func(t *testing.T, src string) {
		c, err := ParseConfig("config.yml", []byte(src), noEnv)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "config.yml:") {
				t.Errorf("the error names no file: %v", err)
			}
			return
		}
		if c.Limits.Value < 1 || c.Limits.Value > c.Segment/2 || c.Limits.Waiters < 1 || c.Data == "" || c.Limits.Dur <= 0 {
			t.Errorf("an impossible value is accepted: %+v", c)
		}
		if c.Token == "" && len(c.Tokens) == 0 && !local(c.Listen) {
			t.Errorf("%s without a token is accepted", c.Listen)
		}
	})
}
