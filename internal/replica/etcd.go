package replica

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// etcd speaks to the members of an etcd cluster through the JSON gateway of its API,
// version 3: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/. Keys and values are
// in base64 there, and whole numbers are text.
type etcd struct {
	members []string // their addresses
	first   atomic.Int32
	http    *http.Client
	timeout time.Duration // of a call to one member
}

func newEtcd(members []string, timeout time.Duration) *etcd {
	e := &etcd{timeout: timeout, http: newCaller("", nil).http}
	for _, m := range members {
		e.members = append(e.members, strings.TrimRight(m, "/"))
	}
	return e
}

// etcdKey is a key as etcd has it.
type etcdKey struct {
	Key    []byte `json:"key"`
	Value  []byte `json:"value"`
	ModRev int64  `json:"mod_revision,string"`
	Create int64  `json:"create_revision,string"`
}

// call posts a request to one member after the other until one answers.
func (e *etcd) call(ctx context.Context, path string, send, answer any) error {
	body, err := json.Marshal(send)
	if err != nil {
		return err
	}
	var errs []error
	first := int(e.first.Load())
	for i := range e.members {
		n := (first + i) % len(e.members)
		err := e.callOne(ctx, e.members[n]+path, body, answer)
		if err == nil {
			e.first.Store(int32(n))
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("etcd: %w", errors.Join(errs...))
}

func (e *etcd) callOne(ctx context.Context, url string, body []byte, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := e.http.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	p, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return &statusError{res.StatusCode, strings.TrimSpace(string(p))}
	}
	return json.Unmarshal(p, answer)
}

// read returns the keys as of one moment, nil for one that does not exist.
func (e *etcd) read(ctx context.Context, keys ...string) ([]*etcdKey, error) {
	type object = map[string]any
	var ops []object
	for _, k := range keys {
		ops = append(ops, object{"request_range": object{"key": b64(k)}})
	}
	var a struct {
		Responses []struct {
			Range struct {
				Keys []etcdKey `json:"kvs"`
			} `json:"response_range"`
		} `json:"responses"`
	}
	if err := e.call(ctx, "/v3/kv/txn", object{"success": ops}, &a); err != nil {
		return nil, err
	}
	if len(a.Responses) != len(keys) {
		return nil, fmt.Errorf("etcd: %d answers to %d reads", len(a.Responses), len(keys))
	}
	found := make([]*etcdKey, len(keys))
	for i := range keys {
		if all := a.Responses[i].Range.Keys; len(all) > 0 {
			found[i] = &all[0]
		}
	}
	return found, nil
}

// condition of a transaction: a key is still as it was read, or has a value.
type condition struct {
	key   string
	was   *etcdKey // nil: it does not exist
	value string   // if not empty, instead of was
}

// put of a transaction.
type put struct {
	key, value string
	lease      int64
}

// change puts keys if the conditions hold, and reports whether they did.
func (e *etcd) change(ctx context.Context, conditions []condition, puts []put) (bool, error) {
	type object = map[string]any
	var compare, success []object
	for _, c := range conditions {
		switch {
		case c.value != "":
			compare = append(compare, object{"key": b64(c.key), "target": "VALUE", "result": "EQUAL", "value": b64(c.value)})
		case c.was == nil:
			compare = append(compare, object{"key": b64(c.key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"})
		default:
			compare = append(compare, object{"key": b64(c.key), "target": "MOD", "result": "EQUAL", "mod_revision": fmt.Sprint(c.was.ModRev)})
		}
	}
	for _, p := range puts {
		success = append(success, object{"request_put": object{"key": b64(p.key), "value": b64(p.value), "lease": fmt.Sprint(p.lease)}})
	}
	var a struct{ Succeeded bool }
	err := e.call(ctx, "/v3/kv/txn", object{"compare": compare, "success": success}, &a)
	return a.Succeeded, err
}

// grant makes a lease.
func (e *etcd) grant(ctx context.Context, ttl time.Duration) (id int64, err error) {
	var a struct {
		ID  int64 `json:",string"`
		TTL int64 `json:",string"`
	}
	seconds := max(1, int64((ttl+time.Second-1)/time.Second))
	err = e.call(ctx, "/v3/lease/grant", map[string]any{"TTL": fmt.Sprint(seconds)}, &a)
	if err == nil && a.ID == 0 {
		err = errors.New("etcd: no lease in the answer")
	}
	return a.ID, err
}

// errLeaseGone is returned for a lease that has expired.
var errLeaseGone = errors.New("the lease in etcd has expired")

// keep renews a lease for its full duration.
func (e *etcd) keep(ctx context.Context, id int64) error {
	var a struct {
		Result struct {
			TTL int64 `json:",string"`
		} `json:"result"`
	}
	if err := e.call(ctx, "/v3/lease/keepalive", map[string]any{"ID": fmt.Sprint(id)}, &a); err != nil {
		return err
	}
	if a.Result.TTL <= 0 {
		return errLeaseGone
	}
	return nil
}

// revoke ends a lease, and removes the keys that were put with it.
func (e *etcd) revoke(ctx context.Context, id int64) error {
	var a struct{}
	return e.call(ctx, "/v3/lease/revoke", map[string]any{"ID": fmt.Sprint(id)}, &a)
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
