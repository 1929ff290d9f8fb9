package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"clouddragon/db"
	"clouddragon/handlers"
	"clouddragon/internal/disk"
	"clouddragon/metrics"
	"clouddragon/slots"
)

// How long a stop may take: the requests on their way, then all of it.
const (
	drainTime = 7 * time.Second
	stopTime  = 9 * time.Second
	// failTime is for both where the disk failed.
	failTime = time.Second
)

// serve opens the data directory on fsys, serves until a signal or a failed disk ends
// it, and returns the exit code. A second signal ends the process at once.
func serve(fsys disk.FS, c Config, cert *tls.Certificate, log *slog.Logger, signals <-chan os.Signal) int {
	m := metrics.New(versionText(), apiNames())
	d, err := open(fsys, c, m, log, signals)
	if errors.Is(err, errInterrupted) {
		log.Info("stopped before it served")
		return exitOK
	}
	if err != nil {
		log.Error("cannot open the data directory", "data", c.Data, "err", err)
		return exitFailed
	}
	m.Watch(sources(c.Data, d))

	draining := make(chan struct{})
	s := &http.Server{
		Handler: handlers.New(handlers.Options{
			DB:       d,
			Tokens:   tokens(c),
			Limits:   handlers.Limits{Value: c.Limits.Value, Dur: c.Limits.Dur, Wait: c.Limits.Wait},
			Draining: draining,
			Metrics:  m.Handler(),
			Observe: func(api handlers.API, method string, code int, took time.Duration) {
				m.Request(int(api), method, code, took)
			},
			Log: log,
		}),
		// The handlers prolong these where a body is long or a lock is waited for.
		ReadHeaderTimeout:            10 * time.Second,
		ReadTimeout:                  30 * time.Second,
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               64 << 10,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		Protocols:                    new(http.Protocols),
		ConnContext:                  handlers.ConnContext,
	}
	s.Protocols.SetHTTP1(true)

	l, err := listen(c.Listen)
	if err != nil {
		log.Error("cannot listen", "err", err)
		return closeDB(d, log, time.Now().Add(stopTime), exitFailed)
	}
	ended := make(chan error, 1)
	go func() { ended <- accept(s, handlers.Listener(l), cert) }()
	log.Info("listening", "addr", bound(l), "tls", cert != nil, "data", c.Data, "version", versionText())

	code, limit, all := exitOK, drainTime, stopTime
	select {
	case got := <-signals:
		log.Info("stopping", "signal", got)
	case <-d.Failed():
		// db has logged what failed.
		code, limit, all = exitFailed, failTime, failTime
	case err := <-ended:
		log.Error("cannot accept connections", "err", err)
		code = exitFailed
	}
	end := time.Now().Add(all)
	go func() {
		log.Error("stopped at once", "signal", <-signals)
		os.Exit(exitFailed)
	}()
	close(draining)
	d.Drain()
	drain(s, limit, log)
	return closeDB(d, log, end, code)
}

var errInterrupted = errors.New("interrupted")

// open opens the database. A signal meanwhile is errInterrupted: recovery may
// take long, and to stop in the midst of it is no worse than a crash.
func open(fsys disk.FS, c Config, m *metrics.Metrics, log *slog.Logger, signals <-chan os.Signal) (*db.DB, error) {
	type opened struct {
		db  *db.DB
		err error
	}
	done := make(chan opened, 1)
	o := db.Options{
		FS:           fsys,
		Dir:          c.Data,
		Who:          fmt.Sprintf("clouddragon, pid %d, listen %s", os.Getpid(), c.Listen),
		Segment:      c.Segment,
		CompactRatio: 1 + float64(c.Garbage)/100,
		Waiters:      c.Limits.Waiters,
		Log:          log,
		OnCommit:     func(c db.Commit) { m.Commit(c.Operations, c.Bytes, c.Sync) },
	}
	times := m.LockTimes()
	o.OnMutexWait, o.OnMutexHandOver = times(handlers.MLock.String())
	o.OnLockWait, o.OnLockHandOver = times(handlers.Lock.String())
	go func() {
		d, err := db.Open(o)
		done <- opened{d, err}
	}()
	select {
	case o := <-done:
		return o.db, o.err
	case <-signals:
		return nil, errInterrupted
	}
}

func accept(s *http.Server, l net.Listener, cert *tls.Certificate) error {
	if cert == nil {
		return s.Serve(l)
	}
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
	return s.ServeTLS(l, "", "")
}

// drain takes no more connections and lets those that are busy end, for as
// long as limit.
func drain(s *http.Server, limit time.Duration, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := s.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("closing connections that are busy still", "after", limit)
		err = s.Close()
	}
	if err != nil {
		log.Warn("closing the listener", "err", err)
	}
}

// closeDB closes the database and returns the exit code. It does not wait
// beyond end: what was answered is in the log, and the next start replays it.
func closeDB(d *db.DB, log *slog.Logger, end time.Time, code int) int {
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			log.Error("closing the data directory", "err", err)
			return exitFailed
		}
		log.Info("stopped")
	case <-time.After(time.Until(end)):
		log.Warn("stopped without a last checkpoint, which takes too long: the next start replays the log")
	}
	return code
}

// tokens are those of the configuration, as handlers know them.
func tokens(c Config) []handlers.Token {
	var t []handlers.Token
	if c.Token != "" {
		t = append(t, handlers.Token{Token: c.Token})
	}
	for _, x := range c.Tokens {
		t = append(t, handlers.Token(x))
	}
	return t
}

// apiNames are the names of the APIs, each at its number.
func apiNames() []string {
	var names []string
	for a := handlers.Other; a <= handlers.Metrics; a++ {
		names = append(names, a.String())
	}
	return names
}

// sources are what a scrape reads.
func sources(dir string, d *db.DB) metrics.Sources {
	return metrics.Sources{
		Storage: func() metrics.Storage {
			s := d.Stats()
			out := metrics.Storage{
				Queue:          s.Queue,
				IndexBytes:     s.Tables.IndexBytes + s.Values.IndexBytes,
				LogBytes:       s.Log.Bytes,
				Segments:       s.Log.Segments,
				Checkpoints:    s.Checkpoints,
				CheckpointTook: s.CheckpointTook,
				CheckpointAt:   s.CheckpointAt,
				Stopped:        s.Stopped,
				DiskFull:       s.DiskFull,
				Pending:        s.Pending,
			}
			for i, c := range s.Tables.Classes {
				out.Slots = append(out.Slots, metrics.Slots{Class: strconv.Itoa(slots.Classes[i]), Used: c.Used, Capacity: c.Capacity})
				out.TableBytes += c.FileBytes
			}
			return out
		},
		Disk: func() (metrics.Disk, error) {
			var s unix.Statfs_t
			if err := unix.Statfs(dir, &s); err != nil {
				return metrics.Disk{}, err
			}
			return metrics.Disk{FreeBytes: s.Bavail * uint64(s.Bsize), SizeBytes: s.Blocks * uint64(s.Bsize)}, nil
		},
		Locks: func() []metrics.Locks {
			s := d.Stats()
			return []metrics.Locks{
				{API: handlers.MLock.String(), Held: s.Mutexes.Held, Waiters: s.Mutexes.Waiting, Expired: s.Mutexes.Expired},
				{API: handlers.Lock.String(), Held: s.Locks.Held, Waiters: s.Locks.Waiting, Expired: s.Locks.Expired},
			}
		},
		KV: func() metrics.KV {
			all := d.Stats()
			s := all.Values
			return metrics.KV{
				Keys: s.Keys, LiveBytes: s.Live, LogBytes: s.Total, Reads: s.Reads, Damaged: s.Damaged,
				Compactions: all.Compaction.Runs, MovedBytes: all.Compaction.MovedBytes,
			}
		},
	}
}
