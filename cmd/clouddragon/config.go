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
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

// Config is what config.yml says.
type Config struct {
	Listen  string // host:port, or unix:/path
	Data    string // the data directory
	Token   string // full access; empty: none
	Tokens  []Token
	Cert    string // TLS certificate file; empty: no TLS
	Key     string // its private key file
	Limits  Limits
	Segment int64 // bytes in a log segment
	Garbage int   // percent of the live data that the log may hold besides
}

// Token is a token with less than full access.
type Token struct {
	Token    string
	Accounts []string // none: all
	ReadOnly bool
}

// Limits bound what one request may ask for.
type Limits struct {
	Value   int64         // bytes of a KV value
	Dur     time.Duration // for how long a lock may be taken
	Wait    time.Duration // how long a request may wait for a lock
	Waiters int           // requests waiting for locks, all in all
}

// Defaults is the configuration that an empty file makes.
func Defaults() Config {
	return Config{
		Listen:  "127.0.0.1:8081",
		Data:    "data",
		Limits:  Limits{Value: 8 << 20, Dur: 24 * time.Hour, Wait: 10 * time.Minute, Waiters: 100_000},
		Segment: 64 << 20,
		Garbage: 100,
	}
}

// TokenVariable is the environment variable that overrides the key token,
// unless it is empty.
const TokenVariable = "CLOUDDRAGON_TOKEN"

// LoadConfig reads the configuration file, what the environment adds to it, and
// the certificate that it names; nil if it names none. An error shows the faulty
// line of the file.
func LoadConfig(file string, getenv func(string) string) (Config, *tls.Certificate, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return Config{}, nil, fmt.Errorf("%s: no such file: start where config.yml is, or name it with -config FILE (an empty file means the defaults)", file)
	} else if err != nil {
		return Config{}, nil, err
	}
	c, d, err := parseConfig(file, data, getenv)
	if err != nil {
		return Config{}, nil, err
	}
	cert, err := loadCertificate(c.Cert, c.Key)
	if err != nil {
		at := "tls.cert"
		if f, ok := errors.AsType[*fs.PathError](err); ok && f.Path == c.Key {
			at = "tls.key"
		}
		return Config{}, nil, d.fault(d.at[at], "%v", err)
	}
	return c, cert, nil
}

// ParseConfig reads a configuration, which came from the file name, without the
// files that it names.
func ParseConfig(name string, data []byte, getenv func(string) string) (Config, error) {
	c, _, err := parseConfig(name, data, getenv)
	return c, err
}

func parseConfig(name string, data []byte, getenv func(string) string) (Config, *document, error) {
	c := Defaults()
	d, err := readYAML(name, data, keysOf(&c))
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

// keysOf are the keys of config.yml, each with where its value goes and what it may be.
func keysOf(c *Config) keys {
	const day = 24 * time.Hour
	return keys{
		"listen": text(&c.Listen, checkListen),
		"data":   text(&c.Data, notEmpty),
		"token":  text(&c.Token, checkToken),
		"tokens": list(tokenReader(&c.Tokens)),
		"tls": mapping(keys{
			"cert": text(&c.Cert, nil),
			"key":  text(&c.Key, nil),
		}),
		"limits": mapping(keys{
			"value":   size(&c.Limits.Value, 1, 512<<20, 1),
			"dur":     duration(&c.Limits.Dur, time.Millisecond, 366*day),
			"wait":    duration(&c.Limits.Wait, time.Millisecond, 31*day),
			"waiters": count(&c.Limits.Waiters, 1, 10_000_000),
		}),
		"log": mapping(keys{
			"segment": size(&c.Segment, 64<<10, 1<<30, 4096),
			"garbage": count(&c.Garbage, 10, 10_000),
		}),
	}
}

// check refuses what no single value shows. A fault is shown at the value of
// the file that has a part in it.
func (c *Config) check(d *document) error {
	seen := map[string]string{c.Token: "the one with full access"}
	for i, t := range c.Tokens {
		path := fmt.Sprintf("tokens[%d].token", i)
		if at, again := seen[t.Token]; again {
			return d.fault(d.at[path], "%s: the same token as %s", path, at)
		}
		seen[t.Token] = path
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
			formatSize(c.Limits.Value), formatSize(c.Segment), formatSize(c.Segment/2), formatSize(2*c.Limits.Value))
	}
	if c.Token == "" && len(c.Tokens) == 0 && !local(c.Listen) {
		return d.fault(d.at["listen"], "listen: %s can be reached from other machines and no token is set: set token (or %s), or listen on 127.0.0.1 or unix:/path",
			c.Listen, TokenVariable)
	}
	return nil
}

// tokenReader appends one item of the list tokens.
func tokenReader(to *[]Token) reader {
	return func(d *document, path string, n ast.Node) error {
		var t Token
		err := mapping(keys{
			"token":    text(&t.Token, checkListedToken),
			"readonly": boolean(&t.ReadOnly),
			"accounts": list(func(d *document, path string, n ast.Node) error {
				var acc string
				if err := name(&acc, checkAccount)(d, path, n); err != nil {
					return err
				}
				t.Accounts = append(t.Accounts, acc)
				return nil
			}),
		})(d, path, n)
		if err != nil {
			return err
		}
		if t.Token == "" {
			return d.fault(n.GetToken(), "%s: token is missing", path)
		}
		*to = append(*to, t)
		return nil
	}
}

func notEmpty(s string) error {
	if s == "" {
		return errors.New("it is empty")
	}
	return nil
}

// checkToken wants what can stand in an Authorization header.
func checkToken(s string) error {
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsSpace(r) || unicode.IsControl(r) {
			return errors.New("a token has no spaces and no control characters in it")
		}
	}
	return nil
}

func checkListedToken(s string) error {
	return errors.Join(notEmpty(s), checkToken(s))
}

// checkAccount accepts what a route accepts as :acc.
func checkAccount(s string) error {
	switch {
	case len(s) < 1 || len(s) > 64:
		return fmt.Errorf("an account has 1 to 64 bytes, got %d", len(s))
	case strings.ContainsRune(s, 0):
		return errors.New("an account has no NUL in it")
	case s == "." || s == "..":
		return fmt.Errorf("%q names no account", s)
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
		return fmt.Errorf("%q is not an address: write host:port or unix:/path", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("the port %q is not in 0 to 65535", port)
	}
	return nil
}

// local says whether no other machine can reach the address.
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
