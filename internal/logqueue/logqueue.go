// Package logqueue keeps a reader of the log from holding up or ending the
// server: lines wait in a bounded queue, and those that find no room are dropped
// and counted.
package logqueue

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Size is how many bytes of log lines wait for their reader at most.
const Size = 256 << 10

// FlushTime is how long a process waits at its end for the reader of the log.
const FlushTime = 500 * time.Millisecond

// Queue is the writer of a log. Its methods may be called by any goroutine.
type Queue struct {
	to   io.Writer
	wake chan struct{} // has room for one: there is something to write, or the queue is closed
	done chan struct{} // closed once all is written after Close

	mu      sync.Mutex // guards the fields below; never held while to is written
	waiting []byte     // whole lines
	unsaid  uint64     // lines dropped that the log does not mention yet
	dropped uint64     // lines dropped, ever
	closed  bool
}

// New returns a queue that passes what it is given on to a writer, from a
// goroutine of its own. Close ends it.
func New(to io.Writer) *Queue {
	q := &Queue{to: to, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write queues p, which holds whole lines. It neither waits nor fails: lines
// that find no room are dropped.
func (q *Queue) Write(p []byte) (int, error) {
	q.mu.Lock()
	if q.closed || len(q.waiting)+len(p) > Size {
		q.drop(p)
	} else {
		q.waiting = append(q.waiting, p...)
	}
	q.mu.Unlock()
	q.signal()
	return len(p), nil
}

// drop counts the lines of p. The caller holds mu.
func (q *Queue) drop(p []byte) {
	n := uint64(max(1, bytes.Count(p, []byte("\n"))))
	q.unsaid += n
	q.dropped += n
}

// Dropped returns how many lines never reached the writer.
func (q *Queue) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// Close waits until all lines are written, but no longer than limit. Lines that
// come later are dropped.
func (q *Queue) Close(limit time.Duration) {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
	select {
	case <-q.done:
	case <-time.After(limit):
	}
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run writes what waits, all of it at once.
func (q *Queue) run() {
	defer close(q.done)
	var lines []byte
	for range q.wake {
		for {
			q.mu.Lock()
			lines, q.waiting = q.waiting, lines[:0]
			said := q.unsaid
			closed := q.closed
			q.mu.Unlock()
			if len(lines) == 0 {
				if closed {
					return
				}
				break
			}
			q.pass(lines, said)
		}
	}
}

// pass writes lines, and a line about those dropped since the last such line.
func (q *Queue) pass(lines []byte, dropped uint64) {
	if n, err := q.to.Write(lines); err != nil {
		q.mu.Lock()
		q.drop(lines[n:])
		q.mu.Unlock()
		return
	}
	if dropped == 0 {
		return
	}
	var line bytes.Buffer
	slog.New(slog.NewTextHandler(&line, nil)).Warn(fmt.Sprintf("%d log lines were dropped", dropped))
	if _, err := q.to.Write(line.Bytes()); err == nil {
		q.mu.Lock()
		q.unsaid -= dropped
		q.mu.Unlock()
	}
}
