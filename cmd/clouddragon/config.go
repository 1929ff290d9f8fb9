package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"clouddragon/internal/units"
)

// Config is the configuration of config.yml.
type Config struct {
	Listen     string // host:port, or unix:/path
	Data       string // the data directory
	Token      string // full access; empty: none
	Tokens     []Token
	TokensFile string // a file with more tokens, which LoadConfig adds to Tokens; empty: none
	Cert       string // TLS certificate file; empty: no TLS
	Key        string // its private key file
	Socket     Socket
	Limits     Limits
	Segment    int64 // bytes in a log segment
	Garbage    int   // how much garbage the log may hold, in percent of the live data
	Audit      bool  // log each grant, forced unlock and expiry
	Backup     Backup
	Front      Front
	Replica    Replica
	Cluster    Cluster
	Advertise  string   // the address under which other servers reach this one; empty: Listen
	Accounts   []string // that live on this server; none: all

	// LoadConfig sets these.
	certificate *tls.Certificate // nil: no TLS
	warnings    []string
}

// Socket says who may connect to a unix socket.
type Socket struct {
	Mode  fs.FileMode
	Group string // name or number of the group that owns it; empty: the server's
}

// Limits are the limits of config.yml.
type Limits struct {
	Value    int64         // bytes of a KV value
	Dur      time.Duration // how long a lock may be taken for
	Wait     time.Duration // how long a request may wait for a lock
	Waiters  int           // requests that wait for locks, in total
	Batch    int           // calls in a batch
	Replay   time.Duration // how long the answer to an Idempotency-Key is kept
	Watchers int           // requests that watch, in total
}

// Backup has the limits of a backup.
type Backup struct {
	Time time.Duration // how long it may take
	Hold int64         // bytes of log that may be kept for it
}

// Replica says which primary the server is a standby of.
type Replica struct {
	Of    string // the primary's address; empty: not a standby
	Token string // gives full access to the primary
	Sync  bool   // the primary's answers wait for this server's disk
}

// Cluster says how the primary is elected.
type Cluster struct {
	Etcd  []string // addresses of etcd's members; none: an operator promotes
	Name  string   // of the server; PREFIX/NAME if several clusters share an etcd
	Lease time.Duration
}

// Front configures the event loops for plain requests.
type Front struct {
	Enabled bool
	Loops   int // number of event loops; 0: one for every two cores
}

// Defaults returns the configuration of an empty file.
func Defaults() Config {
	return Config{
		Listen: "127.0.0.1:8081",
		Data:   "data",
		Socket: Socket{Mode: 0o600},
		Limits: Limits{
			Value: 8 << 20, Dur: 24 * time.Hour, Wait: 10 * time.Minute, Waiters: 100_000,
			Batch: 10_000, Replay: 24 * time.Hour, Watchers: 100_000,
		},
		Segment: 64 << 20,
		Garbage: 100,
		Backup:  Backup{Time: 6 * time.Hour, Hold: 4 << 30},
		Front:   Front{Enabled: true},
		Cluster: Cluster{Lease: 3 * time.Second},
	}
}

// TokenVariable is the environment variable that overrides the key token,
// unless it is empty.
const TokenVariable = "CLOUDDRAGON_TOKEN"

// LoadConfig reads the configuration file, the environment, and the files with tokens and
// certificates that the configuration names. An error names the faulty line.
func LoadConfig(file string, getenv func(string) string) (Config, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return Config{}, fmt.Errorf("%s: no such file: start where config.yml is, or name it with -config FILE (an empty file means the defaults)", file)
	} else if err != nil {
		return Config{}, err
	}
	c, d, err := parseConfig(file, data, getenv)
	if err != nil {
		return Config{}, err
	}
	if c.TokensFile != "" {
		if err := c.readTokensFile(d); err != nil {
			return Config{}, err
		}
	}
	if c.certificate, err = loadCertificate(c.Cert, c.Key); err != nil {
		at := "tls.cert"
		if f, ok := errors.AsType[*fs.PathError](err); ok && f.Path == c.Key {
			at = "tls.key"
		}
		return Config{}, d.fault(d.at[at], "%v", err)
	}
	if _, err := c.Socket.group(); err != nil {
		return Config{}, d.fault(d.at["socket.group"], "socket.group: %v", err)
	}
	return c, nil
}

// ParseConfig parses a configuration that was read from the file name. It does not read the
// files that the configuration names.
func ParseConfig(name string, data []byte, getenv func(string) string) (Config, error) {
	c, _, err := parseConfig(name, data, getenv)
	return c, err
}

func parseConfig(name string, data []byte, getenv func(string) string) (Config, *document, error) {
	c := Defaults()
	d, err := readYAML(name, data, false, mapping(keysOf(&c)))
	if err != nil {
		return Config{}, nil, err
	}
	if t := getenv(TokenVariable); t != "" {
		if err := checkToken(t); err != nil {
			return Config{}, nil, fmt.Errorf("%s: %w", TokenVariable, err)
		}
		c.Token = t
	}
	if err := c.check(d); err != nil {
		return Config{}, nil, err
	}
	return c, d, nil
}

// keysOf returns the keys of config.yml. Each has a reader that checks and stores its value.
func keysOf(c *Config) keys {
	const day = 24 * time.Hour
	return keys{
		"listen":      name(&c.Listen, checkListen),
		"data":        text(&c.Data, notEmpty),
		"token":       text(&c.Token, checkToken),
		"tokens":      optional(list(tokenReader(&c.Tokens))),
		"tokens_file": text(&c.TokensFile, nil),
		"socket": mapping(keys{
			"mode":  mode(&c.Socket.Mode),
			"group": name(&c.Socket.Group, nil),
		}),
		"tls": mapping(keys{
			"cert": text(&c.Cert, nil),
			"key":  text(&c.Key, nil),
		}),
		"limits": mapping(keys{
			"value":   size(&c.Limits.Value, 1, 512<<20, 1),
			"dur":     duration(&c.Limits.Dur, time.Millisecond, 366*day),
			"wait":    duration(&c.Limits.Wait, time.Millisecond, 31*day),
			"waiters": count(&c.Limits.Waiters, 1, 10_000_000),

			"batch":    count(&c.Limits.Batch, 1, 1_000_000),
			"replay":   duration(&c.Limits.Replay, time.Millisecond, 366*day),
			"watchers": count(&c.Limits.Watchers, 1, 10_000_000),
		}),
		"log": mapping(keys{
			"segment": size(&c.Segment, 64<<10, 1<<30, 4096),
			"garbage": count(&c.Garbage, 10, 10_000),
			"audit":   boolean(&c.Audit),
		}),
		"backup": mapping(keys{
			"time": duration(&c.Backup.Time, time.Second, 31*day),
			"hold": size(&c.Backup.Hold, 1<<20, 1<<50, 1),
		}),
		"front": mapping(keys{
			"enabled": boolean(&c.Front.Enabled),
			"loops":   count(&c.Front.Loops, 0, 1024),
		}),
		"replica": mapping(keys{
			"of":    text(&c.Replica.Of, checkServer),
			"token": text(&c.Replica.Token, checkToken),
			"sync":  boolean(&c.Replica.Sync),
		}),
		"cluster": mapping(keys{
			"etcd":  optional(list(serverReader(&c.Cluster.Etcd))),
			"name":  name(&c.Cluster.Name, nil),
			"lease": duration(&c.Cluster.Lease, time.Second, time.Minute),
		}),
		"advertise": text(&c.Advertise, checkServer),
		"accounts":  optional(list(accountReader(&c.Accounts))),
	}
}

// check refuses values that contradict each other. The error shows one of them in the file.
func (c *Config) check(d *document) error {
	err := c.distinct(func(i int) (*document, string) { return d, fmt.Sprintf("tokens[%d].token", i) })
	if err != nil {
		return err
	}
	if (c.Cert == "") != (c.Key == "") {
		given, missing := "tls.cert", "tls.key"
		if c.Cert == "" {
			given, missing = missing, given
		}
		return d.fault(d.at[given], "%s is set without %s: set both or neither", given, missing)
	}
	if c.Limits.Value > c.Segment/2 {
		at := d.at["limits.value"]
		if at == nil {
			at = d.at["log.segment"]
		}
		return d.fault(at, "limits.value (%s) is larger than half of log.segment (%s): set limits.value to %s or less, or log.segment to %s or more",
			units.FormatSize(c.Limits.Value), units.FormatSize(c.Segment), units.FormatSize(c.Segment/2), units.FormatSize(2*c.Limits.Value))
	}
	if err := c.checkReplica(d); err != nil {
		return err
	}
	if !c.hasToken() && !local(c.Listen) {
		return d.fault(d.at["listen"], "listen: %s can be reached from other machines and no token is set: set token (or %s), or listen on 127.0.0.1 or unix:/path",
			c.Listen, TokenVariable)
	}
	return nil
}

func notEmpty(s string) error {
	if s == "" {
		return errors.New("it is empty")
	}
	return nil
}

// maxSocketPath is the longest path, in bytes, that Linux binds a socket to.
const maxSocketPath = 107

func checkListen(s string) error {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		switch {
		case path == "" || path[0] == '@':
			return errors.New(`no path after "unix:"`)
		case len(path) > maxSocketPath:
			return fmt.Errorf("the path of a unix socket has at most %d bytes, got %d", maxSocketPath, len(path))
		}
		return nil
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address: write host:port (127.0.0.1:8081) or unix:/path", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("the port %q is not in 0 to 65535", port)
	}
	return nil
}

// local reports whether no other machine can reach the address.
func local(listen string) bool {
	if strings.HasPrefix(listen, "unix:") {
		return true
	}
	host, _, _ := net.SplitHostPort(listen)
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// leastSegment returns the least size in bytes of a log segment on a small disk. On a full
// disk all calls may use three quarters of a segment. The largest value, or a batch of that
// size, must fit into these.
func (c *Config) leastSegment() int64 {
	const record = 128 // bytes of a call in addition to its body
	call := c.Limits.Value + int64(c.Limits.Batch)*record
	return min(c.Segment, (call+call/2+64<<10)/4096*4096)
}
