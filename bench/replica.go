package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// mirrored measures writes to a server whose standby has each one before it is answered,
// and the same without a standby just before, on the same machine and disk.
func mirrored(c crowd) *row {
	write := loaded("", c).measure
	return &row{name: "replica: sequence POST with a synchronous standby", conns: c.conns, stateful: true,
		figures: []figure{{"calls/s", false}, {"calls/s without", false}, {"ratio", false}}, work: work{"http": c.work["http"]},
		measure: alone(func(ctx context.Context, b *bench, primary *target) ([]float64, error) {
			if err := fill(ctx, primary, b.ids); err != nil {
				return nil, err
			}
			without, err := write(ctx, b, primary)
			if err != nil {
				return nil, err
			}
			standby := *primary
			standby.more = fmt.Sprintf("replica: {of: \"http://%s\", sync: true}\n", primary.addr)
			with, err := alone(func(ctx context.Context, b *bench, _ *target) ([]float64, error) {
				if err := inSync(ctx, primary); err != nil {
					return nil, err
				}
				return write(ctx, b, primary)
			})(ctx, b, &standby)
			if err != nil {
				return nil, err
			}
			return []float64{with[0], without[0], with[0] / without[0]}, nil
		})}
}

// inSync waits until no write is answered without the standby.
func inSync(ctx context.Context, primary *target) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the standby is not in sync"))
	defer cancel()
	return primary.poll(ctx, "/replica/status", func(body []byte) (bool, error) {
		var s struct {
			InSync bool `json:"in_sync"`
		}
		err := json.Unmarshal(body, &s)
		return s.InSync, err
	})
}
