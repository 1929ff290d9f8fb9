package replica

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"clouddragon/kvlog/wal"
)

// Handler answers requests of other servers to a primary, and `promote`. The caller must
// have checked that the request has full access.
func (p *Primary) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST /replica/hello", func(w http.ResponseWriter, r *http.Request) { serve(w, r, p.hello) })
	m.HandleFunc("POST /replica/join", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(j joinRequest) (struct{}, error) { return struct{}{}, p.joinEpoch(j) })
	})
	m.HandleFunc("POST /replica/keep", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(k keepRequest) (struct{}, error) { return struct{}{}, p.keep(k.Name) })
	})
	m.HandleFunc("POST /replica/leave", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(l leaveRequest) (struct{}, error) { return struct{}{}, p.leave(l.Name) })
	})
	m.HandleFunc("POST /replica/fence", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(f fenceRequest) (struct{}, error) { return struct{}{}, p.Fence(f.Epoch, f.URL) })
	})
	m.HandleFunc("POST /replica/promote", func(w http.ResponseWriter, r *http.Request) {
		epoch, err := p.GoAlone()
		answer(w, promoted{epoch}, err)
	})
	m.HandleFunc("GET /replica/status", func(w http.ResponseWriter, r *http.Request) { answer(w, p.Status(), nil) })
	// A server that considers this one its standby does not know the epoch.
	later := func(w http.ResponseWriter, _ *http.Request) { answer(w, nil, &epochError{Epoch: p.epoch()}) }
	m.HandleFunc("POST /replica/append", later)
	m.HandleFunc("POST /replica/beat", later)
	m.HandleFunc("/replica/", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, &refused{http.StatusNotFound, "no such route below /replica/"})
	})
	return m
}

// promoted is the answer to a promotion.
type promoted struct {
	Epoch uint64 `json:"epoch"`
}

// refused is the refusal of a request, with its status.
type refused struct {
	status int
	line   string
}

func (r *refused) Error() string { return r.line }

// serve reads a message and answers it.
func serve[Q, A any](w http.ResponseWriter, r *http.Request, fn func(Q) (A, error)) {
	var q Q
	p, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAnswer))
	if err == nil {
		err = json.Unmarshal(p, &q)
	}
	if err != nil {
		answer(w, nil, &refused{http.StatusBadRequest, "the body is not the message that this path takes: " + err.Error()})
		return
	}
	a, err := fn(q)
	answer(w, a, err)
}

// answer sends a value as JSON, or an error as a line of text.
func answer(w http.ResponseWriter, a any, err error) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	// send ends the connection if the answer cannot be sent: the other server must not
	// mistake a part of it for the whole.
	send := func(p []byte) {
		if _, err := w.Write(p); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	var p []byte
	if err == nil {
		p, err = json.Marshal(a)
	}
	if err == nil {
		h.Set("Content-Type", "application/json")
		send(append(p, '\n'))
		return
	}
	status := http.StatusInternalServerError
	r := (*refused)(nil)
	e := (*epochError)(nil)
	switch {
	case errors.As(err, &r):
		status = r.status
	case errors.As(err, &e):
		status = http.StatusConflict
		h.Set(epochHeader, strconv.FormatUint(e.Epoch, 10))
		if e.Primary != "" {
			h.Set("Location", e.Primary)
		}
	case errors.Is(err, ErrClosed):
		status = http.StatusServiceUnavailable
	case errors.Is(err, ErrOver):
		status = http.StatusMisdirectedRequest
	case errors.Is(err, wal.ErrNoPosition):
		status = http.StatusGone
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	send([]byte(err.Error() + "\n"))
}

// hello finds where the log of a standby agrees with this one.
func (p *Primary) hello(h helloRequest) (helloAnswer, error) {
	if err := p.learn(h.Epoch); err != nil {
		return helloAnswer{}, err
	}
	p.mu.Lock()
	source, epoch := p.source, p.state.Epoch
	p.mu.Unlock()
	if source == nil {
		return helloAnswer{}, &refused{http.StatusServiceUnavailable, "the server has not started yet"}
	}
	log := source.Log()
	if id := log.ID(); h.ID != hex.EncodeToString(id[:]) {
		return helloAnswer{}, &refused{http.StatusConflict, fmt.Sprintf("the data directory of the standby has ID %s, that of the primary %x: a standby begins with an empty directory, or one that was the primary's", h.ID, id)}
	}
	// The standby may cut its log, so its earlier position no longer counts. Everything
	// that was answered is durable here, and is found below.
	p.mu.Lock()
	if l := p.link; l == nil || l.name == h.Name {
		p.acked = wal.Pos{}
		if l != nil {
			l.cancel()
		}
	}
	p.mu.Unlock()
	for _, at := range h.Ends {
		r, err := log.NewReader(at)
		if err == nil {
			r.Close()
			return helloAnswer{Epoch: epoch, At: at, Size: log.SegmentSizeAt(at)}, nil
		}
		if !errors.Is(err, wal.ErrNoPosition) {
			return helloAnswer{}, err
		}
	}
	return helloAnswer{}, fmt.Errorf("the primary no longer has the log that the standby needs, or the logs have diverged: the standby needs a new copy: %w", wal.ErrNoPosition)
}

// learn adopts an epoch that a standby knows. It returns an error if this server is not the
// primary.
func (p *Primary) learn(epoch uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch > p.state.Epoch {
		if err := p.fence(epoch, ""); err != nil {
			return err
		}
	}
	return p.err
}

// joinEpoch lets a standby join.
func (p *Primary) joinEpoch(j joinRequest) error {
	if err := p.learn(j.Epoch); err != nil {
		return err
	}
	switch {
	case j.Name == "" || j.Secret == "" || j.URL == "":
		return &refused{http.StatusBadRequest, "a standby needs a name, an address and a secret"}
	}
	p.mu.Lock()
	ready := p.source != nil
	p.mu.Unlock()
	if !ready {
		return &refused{http.StatusServiceUnavailable, "the server has not started yet"}
	}
	if err := p.join(j); err != nil {
		return err
	}
	// The link keeps from now on what it needs.
	p.mu.Lock()
	k := p.kept
	p.mu.Unlock()
	p.release(k)
	return nil
}

// leave lets a standby go: from now on writes are answered without it.
func (p *Primary) leave(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.link; l != nil && l.name == name {
		l.caught, l.near = false, false
		l.cancel()
	}
	if p.state.Standby != name {
		return nil
	}
	if p.e != nil { // it is removed in etcd first: see arbitrate
		if p.link != nil {
			p.link.cancel()
		}
		return nil
	}
	s := p.state
	s.Standby = ""
	if err := s.write(p.fs, p.dir); err != nil {
		return err
	}
	p.state = s
	p.decide()
	p.log.Info("the standby leaves: answers do not wait for it any more", "standby", name)
	return nil
}
