package replica

import (
	"crypto/subtle"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"clouddragon/internal/disk"
	"clouddragon/kvlog/wal"
)

// IsFromPrimary reports whether a path is for the primary alone, which has no token for it but
// the standby's secret.
func IsFromPrimary(path string) bool { return path == "/replica/append" || path == "/replica/beat" }

// Handler answers the primary's requests, and `promote`. Except for those of the primary, see
// IsFromPrimary, the caller must have checked that the request has full access.
func (s *Standby) Handler() http.Handler {
	m := http.NewServeMux()
	fromPrimary := func(fn http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			got := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			if subtle.ConstantTimeCompare([]byte(got), []byte(s.secret)) != 1 {
				answer(w, nil, &refused{http.StatusUnauthorized, "only the primary that this standby has joined may do that"})
				return
			}
			fn(w, r)
		}
	}
	m.HandleFunc("POST /replica/append", fromPrimary(s.serveAppend))
	m.HandleFunc("POST /replica/beat", fromPrimary(func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, s.beat)
	}))
	m.HandleFunc("POST /replica/fence", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(f fenceRequest) (struct{}, error) { return struct{}{}, s.setEpoch(f.Epoch, f.URL) })
	})
	m.HandleFunc("POST /replica/promote", func(w http.ResponseWriter, r *http.Request) {
		epoch, err := s.Promote(r.URL.Query().Get("force") == "1")
		answer(w, promoted{epoch}, err)
	})
	m.HandleFunc("GET /replica/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Status(), nil) })
	m.HandleFunc("/replica/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, nil, &refused{http.StatusMisdirectedRequest, "this server is a standby: that is for the primary, " + s.Primary()})
	})
	return m
}

// serveAppend appends the batches of a request.
func (s *Standby) serveAppend(w http.ResponseWriter, r *http.Request) {
	epoch, err := strconv.ParseUint(r.URL.Query().Get("epoch"), 10, 64)
	if err != nil {
		answer(w, nil, &refused{http.StatusBadRequest, "the parameter epoch has to be a number"})
		return
	}
	end, err := s.append(epoch, r.Body)
	answer(w, end, err)
	if errors.Is(err, wal.ErrNoPosition) {
		select {
		case s.again <- struct{}{}:
		default:
		}
	}
}

// append appends the batches that the primary of an epoch sends. It holds s.mu for one batch
// at a time, and not while it reads from the network.
func (s *Standby) append(epoch uint64, body io.Reader) (end wal.Pos, err error) {
	s.mu.Lock()
	buf := s.buf
	s.buf = nil
	s.mu.Unlock()
	for err == nil {
		var f wal.Frame
		if f, buf, err = readFrame(body, buf); err == nil {
			err = s.appendOne(epoch, f)
		} else if err != io.EOF {
			err = &refused{http.StatusBadRequest, "the body is cut off: " + err.Error()}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = buf
	if err == io.EOF {
		err = s.follows(epoch)
	}
	if err != nil {
		return end, err
	}
	return s.f.End(), nil
}

func (s *Standby) appendOne(epoch uint64, f wal.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.follows(epoch); err != nil {
		return err
	}
	s.heard = time.Now()
	_, err := s.f.Append(f)
	if disk.IsFull(err) {
		err = &refused{http.StatusInsufficientStorage, "the standby's disk is full: " + err.Error()}
	}
	return err
}

// follows returns why nothing is accepted from the primary of an epoch now, or nil. The
// caller holds s.mu.
func (s *Standby) follows(epoch uint64) error {
	if err := s.takeEpoch(epoch, ""); err != nil {
		return err
	}
	if s.f == nil {
		return &refused{http.StatusServiceUnavailable, "the standby is starting"}
	}
	if s.left {
		return &refused{http.StatusServiceUnavailable, "the standby is stopping"}
	}
	return nil
}

// beat handles a heartbeat, which also says what the primary has answered.
func (s *Standby) beat(b beatRequest) (a beatAnswer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.follows(b.Epoch); err != nil {
		return a, err
	}
	s.heard, s.lag = time.Now(), b.Answered
	if b.Wall != 0 {
		s.noteClocks(time.Unix(0, b.Wall), s.heard)
	}
	if b.Time != 0 {
		s.times.add(time.Duration(s.f.Time() - b.Time))
	}
	whole := s.f.End().Seq >= b.Answered.Seq
	if whole {
		s.caught = s.heard
	}
	// Writes wait for this standby from now on. It may still lack earlier ones, if it has started
	// over with a new copy, so it is in sync only once it has those too.
	if in := b.InSync && (whole || s.state.InSync); in != s.state.InSync {
		next := s.state
		next.InSync, next.Partial = in, s.state.Partial && !in
		if err := s.setState(next); err != nil {
			return a, err
		}
	}
	a.InSync = s.state.InSync
	if err := s.f.Settle(b.Answered); err != nil {
		return a, err
	}
	return a, s.f.Release(b.Answered, b.Segments)
}
