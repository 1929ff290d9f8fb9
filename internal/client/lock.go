package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"clouddragon/internal/boottime"
	"clouddragon/internal/units"
)

const (
	// callTimeout is the longest time that a call may take without its wait.
	callTimeout = 10 * time.Second
	// unlockTimeout is how long an unlock may take, with all retries.
	unlockTimeout = 3 * time.Second
	// retryPause is the time between a failed call and its retry.
	retryPause = 50 * time.Millisecond
)

// ErrLate is returned when a lock was granted but had expired before the answer
// arrived.
var ErrLate = errors.New("the lock was granted too late: it had expired when the answer arrived")

// Lock is a lock on disk, and the parameters with which it is taken.
type Lock struct {
	Server  *Server `json:"-"`
	Account string
	Name    string
	ID      string // of the holder
	Unique  bool   // no other holder uses this ID
	Dur     time.Duration
	Wait    time.Duration
	Least   time.Duration // 0: not sent
	Limit   int           // 0: not sent
	Shared  bool
}

// Grant is a lock that is held.
type Grant struct {
	Token int64
	End   time.Duration // the lock is held at least until then, on the clock of package boottime
}

// NewID returns an id that no other run has, even one with the same host name and
// process id.
func NewID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	host = host[:min(len(host), 64)]
	var b [12]byte
	rand.Read(b[:])
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), hex.EncodeToString(b[:]))
}

// CallLimit is how long a call may take without its wait: at most a sixth of the lock's duration.
func (l *Lock) CallLimit() time.Duration { return min(callTimeout, l.Dur/6) }

func (l *Lock) path() string { return Path("db", l.Account, "lock", l.Name) }

// Take takes the lock and waits for it as long as Wait says. If it fails although the
// lock may have been granted, it unlocks.
func (l *Lock) Take(ctx context.Context) (Grant, error) {
	g, err := l.take(ctx)
	if l.Unique && (Failed(err, Unavailable) || errors.Is(err, ErrLate)) {
		// Take has failed already, and the lock expires if this fails too.
		_ = l.giveBack(context.WithoutCancel(ctx), url.Values{"id": {l.ID}})
	}
	return g, err
}

func (l *Lock) take(ctx context.Context) (Grant, error) {
	query := url.Values{"id": {l.ID}, "dur": {units.FormatDuration(l.Dur)}}
	if l.Least > 0 {
		query.Set("least", units.FormatDuration(l.Least))
	}
	if l.Limit > 0 {
		query.Set("limit", strconv.Itoa(l.Limit))
	}
	if l.Shared {
		query.Set("shared", "true")
	}
	start, most, unavailable := boottime.Now(), l.Wait, false
	for {
		left := max(0, start+l.Wait-boottime.Now())
		wait := min(left, most)
		query.Del("wait")
		if wait > 0 {
			query.Set("wait", units.FormatDuration(wait))
		}
		asked := boottime.Now()
		token, err := l.ask(ctx, query, wait+l.CallLimit())
		switch {
		case err == nil && boottime.Now()-asked <= l.CallLimit():
			return Grant{token, asked + l.Dur}, nil
		case err == nil:
			// The call took long, so it is unknown when the lock was granted.
			return l.confirm(ctx, token)
		case ctx.Err() != nil:
			return Grant{}, err
		case Failed(err, BadRequest):
			limit, ok := waitLimit(err)
			if !ok || limit >= most {
				return Grant{}, err
			}
			most = limit
			continue
		case Failed(err, Conflict) && most < l.Wait && left > wait:
			continue // the wait was cut to limits.wait: wait once more
		case Failed(err, Unavailable):
			unavailable = true
		case !Failed(err, Unreachable) || !unavailable:
			return Grant{}, err
		}
		// The retry has the same id, so a lost answer does no harm.
		if boottime.Now()-start+retryPause >= l.Wait+l.CallLimit() || !sleep(ctx, retryPause) {
			return Grant{}, err
		}
	}
}

// confirm renews a lock whose grant may be old, so that its end is known.
func (l *Lock) confirm(ctx context.Context, token int64) (Grant, error) {
	for start := boottime.Now(); ; {
		end, err := l.Renew(ctx, token)
		switch {
		case err == nil:
			return Grant{token, end}, nil
		case Failed(err, Conflict):
			return Grant{}, ErrLate
		case boottime.Now()-start+retryPause >= l.CallLimit() || !sleep(ctx, retryPause):
			return Grant{}, ErrLate
		}
	}
}

var waitTooLong = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^wait must be .* at most ([0-9.a-z]+), not `)
})

// waitLimit returns the server's limits.wait, if err says that a wait exceeds it.
func waitLimit(err error) (time.Duration, bool) {
	m := waitTooLong().FindStringSubmatch(err.Error())
	if m == nil {
		return 0, false
	}
	d, ok := units.ParseDuration(m[1])
	return d, ok && d > 0
}

// ask sends the POST and returns the token.
func (l *Lock) ask(ctx context.Context, query url.Values, limit time.Duration) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer, err := l.Server.Call(ctx, "POST", l.path(), query, "")
	if err != nil {
		return 0, err
	}
	token, err := strconv.ParseInt(strings.TrimSuffix(string(answer.Body), "\n"), 10, 64)
	if err != nil || token < 1 {
		return 0, &Error{Reason: Foreign, Line: fmt.Sprintf("the answer of %s is not a fencing token: is it a Cloud Dragon server?", l.Server)}
	}
	return token, nil
}

// Renew extends the lock once and returns its new end.
func (l *Lock) Renew(ctx context.Context, token int64) (end time.Duration, err error) {
	asked := boottime.Now()
	got, err := l.ask(ctx, url.Values{"token": {strconv.FormatInt(token, 10)}, "dur": {units.FormatDuration(l.Dur)}}, l.CallLimit())
	if err == nil && got != token {
		err = &Error{Reason: Foreign, Line: fmt.Sprintf("%s renews token %d with token %d: is it a Cloud Dragon server?", l.Server, token, got)}
	}
	return asked + l.Dur, err
}

// GiveBack unlocks. A Conflict means that the lock was lost.
func (l *Lock) GiveBack(ctx context.Context, token int64) error {
	return l.giveBack(ctx, url.Values{"token": {strconv.FormatInt(token, 10)}})
}

func (l *Lock) giveBack(ctx context.Context, query url.Values) error {
	ctx, cancel := context.WithTimeout(ctx, unlockTimeout)
	defer cancel()
	for try := 0; ; try++ {
		one, done := context.WithTimeout(ctx, min(l.CallLimit(), unlockTimeout/2))
		_, err := l.Server.Call(one, "DELETE", l.path(), query, "")
		done()
		switch {
		case err == nil:
			return nil
		case Failed(err, Conflict) && try > 0:
			return nil // an earlier try unlocked it, and now another caller holds it
		case !Failed(err, Unavailable) && !Failed(err, Unreachable):
			return err
		case !sleep(ctx, retryPause<<min(try, 4)):
			return err
		}
	}
}

// sleep waits for d, and returns false at once if ctx ends.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
