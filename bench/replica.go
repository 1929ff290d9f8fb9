package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// mirrored measures writes to a server whose standby has every one before it is answered,
// and the same without a standby just before, on the same machine and disk.
func mirrored(c crowd) *row {
	r := &row{name: "replica: sequence POST with a synchronous standby", conns: c.conns, stateful: true,
		figures: []figure{{"calls/s", false}, {"calls/s without", false}, {"ratio", false}}, work: work{"http": c.work["http"]}}
	r.measure = alone(func(ctx context.Context, b *bench, t *target) (figures []float64, err error) {
		rate := func() (float64, error) {
			c := c
			took, _, err := load(ctx, t, b.seconds, &c)
			return float64(len(c.took)*c.calls) / took.Seconds(), err
		}
		if err := fill(ctx, t, b.ids); err != nil {
			return nil, err
		}
		without, err := rate()
		if err != nil {
			return nil, err
		}
		standby := *t
		standby.more = fmt.Sprintf("replica: {of: \"http://%s\", sync: true}\n", t.addr)
		if standby.dir, err = os.MkdirTemp(b.dir, "standby-"); err != nil {
			return nil, err
		}
		if err := standby.launch(ctx); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, standby.end(os.Kill), os.RemoveAll(standby.dir)) }()
		if err := inSync(ctx, t.addr); err != nil {
			return nil, fmt.Errorf("%w; the standby in %s", err, filepath.Base(standby.dir))
		}
		with, err := rate()
		if err != nil {
			return nil, err
		}
		return []float64{with, without, with / without}, nil
	})
	return r
}

// inSync waits until no write is answered without the standby.
func inSync(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/replica/status", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return fmt.Errorf("waiting for the standby: %w", err)
		}
		var s struct {
			InSync bool `json:"in_sync"`
		}
		err = errors.Join(json.NewDecoder(res.Body).Decode(&s), res.Body.Close())
		if err != nil {
			return fmt.Errorf("the server has no standbys: %w", err)
		}
		if s.InSync {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the standby is not in sync: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
