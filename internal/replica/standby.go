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

// silentAfter is how long a standby waits for its primary to be heard before it joins again.
const silentAfter = 3 * beatEvery

// endsSent is how many ends of batches a standby sends to find where the two logs agree.
const endsSent = 8

// StandbyOptions configure a Standby.
type StandbyOptions struct {
	FS    disk.FS
	Of    string        // the primary's address
	Token func() string // returns the token that has full access to the primary
	Sync  bool          // ask the primary to wait for this standby
	URL   string        // the address of this server, for the primary
	Name  string        // of this server
	// Elected is whether etcd decides which server is the primary.
	Elected bool

	// Open says how to open the data directory, which is its Dir.
	Open db.Options
	Log  *slog.Logger
}

// Standby follows a primary. Its methods may be called by any goroutine.
type Standby struct {
	o      StandbyOptions
	call   caller
	secret string
	unkept string // why the primary does not keep its log, as last logged; owned by keepLog
	// Promoted is closed when the server is to become the primary.
	Promoted chan struct{}

	// reading is locked shared to read the database and exclusively to close it.
	reading sync.RWMutex
	db      *db.DB // nil: it is not open

	mu     sync.Mutex // guards what follows, and the follower's batches
	f      *db.Follower
	state  State // as it is on disk
	heard  time.Time
	joined bool
	why    error // why it has not joined
	buf    []byte
	left   bool          // it has told the primary to go on without it
	again  chan struct{} // receives a token if the logs have to be compared again
	lag    wal.Pos       // up to where the primary has answered, by its last beat
	caught time.Time     // when the standby last had all of that
	clocks clocks
	times  clocks // the same for database time, in which the ends of locks are
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
	if state.Primary { // a former primary that is configured as a standby now
		state.Primary, state.Before, state.Standby, state.InSync = false, "", "", false
	}
	state.Now, state.Elected = o.Of, o.Elected
	return &Standby{o: o, call: newCaller(o.Of, o.Token), secret: hex.EncodeToString(secret), state: state, why: errors.New("it has not reached the primary yet"),
		Promoted: make(chan struct{}), again: make(chan struct{}, 1)}, nil
}

// IsPrimary reports whether a server that is configured as a standby of the address of was
// promoted in that server's place. With of empty it reports whether it is the primary at all.
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
		if ctx.Err() != nil || s.isPromoted() {
			break // err says only that it was interrupted
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

// waitToJoin waits until the primary has been silent for timeout, or until the logs have to be
// compared.
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

// attach makes the log agree with the primary's and asks for everything that follows.
func (s *Standby) attach(ctx context.Context) error {
	s.mu.Lock()
	f, left := s.f, s.left
	s.mu.Unlock()
	if left {
		return errors.New("the standby is stopping")
	}
	if f == nil {
		defer s.keepLog(ctx)()
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
		// The primary's log continues differently. The next attempt cuts off what it lacks.
		err = errors.Join(err, s.close())
	}
	return err
}

// isGone reports whether the error says that a position is not in the primary's log.
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
		s.o.Log.Warn("the primary cannot be followed now; trying again", "primary", s.o.Of, "err", err)
	}
	s.joined, s.why = err == nil, err
}

func (s *Standby) epoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Epoch
}

// setEpoch stores a later epoch on disk. For an earlier one it returns an *epochError.
func (s *Standby) setEpoch(epoch uint64, now string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeEpoch(epoch, now)
}

// takeEpoch is setEpoch; the caller holds s.mu.
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

// setState stores a state on disk. The caller holds s.mu.
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

// Leave tells the primary to go on without this standby, which is stopping. The primary goes
// on, so the standby records that it may lack writes and must not be promoted. If the primary
// cannot be reached at all, it goes on waiting for the standby, which then stays in sync.
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
	if err != nil || !s.o.Sync || s.o.Of == "" || s.isPromoted() {
		return err
	}
	err = s.call.post(ctx, "/replica/leave", leaveRequest{s.o.Name}, nil)
	if was.InSync && notSent(err) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.state == next { // no later epoch was stored meanwhile
			err = errors.Join(err, s.setState(was))
		}
	}
	return err
}

// notSent reports whether a request was certainly not sent, because there was no connection.
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

// Read calls fn with the database, which may be behind the primary's, and keeps the database
// open until fn returns. It returns false if the database is not open.
func (s *Standby) Read(fn func(*db.DB)) bool {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.db == nil {
		return false
	}
	fn(s.db)
	return true
}

// Promote makes this server the primary of a new epoch. Unless forced, it refuses if the
// standby may lack writes.
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

// Status returns the server's role and how far behind it is.
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

// Fence tells the former primary that its epoch has ended. It keeps trying until the former
// primary has answered or ctx ends.
func Fence(ctx context.Context, s State, token func() string, url string, log *slog.Logger) {
	if s.Before == "" {
		return
	}
	c := newCaller(s.Before, token)
	for told := ""; ctx.Err() == nil; {
		one, cancel := context.WithTimeout(ctx, answerTime)
		err := c.post(one, "/replica/fence", fenceRequest{s.Epoch, url}, nil)
		cancel()
		refusal := (*statusError)(nil)
		if err == nil {
			log.Info("the former primary knows that it was replaced", "server", s.Before)
			return
		}
		if errors.As(err, &refusal) && refusal.Status == http.StatusConflict {
			log.Error("the former primary does not give way: if it was promoted too, stop one of the two", "server", s.Before, "err", err)
			return
		}
		if why := err.Error(); why != told && ctx.Err() == nil {
			told = why
			log.Warn("the former primary cannot be told that it was replaced; trying again", "server", s.Before, "err", err)
		}
		select {
		case <-time.After(beatEvery):
		case <-ctx.Done():
		}
	}
}
