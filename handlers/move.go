package handlers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"clouddragon/db"
)

// The calls with which clouddragon move moves an account from one server to another.
// db/homes.go explains the marks and why their order is safe.

func init() {
	endpoints = append(endpoints,
		endpoint{api: Move, method: "GET", params: []string{"account"}, serve: getMove},
		endpoint{api: Move, method: "POST", params: []string{"account", "step", "id", "peer", "attempt", "version", "token"}, serve: takeMoveStep, waits: true},
		endpoint{api: MoveData, method: "GET", params: []string{"account", "id"}, serve: exportAccount, waits: true},
		endpoint{api: MoveData, method: "POST", params: []string{"account", "id", "attempt"}, serve: importAccount},
	)
}

// maxMoveBatch is how many bytes one POST /movedata may have besides its largest value.
const maxMoveBatch = 2 << 20

// maxMoveName is the longest address of a server or name of a move, in bytes: they are kept.
const maxMoveName = 256

// account returns the parameter account.
func (p *params) account() string {
	acc := p.text("account")
	switch {
	case acc == "":
		p.fail(badRequest("account is missing"))
	case len(acc) > db.MaxAcc || acc == "." || acc == ".." || strings.IndexByte(acc, 0) >= 0:
		p.fail(badRequest("account must be the name of an account, not %s", quote(acc)))
	}
	return acc
}

// needs refuses a call without a parameter.
func (p *params) needs(name string) {
	if p.text(name) == "" {
		p.fail(badRequest("%s is missing", name))
	}
}

// moveAnswer is the answer to the calls about a move.
type moveAnswer struct {
	State   db.MoveState `json:"state"` // empty: the account does not move, and has not moved
	ID      string       `json:"id,omitempty"`
	Peer    string       `json:"peer,omitempty"`
	Attempt string       `json:"attempt,omitempty"`
	Version int64        `json:"version,omitempty"`
	Token   int64        `json:"token,omitempty"`
}

func (c *call) sayMove(m db.Move, version, token int64) error {
	c.status = http.StatusOK
	return c.sayJSON(moveAnswer{m.State, m.ID, m.Peer, m.Attempt, version, token})
}

// GET /move?account=
func getMove(s *server, c *call) error {
	acc := c.params.account()
	if c.params.bad != nil {
		return c.params.bad
	}
	return c.sayMove(s.db.MoveOf(acc), 0, 0)
}

// POST /move?account=&step=
func takeMoveStep(s *server, c *call) error {
	p := &c.params
	acc, id, peer, attempt := p.account(), p.owner("id", maxMoveName), p.owner("peer", maxMoveName), p.owner("attempt", maxMoveName)
	version, token := p.number("version", 0, 0, math.MaxInt64), p.number("token", 0, 0, math.MaxInt64)
	step := p.text("step")
	switch step {
	case "freeze", "arrive":
		p.needs("peer")
	}
	switch step {
	case "arrive", "arrived", "depart", "open", "forget", "abandon":
		p.needs("id")
	}
	if strings.Contains(peer, "@") { // clients are told the address
		p.fail(badRequest("peer must be an address without a user and a password"))
	}
	if p.bad != nil {
		return p.bad
	}
	c.patience() // some steps read everything on the server
	ctx := c.peer()
	var err error
	switch step {
	case "freeze":
		var m db.MoveStart
		if m, err = s.db.Freeze(acc, peer); err == nil {
			s.log.Info("an account moves", "account", acc, "step", step, "id", m.ID, "peer", peer)
			return c.sayMove(m.Move, m.Version, m.Token)
		}
	case "arrive":
		_, err = s.db.Arrive(ctx, acc, id, peer, version, token)
	case "arrived":
		err = s.db.Arrived(acc, id, attempt)
	case "depart":
		err = s.db.Depart(acc, id)
	case "open":
		err = s.db.Open(acc, id)
	case "forget":
		err = s.db.Forget(ctx, acc, id)
	case "unfreeze":
		err = s.db.Unfreeze(acc)
	case "abandon":
		err = s.db.Abandon(ctx, acc, id)
	default:
		return badRequest("step must be freeze, arrive, arrived, depart, open, forget, unfreeze or abandon, not %s", quote(step))
	}
	if err != nil {
		return moveRefused(err)
	}
	s.log.Info("an account moves", "account", acc, "step", step, "id", id, "peer", peer)
	return c.sayMove(s.db.MoveOf(acc), 0, 0)
}

// moveRefused makes an error without a status of its own a 500 with its full text, because an operator reads it.
func moveRefused(err error) error {
	var conflict *db.ConflictError
	var away *db.AwayError
	var moving *db.MovingError
	if unavailable(err) != nil || errors.As(err, &conflict) || errors.As(err, &away) || errors.As(err, &moving) ||
		errors.Is(err, db.ErrFull) || errors.Is(err, context.Canceled) {
		return err
	}
	return &refusal{http.StatusInternalServerError, err.Error()}
}

// GET /movedata?account=&id=
func exportAccount(s *server, c *call) error {
	p := &c.params
	acc, id := p.account(), p.text("id")
	switch {
	case p.bad != nil:
		return p.bad
	case c.r.Method == http.MethodHead:
		c.status, c.ctype = http.StatusOK, octetStream
		return nil
	}
	w := &pieces{s: s, c: c}
	out := bufio.NewWriterSize(w, 256<<10)
	var buf []byte
	n := uint64(0)
	err := s.db.Export(c.r.Context(), acc, id, func(r *db.MoveRecord) error {
		n++
		buf = db.AppendMoveRecord(buf[:0], r)
		_, err := out.Write(buf)
		return err
	})
	if err == nil {
		if _, err = out.Write(db.AppendMoveEnd(nil, n)); err == nil {
			err = out.Flush()
		}
	}
	switch {
	case err == nil:
		return nil
	case !c.sent:
		return moveRefused(err)
	}
	s.log.Warn("the copy of an account was cut off", "account", acc, "err", err)
	panic(http.ErrAbortHandler)
}

// pieces sends an answer in pieces, each with its own deadline.
type pieces struct {
	s *server
	c *call
}

func (w *pieces) Write(p []byte) (int, error) {
	c := w.c
	if !c.sent {
		c.status, c.sent = http.StatusOK, true
		c.w.Header()["Content-Type"] = octetStream
		c.notStored()
		w.s.sayStopping(c)
	}
	c.writeUntil(time.Now().Add(w.s.pace.idle))
	n, err := c.w.Write(p)
	if err == nil {
		err = http.NewResponseController(c.w).Flush()
	}
	return n, err
}

// POST /movedata?account=&id=&attempt=
func importAccount(s *server, c *call) error {
	p := &c.params
	acc, id, attempt := p.account(), p.text("id"), p.text("attempt")
	if p.bad != nil {
		return p.bad
	}
	body, err := s.readBody(c, s.limits.Value+maxMoveBatch, "limits.value and a little")
	if err != nil {
		return err
	}
	c.patience()
	c.brief()
	var recs []*db.MoveRecord
	in := db.NewMoveReader(bytes.NewReader(body), s.limits.Value)
	for {
		r, err := in.Next(false)
		if err == io.EOF {
			break
		}
		if err != nil {
			return badRequest("%s", err)
		}
		r.Payload = append([]byte(nil), r.Payload...)
		recs = append(recs, r)
	}
	if err := s.db.Import(acc, id, attempt, recs); err != nil {
		return moveRefused(err)
	}
	return c.sayNumber(int64(len(recs)))
}
