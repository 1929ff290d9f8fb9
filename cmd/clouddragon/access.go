package main

import (
	"crypto/tls"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"clouddragon/handlers"
)

// access is what a reload can replace while the server runs: the tokens and the TLS
// certificate.
type access struct {
	tokens      handlers.Tokens
	certificate atomic.Pointer[tls.Certificate]
	replica     atomic.Value // a string: the token for other servers
	config      Config       // in force; after the start only the goroutine of reloads uses it
	once        sync.Once
}

func newAccess(c Config) *access {
	a := &access{config: c}
	a.take(c)
	return a
}

// take puts the tokens and the certificate of a configuration in force.
func (a *access) take(c Config) {
	var list []handlers.Token
	if c.Token != "" {
		list = append(list, handlers.Token{Token: c.Token})
	}
	for _, t := range c.Tokens {
		list = append(list, handlers.Token(t))
	}
	a.tokens.Set(list)
	a.certificate.Store(c.certificate)
	a.replica.Store(c.replicaToken())
}

// replicaToken is the token with which other servers give full access.
func (a *access) replicaToken() string { return a.replica.Load().(string) }

// tlsConfig is nil without a certificate.
func (a *access) tlsConfig() *tls.Config {
	if a.config.certificate == nil {
		return nil
	}
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.certificate.Load(), nil },
		MinVersion:     tls.VersionTLS12,
	}
}

// watch starts reloading at each signal. Further calls do nothing.
func (a *access) watch(env environment) { a.once.Do(func() { go a.reloads(env) }) }

// reloads reloads at each signal. It has its own goroutine, so a file that blocks a read
// does not delay a stop.
func (a *access) reloads(env environment) {
	for range env.reload {
		env.systemd.reloading()
		a.reload(env)
		env.systemd.tell("READY=1")
	}
}

// reload reads the configuration again and puts its tokens and its certificate in
// force. After an error the old ones stay in force.
func (a *access) reload(env environment) {
	old := &a.config
	c, err := env.config()
	if err == nil && old.hasToken() && !c.hasToken() {
		// A half-written file looks like this too.
		err = fmt.Errorf("the configuration has no token any more, which gives everybody access: that needs a restart")
	}
	if err != nil {
		env.log.Error("not reloaded: the old tokens and the old certificate stay in force", "err", err)
		return
	}
	for _, w := range c.warnings {
		env.log.Warn(w)
	}
	if (c.certificate == nil) != (old.certificate == nil) {
		c.certificate, c.Cert, c.Key = old.certificate, old.Cert, old.Key
		env.log.Warn("turning TLS on or off needs a restart")
	}
	old.Replica.Token = c.Replica.Token
	if keys := old.fixed(c); len(keys) > 0 {
		env.log.Warn("a change of these keys needs a restart", "keys", strings.Join(keys, " "))
	}
	a.take(c)
	old.Token, old.Tokens, old.TokensFile = c.Token, c.Tokens, c.TokensFile
	old.certificate, old.Cert, old.Key = c.certificate, c.Cert, c.Key
	n := len(c.Tokens)
	if c.Token != "" {
		n++
	}
	env.log.Info("reloaded", "tokens", n, "certificate", describe(c.certificate))
}

// fixed returns the keys that differ in c and need a restart.
func (old *Config) fixed(c Config) []string {
	var names []string
	for _, k := range []struct {
		name     string
		was, now any
	}{
		{"listen", old.Listen, c.Listen},
		{"data", old.Data, c.Data},
		{"socket", old.Socket, c.Socket},
		{"limits", old.Limits, c.Limits},
		{"log.segment", old.Segment, c.Segment},
		{"log.garbage", old.Garbage, c.Garbage},
		{"log.audit", old.Audit, c.Audit},
		{"front", old.Front, c.Front},
		{"accounts", old.Accounts, c.Accounts},
		{"replica", old.Replica, c.Replica},
		{"cluster", old.Cluster, c.Cluster},
		{"advertise", old.Advertise, c.Advertise},
	} {
		if !reflect.DeepEqual(k.was, k.now) {
			names = append(names, k.name)
		}
	}
	return names
}

// describe returns the serial number of a certificate and until when it is valid.
func describe(c *tls.Certificate) string {
	if c == nil || c.Leaf == nil {
		return "none"
	}
	return fmt.Sprintf("serial %x, until %s", c.Leaf.SerialNumber, c.Leaf.NotAfter.UTC().Format(time.RFC3339))
}
