package replica

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"clouddragon/kvlog/wal"
)

// maxAnswer limits how much of another server's answer is read, in bytes.
const maxAnswer = 1 << 20

// epochHeader carries the epoch of a server that refuses a request of an earlier epoch.
const epochHeader = "Replica-Epoch"

// CopyHeader is in a standby's request for a backup, which it makes its data directory from.
const CopyHeader = "Replica-Copy"

// epochError is returned when a server knows a later epoch and refuses the request.
type epochError struct {
	Epoch   uint64
	Primary string // its address, if known
}

func (e *epochError) Error() string {
	return fmt.Sprintf("another server has been the primary since epoch %d", e.Epoch)
}

// statusError is returned for any other refusal.
type statusError struct {
	Status int
	Line   string
}

func (e *statusError) Error() string { return fmt.Sprintf("%d: %s", e.Status, e.Line) }

// caller calls another server.
type caller struct {
	url   string // its address, without a trailing slash
	token func() string
	http  *http.Client
}

func newCaller(url string, token func() string) caller {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
		WriteBufferSize:     64 << 10,
	}
	return caller{url: strings.TrimRight(url, "/"), token: token, http: &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// always returns a function that always returns the same token.
func always(token string) func() string { return func() string { return token } }

// do sends a request and returns the answer, whose body the caller closes. An answer
// outside of 200 to 299 is an *epochError or a *statusError.
func (c caller) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if token := c.token(); token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if method == http.MethodGet { // a standby gets nothing but its copy
		r.Header.Set(CopyHeader, "true")
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/octet-stream")
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	line, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return nil, err
	}
	if n, err := strconv.ParseUint(res.Header.Get(epochHeader), 10, 64); err == nil {
		return nil, &epochError{Epoch: n, Primary: res.Header.Get("Location")}
	}
	return nil, &statusError{res.StatusCode, strings.TrimSpace(string(line))}
}

// post sends a value as JSON and decodes the JSON answer into answer, if that is not nil.
func (c caller) post(ctx context.Context, path string, send, answer any) error {
	body, err := json.Marshal(send)
	if err != nil {
		return err
	}
	res, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	p, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(p, answer)
}

// append sends batches and returns where the other server's log ends after them.
func (c caller) append(ctx context.Context, epoch uint64, frames []byte) (end wal.Pos, err error) {
	res, err := c.do(ctx, http.MethodPost, fmt.Sprintf("/replica/append?epoch=%d", epoch), frames)
	if err != nil {
		return wal.Pos{}, err
	}
	defer res.Body.Close()
	p, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return wal.Pos{}, err
	}
	return end, json.Unmarshal(p, &end)
}

// The messages, as JSON.
type (
	// helloRequest asks where the logs of two servers agree.
	helloRequest struct {
		Name  string
		ID    string    // of the data directory, in hex
		Ends  []wal.Pos // of the last batches, newest first
		Epoch uint64
	}
	helloAnswer struct {
		Epoch uint64
		At    wal.Pos // the newest of the ends that is in this log
		Size  int64   // of the segment that holds it, in bytes
	}
	// joinRequest asks for everything that follows in the log.
	joinRequest struct {
		Name, URL, Secret string
		Sync              bool
		At                wal.Pos
		Epoch             uint64
	}
	// beatRequest is the primary's heartbeat.
	beatRequest struct {
		Epoch    uint64
		Answered wal.Pos  // all calls up to here were answered
		Segments []uint64 // the segments needed up to Answered
		InSync   bool     // every write waits for this standby
		Wall     int64    // the primary's wall clock when it sent this, in ns since 1970; 0: unknown
		Time     int64    // its database time then, in ns; 0: unknown
	}
	beatAnswer struct {
		InSync bool // the standby knows durably that it has every write that was answered
	}
	leaveRequest struct{ Name string }
	fenceRequest struct {
		Epoch uint64
		URL   string
	}
)
