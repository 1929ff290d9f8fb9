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

// Handler answers what the primary sends, and `promote`. full reports whether a request
// has full access.
func (s *Standby) Handler(full func(*http.Request) bool) http.Handler {
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
	operator := func(fn http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !full(r) {
				answer(w, nil, &refused{http.StatusUnauthorized, "that needs a token with full access"})
				return
			}
			fn(w, r)
		}
	}
	m.HandleFunc("POST /replica/append", fromPrimary(s.serveAppend))
	m.HandleFunc("POST /replica/beat", fromPrimary(func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(b beatRequest) (struct{}, error) { return struct{}{}, s.beat(b) })
	}))
	m.HandleFunc("POST /replica/fence", operator(func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(f fenceRequest) (struct{}, error) { return struct{}{}, s.setEpoch(f.Epoch, f.URL) })
	}))
	m.HandleFunc("POST /replica/promote", operator(func(w http.ResponseWriter, r *http.Request) {
		epoch, err := s.Promote(r.URL.Query().Get("force") == "1")
		answer(w, promoted{epoch}, err)
	}))
	m.HandleFunc("GET /replica/status", operator(func(w http.ResponseWriter, r *http.Request) { answer(w, s.Status(), nil) }))
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

func (s *Standby) append(epoch uint64, body io.Reader) (end wal.Pos, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.takeEpoch(epoch, ""); err != nil {
		return end, err
	}
	if s.f == nil {
		return end, &refused{http.StatusServiceUnavailable, "the standby is starting"}
	}
	s.heard = time.Now()
	for {
		var f wal.Frame
		if f, s.buf, err = readFrame(body, s.buf); err == io.EOF {
			return s.f.End(), nil
		}
		if err != nil {
			return end, &refused{http.StatusBadRequest, "the body is cut off: " + err.Error()}
		}
		if _, err := s.f.Append(f); err != nil {
			if disk.IsFull(err) {
				err = &refused{http.StatusInsufficientStorage, "the standby's disk is full: " + err.Error()}
			}
			return end, err
		}
	}
}

// beat takes note that the primary lives, and of what it has answered.
func (s *Standby) beat(b beatRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.takeEpoch(b.Epoch, ""); err != nil {
		return err
	}
	if s.f == nil {
		return &refused{http.StatusServiceUnavailable, "the standby is starting"}
	}
	s.heard, s.lag = time.Now(), b.Answered
	if s.f.End().Seq >= b.Answered.Seq {
		s.caught = s.heard
	}
	if b.InSync != s.state.InSync {
		next := s.state
		next.InSync = b.InSync
		if err := s.setState(next); err != nil {
			return err
		}
	}
	if err := s.f.Settle(b.Answered); err != nil {
		return err
	}
	return s.f.Release(b.Answered, b.Segments)
}
