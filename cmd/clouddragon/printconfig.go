package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"clouddragon/internal/units"
)

const configUsage = `usage: clouddragon config -check FILE
       clouddragon config -print [FILE]

Checks a configuration and the files that it names like a start of the server,
or prints it. It changes nothing and contacts no server.

flags:
  -check  print one line if FILE is good, otherwise what is wrong and on which line
  -print  print every key with its value, as a configuration with the same meaning;
          without FILE the defaults. Tokens are not shown: each is replaced by a text
          that no server accepts as a token
  -help   print this and exit

environment:
  CLOUDDRAGON_TOKEN  counts as the token, as at a start of the server

exit codes:
  0   the configuration is good
  1   it cannot be printed
  64  a bad flag
  78  a bad configuration
`

// configure checks or prints a configuration and returns the exit code.
func configure(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("clouddragon config")
	check := flags.Bool("check", false, "")
	show := flags.Bool("print", false, "")
	if code, done := parse(flags, args, configUsage, stdout, stderr); done {
		return code
	}
	fail := failer(flags, stderr)
	file := flags.Arg(0)
	switch {
	case *check == *show:
		return fail(exitUsage, errors.New("want one of -check and -print"))
	case flags.NArg() > 1:
		return fail(exitUsage, fmt.Errorf("want one FILE, got %d arguments (flags come before it)", flags.NArg()))
	case *check && file == "":
		return fail(exitUsage, errors.New("-check: FILE is missing"))
	}
	if file != "" {
		if _, err := os.Stat(file); err != nil {
			return fail(exitConfig, err)
		}
	}
	if *show {
		c := Defaults()
		if file != "" {
			data, err := os.ReadFile(file)
			if err != nil {
				return fail(exitConfig, err)
			}
			if c, err = ParseConfig(file, data, os.Getenv); err != nil {
				return fail(exitConfig, err)
			}
			if os.Getenv(TokenVariable) != "" {
				c.Token = ""
			}
		}
		if err := c.print(stdout); err != nil {
			return fail(exitFailed, err)
		}
		return exitOK
	}
	c, err := LoadConfig(file, os.Getenv)
	if err != nil {
		return fail(exitConfig, err)
	}
	for _, w := range c.warnings {
		fmt.Fprintf(stderr, "clouddragon config: warning: %s\n", w)
	}
	if _, err := fmt.Fprintf(stdout, "%s: good\n", file); err != nil {
		return fail(exitFailed, err)
	}
	return exitOK
}

// hiddenToken is printed in place of a token. It has spaces, so no server accepts it as a
// token.
const hiddenToken = "not shown: write the token here"

// print writes the configuration as YAML, without its tokens.
func (c *Config) print(w io.Writer) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("listen: %s", quoted(c.Listen))
	line("data: %s", quoted(c.Data))
	if c.Token == "" {
		line(`token: ""`)
	} else {
		line("token: %s", quoted(hiddenToken))
	}
	if len(c.Tokens) == 0 {
		line("tokens: []")
	} else {
		line("tokens:")
	}
	for _, t := range c.Tokens {
		line("  - {token: %s, accounts: %s, readonly: %t}", quoted(hiddenToken), quotedList(t.Accounts), t.ReadOnly)
	}
	line("tokens_file: %s", quoted(c.TokensFile))
	line("tls:\n  cert: %s\n  key: %s", quoted(c.Cert), quoted(c.Key))
	line("socket:\n  mode: \"%04o\"\n  group: %s", c.Socket.Mode, quoted(c.Socket.Group))
	l := c.Limits
	line("limits:\n  value: %s\n  dur: %s\n  wait: %s\n  waiters: %d", units.FormatSize(l.Value), units.FormatDuration(l.Dur), units.FormatDuration(l.Wait), l.Waiters)
	line("  batch: %d\n  replay: %s\n  watchers: %d", l.Batch, units.FormatDuration(l.Replay), l.Watchers)
	line("log:\n  segment: %s\n  garbage: %d\n  audit: %t", units.FormatSize(c.Segment), c.Garbage, c.Audit)
	line("backup:\n  time: %s\n  hold: %s", units.FormatDuration(c.Backup.Time), units.FormatSize(c.Backup.Hold))
	line("front:\n  enabled: %t\n  loops: %d", c.Front.Enabled, c.Front.Loops)
	line("accounts: %s", quotedList(c.Accounts))
	token := c.Replica.Token
	if token != "" {
		token = hiddenToken
	}
	line("replica:\n  of: %s\n  token: %s\n  sync: %t", quoted(c.Replica.Of), quoted(token), c.Replica.Sync)
	line("cluster:\n  etcd: %s\n  name: %s\n  lease: %s", quotedList(c.Cluster.Etcd), quoted(c.Cluster.Name), units.FormatDuration(c.Cluster.Lease))
	line("advertise: %s", quoted(c.Advertise))
	_, err := io.WriteString(w, b.String())
	return err
}

// quotedList returns a list of strings as YAML.
func quotedList(all []string) string {
	var b []string
	for _, s := range all {
		b = append(b, quoted(s))
	}
	return "[" + strings.Join(b, ", ") + "]"
}

// quoted returns a string in double quotes.
func quoted(s string) string { return strconv.Quote(s) }
