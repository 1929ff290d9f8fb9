package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"clouddragon/internal/client"
	"clouddragon/internal/replica"
)

const statusUsage = `usage: clouddragon status [flags]

Prints whether the server is healthy, its role if it has a standby or is one, who
holds which lock or mutex and until when, and who waits.

flags:
  -server ADDRESS    http://HOST:PORT, https://HOST:PORT or unix:/PATH
  -token-file FILE   holds the token
  -account ACCOUNT   only this account (default: all, which needs a token for all of them)
  -json              print JSON
  -help              print this and exit

environment:
  CLOUDDRAGON_SERVER  the server, without -server (default ` + client.DefaultServer + `)
  CLOUDDRAGON_TOKEN   the token, without -token-file

exit codes:
  0   the server is healthy
  1   its answer cannot be printed
  64  a bad flag, or something that the server refuses as malformed
  69  no answer from the server, or it is not healthy or cannot answer now
  77  the token is refused
`

// statusLimit is how long each call may take.
const statusLimit = 10 * time.Second

// overview is what status prints as JSON.
type overview struct {
	Server string `json:"server"`
	Health string `json:"health"` // "ok", or what is wrong
	// Replica is the server's role in replication; nil: there is no replication, or the
	// token does not allow the call.
	Replica *replica.Status `json:"replica,omitempty"`
	Locks   []lockStatus    `json:"locks"`
	// Unknown is why the server does not tell now what is held; empty: Locks is everything.
	Unknown string `json:"unknown,omitempty"`
}

// lockStatus is a lock or a mutex that is held.
type lockStatus struct {
	Account   string   `json:"account"`
	Account64 []byte   `json:"account64,omitempty"` // if it is not UTF-8
	API       string   `json:"api"`                 // lock or mlock
	ID        string   `json:"id"`
	ID64      []byte   `json:"id64,omitempty"` // if it is not UTF-8
	Holders   []held   `json:"holders"`
	Waiters   int      `json:"waiters"`
	Queue     []waiter `json:"queue"` // the first waiters
}

// held is a holder as in the answer of GET lock.
type held struct {
	ID      string  `json:"id"`
	Token   int64   `json:"token"`
	TTL     float64 `json:"ttl"` // seconds
	Expires string  `json:"expires"`
}

// waiter is a waiter as in the answer of GET lock.
type waiter struct {
	ID     string  `json:"id"`
	Waited float64 `json:"waited"` // seconds
}

// status prints the health and the locks of a server and returns the exit code.
func status(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("clouddragon status")
	var to connection
	to.register(flags)
	account := flags.String("account", "", "")
	asJSON := flags.Bool("json", false, "")
	if code, done := parse(flags, args, statusUsage, stdout, stderr); done {
		return code
	}
	fail := failer(flags, stderr)
	if flags.NArg() > 0 {
		return fail(exitUsage, fmt.Errorf("unknown argument %q", flags.Arg(0)))
	}
	address, token, err := to.find()
	if err != nil {
		return fail(exitUsage, err)
	}
	server, err := client.New(address, token)
	if err != nil {
		return fail(exitUsage, err)
	}
	o, err := overviewOf(server, *account)
	if err != nil {
		return fail(exitCode(err), err)
	}
	if *asJSON {
		err = json.NewEncoder(stdout).Encode(o)
	} else {
		err = o.print(stdout)
	}
	if err != nil {
		return fail(exitFailed, err)
	}
	if o.Health != "ok" || o.Unknown != "" {
		return exitUnavailable
	}
	return exitOK
}

// overviewOf asks the server for everything. An empty account means all accounts.
func overviewOf(server *client.Server, account string) (*overview, error) {
	ctx := context.Background()
	o := &overview{Server: server.String(), Locks: []lockStatus{}}
	if err := o.health(ctx, server); err != nil {
		return nil, err
	}
	if err := o.role(ctx, server); err != nil {
		return nil, err
	}
	if o.Replica != nil && o.Replica.Role != "primary" {
		return o, nil // it does not answer calls about locks
	}
	err := o.held(ctx, server, account)
	// A primary that cannot tell whether it still is one says so to everybody.
	if e := (*client.Error)(nil); errors.As(err, &e) && e.Status == http.StatusServiceUnavailable {
		o.Unknown, err = e.Line, nil
	}
	return o, err
}

// held asks for the locks and mutexes. An empty account means all accounts.
func (o *overview) held(ctx context.Context, server *client.Server, account string) error {
	accounts := []string{account}
	if account == "" {
		var err error
		if accounts, err = accountsOf(ctx, server); err != nil {
			return err
		}
	}
	for _, a := range accounts {
		for _, api := range []string{"lock", "mlock"} {
			if err := o.list(ctx, server, a, api); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *overview) health(ctx context.Context, server *client.Server) error {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	answer, err := server.Call(ctx, "GET", "/healthz", nil, "")
	var failed *client.Error
	switch {
	case errors.As(err, &failed) && failed.Status == 503:
		o.Health = failed.Line
	case err != nil:
		return err
	case strings.TrimSpace(string(answer.Body)) != "ok":
		return &client.Error{Reason: client.Foreign, Line: fmt.Sprintf("/healthz of %s does not answer ok: is it a Cloud Dragon server?", server)}
	default:
		o.Health = "ok"
	}
	return nil
}

// role asks for the server's role in replication.
func (o *overview) role(ctx context.Context, server *client.Server) error {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	answer, err := server.Call(ctx, "GET", "/replica/status", nil, "")
	if client.Failed(err, client.Denied) || client.Failed(err, client.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	s := &replica.Status{}
	if json.Unmarshal(answer.Body, s) != nil || s.Role == "" {
		return &client.Error{Reason: client.Foreign, Line: fmt.Sprintf("the role of %s is malformed: is it a Cloud Dragon server?", server)}
	}
	if s.Role != "primary" || s.Epoch > 1 || s.Standby != "" {
		o.Replica = s
	}
	return nil
}

// roleLine describes a server's role in one line.
func roleLine(s *replica.Status) string {
	line := fmt.Sprintf("%s, epoch %d", s.Role, s.Epoch)
	switch s.Role {
	case "primary":
		if s.Standby == "" {
			return line + "; no standby"
		}
		line += "; the standby " + s.Standby
	case "standby":
		line += "; the primary is " + cmp.Or(s.Primary, "not known") + ", and this standby"
	default:
		return strings.TrimSuffix(line+"; the primary is "+s.Primary, "; the primary is ")
	}
	if s.InSync {
		line += " is in sync"
	} else {
		line += " is not in sync"
	}
	if !s.Live {
		line += ", and the link is down"
	}
	if s.Batches > 0 {
		line += fmt.Sprintf(", %d batches and %s behind", s.Batches, inSeconds(s.Seconds))
	}
	return line
}

// accountsOf lists the accounts that have something in them.
func accountsOf(ctx context.Context, server *client.Server) ([]string, error) {
	var accounts []string
	err := server.Pages(ctx, "/db", nil, "text/plain", func(a client.Answer) error {
		for line := range strings.Lines(string(a.Body)) {
			name, err := url.PathUnescape(strings.TrimSuffix(line, "\n"))
			if err != nil {
				return badList(server)
			}
			accounts = append(accounts, name)
		}
		return nil
	})
	if client.Failed(err, client.Denied) {
		return nil, &client.Error{Reason: client.Denied, Line: err.Error() + " (with a token for some accounts, name one with -account)"}
	}
	return accounts, err
}

func badList(server *client.Server) error {
	return &client.Error{Reason: client.Foreign, Line: fmt.Sprintf("the listing of %s is malformed: is it a Cloud Dragon server?", server)}
}

// list adds the locks or mutexes of an account.
func (o *overview) list(ctx context.Context, server *client.Server, account, api string) error {
	return server.Pages(ctx, client.Path("db", account, api), nil, "application/json", func(a client.Answer) error {
		var page []struct {
			ID   string `json:"id"`
			ID64 []byte `json:"id64"`
		}
		if json.Unmarshal(a.Body, &page) != nil {
			return badList(server)
		}
		for _, entry := range page {
			id := entry.ID
			if entry.ID64 != nil {
				id = string(entry.ID64)
			}
			if err := o.add(ctx, server, account, api, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// add adds a lock with its holders and waiters, if it is still held.
func (o *overview) add(ctx context.Context, server *client.Server, account, api, id string) error {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	answer, err := server.Call(ctx, "GET", client.Path("db", account, api, id), nil, "")
	if client.Failed(err, client.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var found struct {
		held
		Waiters int      `json:"waiters"`
		Holders []held   `json:"holders"`
		Queue   []waiter `json:"queue"`
	}
	if json.Unmarshal(answer.Body, &found) != nil || found.Token == 0 {
		return badList(server)
	}
	l := lockStatus{Account: account, API: api, ID: id, Holders: found.Holders, Waiters: found.Waiters, Queue: found.Queue}
	if !utf8.ValidString(account) {
		l.Account64 = []byte(account)
	}
	if !utf8.ValidString(id) {
		l.ID64 = []byte(id)
	}
	if len(l.Holders) == 0 {
		l.Holders = []held{found.held}
	}
	if l.Queue == nil {
		l.Queue = []waiter{}
	}
	o.Locks = append(o.Locks, l)
	return nil
}

// print writes a table.
func (o *overview) print(w io.Writer) error {
	fmt.Fprintf(w, "server  %s\nhealth  %s\n", o.Server, o.Health)
	if r := o.Replica; r != nil {
		fmt.Fprintf(w, "role    %s\n", roleLine(r))
		if r.Role != "primary" {
			_, err := fmt.Fprintln(w, "\nask the primary who holds what")
			return err
		}
	}
	if o.Unknown != "" {
		if _, err := fmt.Fprintf(w, "locks   not known now: %s\n", o.Unknown); err != nil || len(o.Locks) == 0 {
			return err
		}
	}
	fmt.Fprintln(w)
	if len(o.Locks) == 0 {
		_, err := fmt.Fprintln(w, "nothing is held")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ACCOUNT\tAPI\tNAME\tSTATE\tID\tTOKEN\tTIME")
	for _, l := range o.Locks {
		row := func(state, id, token, time string) {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", shown(l.Account), l.API, shown(l.ID), state, shown(id), token, time)
		}
		for _, h := range l.Holders {
			row("held", h.ID, strconv.FormatInt(h.Token, 10), fmt.Sprintf("%s left, until %s", inSeconds(h.TTL), h.Expires))
		}
		for _, q := range l.Queue {
			row("waits", q.ID, "", "for "+inSeconds(q.Waited))
		}
		if more := l.Waiters - len(l.Queue); more > 0 {
			row("waits", fmt.Sprintf("%d more", more), "", "")
		}
	}
	return t.Flush()
}

// shown quotes a name that would break the table.
func shown(name string) string {
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	if name == "" {
		return "-"
	}
	return name
}

func inSeconds(s float64) string { return strconv.FormatFloat(s, 'f', 1, 64) + "s" }
