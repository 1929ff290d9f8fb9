package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// backedUp measures how long writes take at a constant rate while backups of a server with
// so many MB of values are read, one after the other, and the same without backups just
// before.
func backedUp(mb int) *row {
	const size = 64 << 10
	values := max(1, mb*1_000_000/size)
	write := loaded("", crowd{work: many, conns: 64, rate: 4000, id: anyOf(1000)}).measure
	big := work{"http": overHTTP("POST /db/big/kv/<any-id>\n\n" + strings.Repeat("v", size))}
	return &row{name: "sequence POST, 4,000/s, during a backup of " + thousands(mb) + " MB", conns: 64, work: big, stateful: true,
		figures: []figure{{"p99 µs", true}, {"p99 µs without", true}, {"ratio", true}, {"MB/s of the backup", false}},
		measure: alone(func(ctx context.Context, b *bench, t *target) ([]float64, error) {
			if _, _, err := load(ctx, t, 0, &crowd{work: big, conns: 8, n: values, id: inTurn}); err != nil {
				return nil, err
			}
			longer := *b
			longer.seconds *= 4
			without, err := write(ctx, &longer, t)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithCancel(ctx)
			var read atomic.Int64
			ended := make(chan error)
			go func() { ended <- t.readBackups(ctx, &read) }()
			began := time.Now()
			with, err := write(ctx, &longer, t)
			rate := float64(read.Load()) / 1e6 / time.Since(began).Seconds()
			cancel()
			if err = errors.Join(err, <-ended); err != nil {
				return nil, err
			}
			return []float64{with[1], without[1], with[1] / without[1], rate}, nil
		})}
}

// readBackups reads backups until ctx ends, and counts their bytes.
func (t *target) readBackups(ctx context.Context, read *atomic.Int64) error {
	for {
		err := t.readBackup(ctx, read)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}
}

func (t *target) readBackup(ctx context.Context, read *atomic.Int64) (err error) {
	answer, err := t.get(ctx, "/backup")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s", errRefused, answer.Status)
	}
	_, err = io.CopyBuffer(counted{read}, answer.Body, make([]byte, 1<<20))
	return err
}

// counted counts the bytes that are written to it.
type counted struct{ n *atomic.Int64 }

func (c counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
