package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"clouddragon/db"
	"clouddragon/internal/client"
)

const moveUsage = `usage: clouddragon move [flags] -account ACCOUNT -from ADDRESS -to ADDRESS -map FILE

Moves an account with all its contents from one server to another, and changes its
line in HAProxy's map file. Other accounts are not affected; this one answers 503 until
the move is done. Mutexes are not moved: they are free afterwards. If the command ends
early, run it again: it continues where it stopped. Reload HAProxy at the end.

flags:
  -account ACCOUNT      the account
  -from ADDRESS         the server that has it: http://HOST:PORT, https://HOST:PORT or
                        unix:/PATH
  -to ADDRESS           the server that gets it
  -map FILE             the map file. Comments in it say which backend has which
                        servers: # backend NAME ADDRESS...
  -undo                 give up the move: the account stays where it is. Refused once
                        the account lives on the other server
  -token-file FILE      holds the token, which needs full access
  -to-token-file FILE   holds the token for the server that gets it, if it differs
  -help                 print this and exit

environment:
  CLOUDDRAGON_TOKEN  the token, without -token-file

exit codes:
  0   the account lives on the other server, or with -undo where it was
  1   the move was not finished: the message says what to do
  64  a bad flag
  69  no answer from a server: run it again
  77  a token is refused
`

// How long a call may take: usually, and if it reads everything that a server has.
const (
	stepTime = 30 * time.Second
	scanTime = time.Hour
	// moveIdle is how long a server may pause while it sends the account.
	moveIdle = 10 * time.Minute
	// moveBatch is how many bytes of an account are sent to the target at once.
	moveBatch = 1 << 20
	// maxMoved is the largest value that can be moved, in bytes: the most that
	// limits.value may be.
	maxMoved = 512 << 20
)

// move moves an account and returns the exit code.
func move(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("clouddragon move")
	account := flags.String("account", "", "")
	from, to := flags.String("from", "", ""), flags.String("to", "", "")
	file := flags.String("map", "", "")
	undo := flags.Bool("undo", false, "")
	tokenFile, toTokenFile := flags.String("token-file", "", ""), flags.String("to-token-file", "", "")
	if code, done := parse(flags, args, moveUsage, stdout, stderr); done {
		return code
	}
	fail := failer(flags, stderr)
	if flags.NArg() > 0 {
		return fail(exitUsage, fmt.Errorf("unknown argument %q", flags.Arg(0)))
	}
	for _, f := range []struct{ name, value string }{{"-account ACCOUNT", *account}, {"-from ADDRESS", *from}, {"-to ADDRESS", *to}} {
		if f.value == "" {
			return fail(exitUsage, fmt.Errorf("%s is missing", f.name))
		}
	}
	if err := checkAccount(*account); err != nil {
		return fail(exitUsage, fmt.Errorf("-account: %w", err))
	}
	if *file == "" && !*undo {
		return fail(exitUsage, errors.New("-map FILE is missing"))
	}
	if strings.TrimRight(*from, "/") == strings.TrimRight(*to, "/") {
		return fail(exitUsage, errors.New("-from and -to are the same server"))
	}
	m := &mover{account: *account, out: stdout}
	for _, end := range []struct {
		end       *moveEnd
		address   string
		tokenFile string
	}{{&m.from, *from, *tokenFile}, {&m.to, *to, *toTokenFile}} {
		if end.tokenFile == "" {
			end.tokenFile = *tokenFile
		}
		c := connection{server: end.address, tokenFile: end.tokenFile}
		address, token, err := c.find()
		if err != nil {
			return fail(exitUsage, err)
		}
		if strings.Contains(address, "@") {
			return fail(exitUsage, errors.New("-from and -to: the address must not have a user and a password, because clients get to see it; put the token into a file"))
		}
		end.end.address = strings.TrimRight(address, "/")
		if end.end.Server, err = client.New(address, token); err != nil {
			return fail(exitUsage, err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var err error
	if *undo {
		err = m.undo(ctx)
	} else {
		err = m.run(ctx, *file)
	}
	var refused *client.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &refused) && refused.Reason == client.Denied:
		return fail(exitDenied, err)
	case errors.As(err, &refused) && refused.Reason != client.Conflict && refused.Reason != client.BadRequest:
		return fail(exitUnavailable, err)
	}
	return fail(exitFailed, err)
}

// mover moves an account. Each step is durable on the server before the next one begins, and
// can be repeated, so another mover can continue after one that ended early.
type mover struct {
	account  string
	from, to moveEnd
	out      io.Writer
}

// moveEnd is a server at one end of a move.
type moveEnd struct {
	*client.Server
	address string // the peer's mark has it
}

// moveMark is a server's mark of an account that moves.
type moveMark struct {
	State   db.MoveState
	ID      string
	Peer    string
	Attempt string
	Version int64
	Token   int64
}

// say reports a finished step.
func (m *mover) say(format string, args ...any) error {
	_, err := fmt.Fprintf(m.out, format+"\n", args...)
	return err
}

// run moves the account:
//
//	source  freeze   nothing changes from here on
//	target  arrive   versions and tokens are above the source's; nothing is here
//	        copy
//	target  arrived  all of it is here
//	source  depart   it no longer lives here: from here on there is no way back
//	        the map  requests go to the target, which answers 503
//	target  open     it lives here
//	source  forget   what is left is removed
func (m *mover) run(ctx context.Context, file string) error {
	shards, err := readShardMap(file)
	if err != nil {
		return err
	}
	backend, err := shards.backend(m.to.address)
	if err != nil {
		return err
	}
	mark, err := m.step(ctx, m.from, stepTime, "freeze", url.Values{"peer": {m.to.address}})
	if err != nil {
		return err
	}
	if mark.State == db.Frozen {
		if err := m.say("%s: frozen on %s", m.account, m.from); err != nil {
			return err
		}
		if err := m.copy(ctx, mark); err != nil {
			return err
		}
		if _, err := m.step(ctx, m.from, stepTime, "depart", url.Values{"id": {mark.ID}}); err != nil {
			return err
		}
	}
	there, err := m.ask(ctx, m.to, stepTime, "GET", url.Values{})
	if err != nil {
		return err
	}
	if there.ID != mark.ID || there.State != db.Copied && there.State != db.Here {
		return fmt.Errorf("account %s has moved away from %s, but %s does not have it, or has moved it on: nothing was changed", m.account, m.from, m.to)
	}
	if err := m.say("%s: does not live on %s any more", m.account, m.from); err != nil {
		return err
	}
	return m.finish(ctx, shards, backend, mark.ID)
}

// finish makes the target answer for the account, after the map says so.
func (m *mover) finish(ctx context.Context, shards *shardMap, backend, id string) error {
	// The file may have changed while the account was copied.
	shards, err := readShardMap(shards.file)
	if err != nil {
		return err
	}
	changed, err := shards.put(m.account, backend)
	if err != nil {
		return err
	}
	if err := m.say("%s: on %s in %s", m.account, backend, shards.file); err != nil {
		return err
	}
	if _, err := m.step(ctx, m.to, stepTime, "open", url.Values{"id": {id}}); err != nil {
		return err
	}
	if err := m.say("%s: lives on %s", m.account, m.to); err != nil {
		return err
	}
	if _, err := m.step(ctx, m.from, scanTime, "forget", url.Values{"id": {id}}); err != nil {
		return fmt.Errorf("the account has moved, but %s still keeps what it had of it; run the command again to remove that: %w", m.from, err)
	}
	if err := m.say("%s: removed from %s", m.account, m.from); err != nil || !changed {
		return err
	}
	return m.say("reload HAProxy now, so that it reads the map")
}

// copy copies the contents of the account, unless that was done before.
func (m *mover) copy(ctx context.Context, mark moveMark) error {
	// Remove what is left of a move that was given up.
	if err := m.abandon(ctx, mark.ID); err != nil {
		return err
	}
	there, err := m.step(ctx, m.to, scanTime, "arrive", url.Values{
		"id": {mark.ID}, "peer": {m.from.address},
		"version": {strconv.FormatInt(mark.Version, 10)}, "token": {strconv.FormatInt(mark.Token, 10)},
	})
	if err != nil || there.State == db.Copied {
		return err
	}
	if there.State != db.Arriving {
		return fmt.Errorf("%s says that the account is %q: nothing was changed", m.to, there.State)
	}
	if err := m.say("%s: arrives on %s", m.account, m.to); err != nil {
		return err
	}
	target := url.Values{"account": {m.account}, "id": {mark.ID}, "attempt": {there.Attempt}}
	n, err := m.stream(ctx, mark.ID, target)
	if err != nil {
		return err
	}
	if err := m.say("%s: %d things are copied", m.account, n); err != nil {
		return err
	}
	if _, err = m.step(ctx, m.to, stepTime, "arrived", url.Values{"id": {mark.ID}, "attempt": {there.Attempt}}); err != nil {
		return err
	}
	return m.say("%s: all of it is on %s", m.account, m.to)
}

// stream passes what is in the account on to the target, and returns how many things there are.
func (m *mover) stream(ctx context.Context, id string, target url.Values) (n int, err error) {
	query := url.Values{"account": {m.account}, "id": {id}}
	_, body, err := m.from.Stream(ctx, "/movedata?"+query.Encode(), "application/octet-stream", moveIdle)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	var batch []byte
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		one, cancel := context.WithTimeout(ctx, scanTime)
		defer cancel()
		_, err := m.to.Send(one, "POST", "/movedata", target, "", batch)
		batch = batch[:0]
		return err
	}
	in := db.NewMoveReader(body, maxMoved)
	for {
		_, err := in.Next(true)
		if err == io.EOF {
			return n, flush()
		}
		if err != nil {
			return n, err
		}
		n++
		batch = append(batch, in.Raw...)
		if len(batch) >= moveBatch {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
}

// abandon removes what has arrived on the target in a move that the source has given up, unless
// it is the move with that id. Ids are used once: a move that the source is not in now, it can
// never be in again. So ask the target first, and then the source.
func (m *mover) abandon(ctx context.Context, id string) error {
	there, err := m.ask(ctx, m.to, stepTime, "GET", url.Values{})
	if err != nil || there.State != db.Arriving && there.State != db.Copied || there.ID == id || there.Peer != m.from.address {
		return err
	}
	here, err := m.ask(ctx, m.from, stepTime, "GET", url.Values{})
	if err != nil {
		return err
	}
	if here.ID == there.ID || id != "" && here.ID != id {
		return fmt.Errorf("account %s: another run of this command is in progress: wait until it ends, and run this one again", m.account)
	}
	_, err = m.step(ctx, m.to, scanTime, "abandon", url.Values{"id": {there.ID}})
	return err
}

// undo gives up the move. The source decides, so it is asked first.
func (m *mover) undo(ctx context.Context) error {
	if _, err := m.step(ctx, m.from, stepTime, "unfreeze", url.Values{}); err != nil {
		return err
	}
	if err := m.say("%s: lives on %s", m.account, m.from); err != nil {
		return err
	}
	if err := m.abandon(ctx, ""); err != nil {
		return err
	}
	return m.say("%s: nothing of it is left on %s", m.account, m.to)
}

// step asks a server for one step.
func (m *mover) step(ctx context.Context, of moveEnd, limit time.Duration, step string, query url.Values) (moveMark, error) {
	query.Set("step", step)
	return m.ask(ctx, of, limit, "POST", query)
}

func (m *mover) ask(ctx context.Context, of moveEnd, limit time.Duration, method string, query url.Values) (mark moveMark, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	query.Set("account", m.account)
	answer, err := of.Call(ctx, method, "/move", query, "")
	if err != nil {
		return mark, err
	}
	if err := json.Unmarshal(answer.Body, &mark); err != nil {
		return mark, &client.Error{Reason: client.Foreign, Line: fmt.Sprintf("%s does not answer like a Cloud Dragon server: %v", of, err)}
	}
	return mark, nil
}
