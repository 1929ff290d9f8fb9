package replica

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"clouddragon/db"
	"clouddragon/internal/disk"
	"clouddragon/kvlog/wal"
)

// silentAfter is how long a standby hears nothing before it joins again.
const silentAfter = 3 * beatEvery

// endsSent is how many ends of batches a standby offers the primary to agree on.
const endsSent = 8

// StandbyOptions say what a standby is.
type StandbyOptions struct {
	FS    disk.FS
	Of    string        // the primary's address
	Token func() string // returns that with which the primary gives full access
	Sync  bool          // the primary is to wait for this standby
	URL   string        // the address of this server, for the primary
	Name  string        // of this server
	// Elected is whether etcd decides who is the primary.
	Elected bool

	// Open says how to open the data directory; Dir is in it.
	Open db.Options
	Log  *slog.Logger
}

// Standby follows a primary. Its methods may be called by any goroutine.
type Standby struct {
	o      StandbyOptions
	call   caller
	secret string
	// Promoted is closed once the server is to become the primary.
	Promoted chan struct{}

	// reading is held shared by whoever reads the database, and alone to close it.
	reading sync.RWMutex
	db      *db.DB // nil: it is not open

	mu     sync.Mutex // guards what follows, and the follower's batches
	f      *db.Follower
	state  State // durable
	heard  time.Time
	joined bool
	why    error // why it has not joined
	buf    []byte
	left   bool          // it has told the primary to go on without it
	again  chan struct{} // has a token if the log has to be compared with the primary's again
	lag    wal.Pos       // what the primary said it had answered
	caught time.Time     // when the standby had all of that
	clocks clocks
}

// NewStandby returns a standby of a data directory, which may be empty.
func NewStandby(o StandbyOptions) (*Standby, error) {
	state, err := ReadState(o.FS, o.Open.Dir)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 16)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	if state.Primary { // it was, and is configured to be a standby now
		state.Primary, state.Before, state.Standby, state.InSync = false, "", "", false
	}
	state.Now = o.Of
	return &Standby{o: o, call: newCaller(o.Of, o.Token), secret: hex.EncodeToString(secret), state: state, why: errors.New("it has not reached the primary yet"),
		Promoted: make(chan struct{}), again: make(chan struct{}, 1)}, nil
}

// IsPrimary reports whether a server with that state, which is configured to be a
// standby of an address, was promoted in its place.
func (s State) IsPrimary(of string) bool {
	return s.Primary && (of == "" || s.Before == strings.TrimRight(of, "/"))
}

// Run follows the primary until ctx ends or the standby is promoted. It returns nil
// then, with the database closed.
func (s *Standby) Run(ctx context.Context) error {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.joined = false
	}()
	for ctx.Err() == nil && !s.isPromoted() {
		if s.o.Of == "" { // there is no primary yet
			<-ctx.Done()
			break
		}
		err := s.attach(ctx)
		if d := (*disk.Damage)(nil); errors.As(err, &d) {
			return errors.Join(err, s.close())
		}
		s.note(err)
		timeout := time.Second
		if err == nil {
			timeout = silentAfter
		}
		s.waitToJoin(ctx, timeout)
	}
	return s.close()
}

// waitToJoin waits until the primary is silent, or the logs have to be compared.
func (s *Standby) waitToJoin(ctx context.Context, timeout time.Duration) {
	began := time.Now()
	tick := time.NewTicker(timeout / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Promoted:
			return
		case <-s.again:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		last := s.heard
		s.mu.Unlock()
		if last.Before(began) {
			last = began
		}
		if time.Since(last) >= timeout {
			return
		}
	}
}

// attach makes the log agree with the primary's and asks for what follows.
func (s *Standby) attach(ctx context.Context) error {
	s.mu.Lock()
	f, left := s.f, s.left
	s.mu.Unlock()
	if left {
		return errors.New("the standby stops")
	}
	if f == nil {
		if err := s.open(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	j := joinRequest{Name: s.o.Name, URL: s.o.URL, Secret: s.secret, Sync: s.o.Sync, At: s.f.End(), Epoch: s.state.Epoch}
	s.mu.Unlock()
	c, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	err := s.call.post(c, "/replica/join", j, nil)
	if isGone(err) {
		// The primary's log went on differently. The next try cuts what it does not have.
		err = errors.Join(err, s.close())
	}
	return err
}

// isGone reports whether the primary does not have a position in its log.
func isGone(err error) bool {
	refusal := (*statusError)(nil)
	return errors.As(err, &refusal) && refusal.Status == http.StatusGone
}

// close closes the database, if it is open.
func (s *Standby) close() error {
	s.reading.Lock()
	s.db = nil
	s.reading.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.f
	s.f = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

func (s *Standby) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && !s.joined {
		s.o.Log.Info("following the primary", "primary", s.o.Of, "sync", s.o.Sync, "epoch", s.state.Epoch)
		s.heard = time.Now()
	}
	if err != nil && (s.joined || s.why == nil || s.why.Error() != err.Error()) {
		s.o.Log.Warn("the primary cannot be followed now, and will be tried again", "primary", s.o.Of, "err", err)
	}
	s.joined, s.why = err == nil, err
}

func (s *Standby) epoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Epoch
}

// setEpoch takes over a later epoch, durably. An earlier one is an *epochError.
func (s *Standby) setEpoch(epoch uint64, now string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeEpoch(epoch, now)
}

// takeEpoch wants s.mu held.
func (s *Standby) takeEpoch(epoch uint64, now string) error {
	if epoch < s.state.Epoch {
		e := &epochError{Epoch: s.state.Epoch}
		if s.state.Primary {
			e.Primary = s.o.URL
		}
		return e
	}
	if s.isPromoted() {
		return &epochError{Epoch: s.state.Epoch, Primary: s.o.URL}
	}
	if epoch == s.state.Epoch {
		return nil
	}
	next := s.state
	next.Epoch, next.InSync = epoch, false
	if now != "" {
		next.Now = now
	}
	return s.setState(next)
}

// setState makes a state durable. It wants s.mu held.
func (s *Standby) setState(next State) error {
	if err := next.write(s.o.FS, s.o.Open.Dir); err != nil {
		return err
	}
	s.state = next
	return nil
}

func (s *Standby) isPromoted() bool {
	select {
	case <-s.Promoted:
		return true
	default:
		return false
	}
}

// Leave tells the primary to go on without this standby, which stops. It has all
// writes up to here, and later it must not be promoted for that. If the primary cannot be
// reached at all, it knows nothing of this, and the standby stays what it is after a crash.
func (s *Standby) Leave(ctx context.Context) error {
	s.mu.Lock()
	was := s.state
	s.left = true
	next := s.state
	next.InSync = false
	err := error(nil)
	if s.state.InSync && !s.state.Primary {
		err = s.setState(next)
	}
	s.mu.Unlock()
	if err != nil || !s.o.Sync || s.isPromoted() {
		return err
	}
	err = s.call.post(ctx, "/replica/leave", leaveRequest{s.o.Name}, nil)
	if was.InSync && notSent(err) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.state == next { // no later epoch has come meanwhile
			err = errors.Join(err, s.setState(was))
		}
	}
	return err
}

// notSent reports whether a request was not sent for sure, since there was no connection.
func notSent(err error) bool {
	dial := (*net.OpError)(nil)
	return errors.As(err, &dial) && dial.Op == "dial"
}

// Primary returns the address of the primary.
func (s *Standby) Primary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Now
}

// Read calls fn with the database, which may be behind the primary's, and keeps it open
// meanwhile. It returns false if the database is not open now.
func (s *Standby) Read(fn func(*db.DB)) bool {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.db == nil {
		return false
	}
	fn(s.db)
	return true
}

// Promote makes this server the primary of a new epoch. It is refused if the server
// is a standby that may lack writes, unless it is forced to.
func (s *Standby) Promote(force bool) (epoch uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isPromoted() {
		return s.state.Epoch, nil
	}
	if s.o.Elected {
		return 0, errElected
	}
	next, err := s.state.promoted(s.o.Open.Dir, s.o.Of, force)
	if err != nil {
		return 0, err
	}
	if err := s.setState(next); err != nil {
		return 0, err
	}
	s.o.Log.Warn("promoted: this server becomes the primary", "epoch", next.Epoch, "instead_of", s.o.Of)
	close(s.Promoted)
	return next.Epoch, nil
}

// Status returns what the server is, and how far behind.
func (s *Standby) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Role: "standby", Epoch: s.state.Epoch, Primary: s.state.Now, Standby: s.o.Name, Sync: s.o.Sync, InSync: s.state.InSync,
		Live: s.joined && time.Since(s.heard) < silentAfter, ClockSkew: s.clocks.skew().Seconds()}
	if s.f != nil {
		st.Batches = s.lag.Seq - min(s.lag.Seq, s.f.End().Seq)
	}
	if !s.caught.IsZero() && (st.Batches > 0 || !st.Live) {
		st.Seconds = time.Since(s.caught).Seconds()
	}
	return st
}

// Fence tells the server in whose place this one was promoted that its epoch is over,
// until it has heard it or ctx ends.
func Fence(ctx context.Context, s State, token func() string, url string, log *slog.Logger) {
	if s.Before == "" {
		return
	}
	c := newCaller(s.Before, token)
	for told := false; ctx.Err() == nil; {
		one, cancel := context.WithTimeout(ctx, answerTime)
		err := c.post(one, "/replica/fence", fenceRequest{s.Epoch, url}, nil)
		cancel()
		refusal := (*statusError)(nil)
		if err == nil {
			log.Info("the server that was primary before knows that it was replaced", "server", s.Before)
			return
		}
		if errors.As(err, &refusal) && refusal.Status == http.StatusConflict {
			log.Error("the server that was primary before does not give way: if it was promoted too, stop one of the two", "server", s.Before, "err", err)
			return
		}
		if !told && ctx.Err() == nil {
			told = true
			log.Warn("the server that was primary before cannot be told that it was replaced; it is tried again", "server", s.Before, "err", err)
		}
		select {
		case <-time.After(beatEvery):
		case <-ctx.Done():
		}
	}
}
