package handlers

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"clouddragon/db"
)

// eventAPIs are the APIs that have events.
var eventAPIs = map[db.ListKind]API{
	db.ListValues: KV, db.ListSequences: Sequence, db.ListCounters: Counter, db.ListRates: Rate, db.ListLocks: Lock,
}

var eventStream = []string{"text/event-stream"}

// keepAlive is how often a stream without events sends a comment, so that proxies keep it
// open.
const keepAlive = 15 * time.Second

// GET /db/:acc/events?api=&prefix=
func sendEvents(s *server, c *call) error {
	api, prefix := c.params.text("api"), c.params.owner("prefix", db.MaxID)
	var kind db.ListKind
	if api != "" {
		found := false
		for k, a := range eventAPIs {
			if a.String() == api {
				kind, found = k, true
			}
		}
		if !found {
			return badRequest("api must be kv, sequence, counter, rate or lock, not %s", quote(api))
		}
	}
	if c.params.bad != nil {
		return c.params.bad
	}
	if c.r.Method == http.MethodHead {
		c.brief()
		c.status, c.ctype = http.StatusOK, eventStream
		return nil
	}
	stream, err := s.db.Listen(c.key.Acc, kind, api == "", prefix)
	if err != nil {
		return err
	}
	defer stream.Close()
	moves := s.db.MoveChanged()
	if err := s.db.Readable(c.key.Acc); err != nil {
		return err
	}
	c.patience()
	ctx := c.peer()
	gone := ctx.Done()
	c.status, c.sent = http.StatusOK, true
	c.w.Header()["Content-Type"] = eventStream
	c.notStored()
	s.sayStopping(c)
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	text := []byte(": from now on\n\n")
	var grants *[]grant // those by which the token is good
	for {
		if now := s.tokens.grants.Load(); now != grants {
			if err := s.authorize(c); err != nil { // the token went out of force
				s.endStream(c, "refused", err)
				return nil
			}
			grants = now
		}
		if len(text) > 0 && !s.sendPiece(c, text) {
			c.status = codeGone
			return nil
		}
		text = text[:0]
		select {
		case <-stream.Wake():
			events, lost := stream.Take()
			for i := range events {
				text = appendEvent(text, &events[i])
			}
			if lost {
				s.sendPiece(c, append(text, "event: lost\ndata: {}\n\n"...))
				return nil
			}
		case <-moves:
			moves = s.db.MoveChanged()
			if err := s.db.Readable(c.key.Acc); err != nil {
				s.endStream(c, "moved", err)
				return nil
			}
		case <-tick.C:
			text = append(text, ":\n\n"...)
		case <-s.db.Drained():
			s.sendPiece(c, []byte("event: stop\ndata: {\"error\":\"the server is shutting down\"}\n\n"))
			return nil
		case <-gone:
			c.status = codeGone
			return nil
		}
	}
}

// sendPiece sends a part of a stream. It returns false if the client does not read it.
func (s *server) sendPiece(c *call, text []byte) bool {
	c.writeUntil(time.Now().Add(s.pace.idle))
	if _, err := c.w.Write(text); err != nil {
		return false
	}
	if http.NewResponseController(c.w).Flush() != nil {
		return false
	}
	c.writeUntil(time.Time{})
	return true
}

// eventJSON is an event's data.
type eventJSON struct {
	named
	Op      string `json:"op"`
	Version int64  `json:"version,omitempty"`
	Token   int64  `json:"token,omitempty"`
	*numberJSON
}

func appendEvent(b []byte, e *db.Event) []byte {
	data := eventJSON{named: nameOf(e.ID), Op: e.Op, Version: e.Version, Token: e.Token}
	if (e.Op == "set" || e.Op == "ttl") && (e.Kind == db.ListSequences || e.Kind == db.ListCounters || e.Kind == db.ListRates) {
		n := numberAs(e.Value)
		data.numberJSON = &n
	}
	text, err := json.Marshal(data)
	if err != nil {
		panic("handlers: an event cannot be encoded: " + err.Error()) // strings and numbers always can
	}
	b = append(b, "id: "...)
	b = strconv.AppendUint(b, e.N, 10)
	b = append(b, "\nevent: "...)
	b = append(b, eventAPIs[e.Kind].String()...)
	b = append(b, "\ndata: "...)
	b = append(b, text...)
	return append(b, "\n\n"...)
}

// endStream ends a stream of events with an event that says why.
func (s *server) endStream(c *call, event string, err error) {
	r := s.refusalOf(&c.ask, err)
	data, err := json.Marshal(problem{r.line, r.status})
	if err != nil {
		panic("handlers: a problem has no JSON: " + err.Error()) // a string and a number always have
	}
	s.sendPiece(c, append(append([]byte("event: "+event+"\ndata: "), data...), "\n\n"...))
}
