package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"clouddragon/db"
	"clouddragon/db/commit"
	"clouddragon/handlers"
	"clouddragon/internal/disk"
	"clouddragon/internal/front"
	"clouddragon/internal/replica"
	"clouddragon/internal/systemd"
	"clouddragon/metrics"
)

// How long a stop may take: active requests, and everything.
const (
	drainTime = 7 * time.Second
	stopTime  = 9 * time.Second
	// failTime is how long a stop may take after a failure of the disk. Half of it is for
	// active requests.
	failTime = time.Second
	// lingerTime is how long connections without a request stay open during a stop, so that
	// the next request of a busy client is still answered.
	lingerTime = time.Second
	// stopMargin is how much longer closing the database may take than its time.
	stopMargin = 250 * time.Millisecond
	// tellEvery is how often a long start reports its progress.
	tellEvery = 5 * time.Second
	// extension is how long systemd then waits for further progress.
	extension = 5 * time.Minute
	// secondSignal is how long after the first signal another one ends the process at once.
	// Before that it counts as the same one, which can come from a terminal, timeout(1) and a
	// supervisor.
	secondSignal = time.Second
)

// environment is what the process provides to the server.
type environment struct {
	log     *slog.Logger
	dropped func() uint64          // counts dropped lines of the log; nil: unknown
	stop    <-chan os.Signal       // SIGTERM, SIGINT
	reload  <-chan os.Signal       // SIGHUP
	config  func() (Config, error) // reads the configuration again
	socket  net.Listener           // passed by systemd; nil: bind the key listen
	ticks   <-chan time.Time       // when a long start reports its progress; nil: every tellEvery
	systemd *supervisor            // nil: no systemd
	elector *elector               // nil: an operator decides who is the primary
	ahead   time.Duration          // by which locks end too early on this server, which was a standby
	passed  bool                   // systemd passed the socket, so it cannot be bound again

	// mirror prepares a data directory and returns the mirror of its batches; nil: none.
	mirror func(db.Options) (db.Mirror, error)
}

// serve serves the data directory on fsys until a signal or a failed disk ends it, and
// returns the exit code. A second signal ends it without waiting for anything. A standby
// that is promoted continues as a primary. A primary that is replaced continues as a
// standby, if it is configured as one.
func serve(fsys disk.FS, c Config, env environment) int {
	defer raiseHeapFloor()()
	a := newAccess(c)
	env.passed = env.socket != nil
	if len(c.Cluster.Etcd) > 0 {
		return serveCluster(fsys, c, env, a)
	}
	for {
		state, err := replica.ReadState(fsys, c.Data)
		if err != nil {
			env.systemd.tell(systemd.Status("cannot open the data directory: %v", err))
			env.log.Error("cannot open the data directory", "data", c.Data, "err", err)
			return exitFailed
		}
		code, again := 0, false
		if c.Replica.Of != "" && !state.IsPrimary(c.Replica.Of) {
			code, again = serveStandby(fsys, c, &env, a)
		} else {
			code, again = servePrimary(fsys, c, env, a, state)
			env.socket = nil // it is closed
		}
		if !again {
			return code
		}
	}
}

// servePrimary opens the data directory and answers every call. again is whether the
// server was replaced and continues as a standby.
func servePrimary(fsys disk.FS, c Config, env environment, a *access, state replica.State) (code int, again bool) {
	log := env.log
	var mirror *replica.Primary
	env.mirror = func(o db.Options) (db.Mirror, error) {
		if err := replica.TakeOver(fsys, o, &state, lockGrace+env.ahead); err != nil {
			return nil, err
		}
		var err error
		mirror, err = replica.NewPrimary(fsys, c.Data, env.elector.election(), log)
		return mirror, err
	}
	m := metrics.New(versionText(), apiNames())
	env.systemd.tell(systemd.Status("reading the data directory"))
	d, err := open(fsys, c, m, env)
	if errors.Is(err, errInterrupted) {
		env.systemd.tell("STOPPING=1", systemd.Status("stopped before it was ready"))
		log.Info("stopped before it was ready")
		return exitOK, false
	}
	if err != nil {
		env.systemd.tell(systemd.Status("cannot open the data directory: %v", err))
		log.Error("cannot open the data directory", "data", c.Data, "err", err)
		return exitFailed, false
	}
	defer mirror.Close()
	mirror.Serve(d)
	home := watchHome(fsys, c.Data)
	m.Watch(sources(c.Data, d, env.dropped, mirror.Status))

	of, err := shareDescriptors()
	bare := env.socket
	if err == nil && bare == nil {
		bare, err = listen(c.Listen, c.Socket)
	}
	if err != nil {
		env.systemd.tell(systemd.Status("cannot listen: %v", err))
		log.Error("cannot listen", "err", err)
		return closeDB(d, home, log, time.Now().Add(stopTime), exitFailed), false
	}
	rare := newRare(log.Handler())
	tlsConfig := a.tlsConfig()
	l := front.NewListener(bare, front.Options{Max: of.connections, TLS: tlsConfig, Log: slog.New(rare)})
	draining := make(chan struct{})
	handler := handlers.New(handlers.Options{
		DB:       d,
		Tokens:   &a.tokens,
		Limits:   handlers.Limits{Value: c.Limits.Value, Dur: c.Limits.Dur, Wait: c.Limits.Wait, Batch: c.Limits.Batch, Replay: c.Limits.Replay, Backup: c.Backup.Time},
		Program:  versionText(),
		Draining: draining,
		Role: func() handlers.Role {
			if mirror.Admit(true) != nil {
				return handlers.Neither
			}
			return handlers.Primary
		},
		Admit:   func(write, _ bool) error { return mirror.Admit(write) },
		Peers:   mirror.Handler(),
		Metrics: m.Handler(),
		Observe: func(api handlers.API, method string, code int, took time.Duration) {
			m.Request(int(api), method, code, took)
		},
		Log: log,
	})
	s := &http.Server{
		Handler: handler,
		// The handlers extend the deadlines for long bodies and for calls that wait.
		ReadHeaderTimeout:            10 * time.Second,
		ReadTimeout:                  30 * time.Second,
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               front.MaxHeaderBytes,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(rare, slog.LevelWarn),
		Protocols:                    new(http.Protocols),
		ConnContext:                  front.ConnContext,
		ConnState:                    front.ConnState,
	}
	s.Protocols.SetHTTP1(true)
	if c.Front.Enabled {
		err := l.StartLoops(front.LoopOptions{
			Plain: handlers.Plain(handler), Loops: c.Front.Loops,
			HeaderTime: s.ReadHeaderTimeout, IdleTime: s.IdleTimeout,
		})
		if err != nil {
			log.Error("cannot listen", "err", err)
			return closeDB(d, home, log, time.Now().Add(stopTime), exitFailed), false
		}
	}

	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	token := "none"
	if c.hasToken() {
		token = "required"
	}
	log.Info("listening", "addr", bound(l), "tls", tlsConfig != nil, "token", token, "data", c.Data, "version", versionText())

	env.systemd.tell("READY=1", systemd.Status("serving on %s", bound(l)))
	go env.systemd.guard(env.systemd.watchdog(), d.Pulse, waitsForDisk)
	a.watch(env)
	fence, unfence := context.WithCancel(context.Background())
	defer unfence()
	go replica.Fence(fence, state, a.replicaToken, c.address(bound(l)), log)

	limit, all := drainTime, stopTime
	over, failed := mirror.Over, d.Failed()
	for going := true; going; {
		going = false
		select {
		case got := <-env.stop:
			env.systemd.tell("STOPPING=1", systemd.Status("stopping"))
			log.Info("stopping", "signal", got)
		case <-over:
			env.systemd.tell(systemd.Status("replaced by another server, which is the primary"))
			d.Drain() // no caller gets a lock here any more
			if again = (c.Replica.Of != "" || env.elector != nil) && !env.passed; again {
				log.Info("continuing as a standby")
				break
			}
			over, going = nil, true // it tells everybody where the primary is
		case <-failed:
			if mirror.Replaced() { // a pending write has found out
				failed, going = nil, true
				break
			}
			// db has logged what failed.
			env.systemd.tell("STOPPING=1", systemd.Status("%v", d.Err()))
			code, limit, all = exitFailed, failTime/2, failTime
		case err := <-ended:
			log.Error("cannot accept connections", "err", err)
			code = exitFailed
		}
	}
	began := time.Now()
	stopped := make(chan int, 1)
	go func() {
		close(draining)
		if err := l.Close(); err != nil { // before any client learns of the stop
			log.Warn("closing the listener", "err", err)
		}
		d.Drain()
		drain(s, l, limit, log)
		mirror.Stop()
		stopped <- closeDB(d, home, log, began.Add(all), code)
	}()
	end := time.After(all + stopMargin)
	for {
		select {
		case code := <-stopped:
			return code, again
		case <-end:
			log.Warn("stopped before everything ended, because the disk or a client is too slow", "after", all)
			return code, false
		case got := <-env.stop:
			if time.Since(began) >= secondSignal {
				log.Error("stopped at once", "signal", got)
				return exitFailed, false
			}
		}
	}
}

var errInterrupted = errors.New("interrupted")

// open opens the database. If a signal arrives during that, it returns errInterrupted:
// recovery may take long, and stopping in the middle of it does no more harm than a crash.
func open(fsys disk.FS, c Config, m *metrics.Metrics, env environment) (*db.DB, error) {
	type opened struct {
		db  *db.DB
		err error
	}
	of, err := shareDescriptors()
	if err != nil {
		return nil, err
	}
	done := make(chan opened, 1)
	var far progress
	o := c.database(fsys, env.log, of.segments)
	o.Observer, o.Progress = newObserver(m), far.report
	if c.Audit {
		o.Audit = env.log
	}
	go func() {
		var d *db.DB
		o, err := o, error(nil)
		if env.mirror != nil {
			o.Mirror, err = env.mirror(o)
		}
		if err == nil {
			d, err = db.Open(o)
		}
		done <- opened{d, err}
	}()
	ticks := env.ticks
	if ticks == nil {
		t := time.NewTicker(tellEvery)
		defer t.Stop()
		ticks = t.C
	}
	told := ""
	for {
		select {
		case o := <-done:
			return o.db, o.err
		case <-env.stop:
			return nil, errInterrupted
		case <-ticks:
			if now := far.String(); now != told {
				told = now
				env.log.Info("reading the data directory", "done", now)
				env.systemd.tell(systemd.Status("reading the data directory: %s", now), systemd.ExtendTimeout(extension))
			}
		}
	}
}

// observer passes events of the database on to the metrics.
type observer struct {
	*metrics.Metrics
	wait, handOver [2]func(time.Duration) // by db.LockKind
}

func newObserver(m *metrics.Metrics) *observer {
	o := &observer{Metrics: m}
	times := m.LockTimes()
	o.wait[db.MutexInMemory], o.handOver[db.MutexInMemory] = times(handlers.MLock.String())
	o.wait[db.LockOnDisk], o.handOver[db.LockOnDisk] = times(handlers.Lock.String())
	return o
}

func (o *observer) Committed(b commit.Batch)                     { o.Commit(b.Calls, b.Bytes, b.Sync) }
func (o *observer) Waited(kind db.LockKind, d time.Duration)     { o.wait[kind](d) }
func (o *observer) HandedOver(kind db.LockKind, d time.Duration) { o.handOver[kind](d) }

// drain waits up to limit for active requests, after the listener is closed. Idle
// connections stay open for a moment first: if a client sends its next request, the answer
// tells it that the connection ends.
func drain(s *http.Server, l *front.Listener, limit time.Duration, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	l.Wait(min(lingerTime, limit/4))
	deadline, _ := ctx.Deadline()
	loopsEnded := make(chan struct{})
	go func() {
		defer close(loopsEnded)
		l.EndLoops(time.Until(deadline))
	}()
	err := s.Shutdown(ctx) // waits for the loops too
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("closing connections still active", "after", limit)
		err = s.Close()
	}
	if err != nil {
		log.Warn("closing connections", "err", err)
	}
	<-loopsEnded
}

// closeDB closes the database and returns the exit code. It does not wait beyond end:
// everything that was answered is in the log, and the next start replays it.
func closeDB(d *db.DB, home *home, log *slog.Logger, end time.Time, code int) int {
	if home.gone(log) {
		code = exitFailed
	}
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	select {
	case err := <-closed:
		if isUnmirrored(err) {
			log.Warn("stopped without a final checkpoint, because a write has waited for the standby: the next start replays the log", "err", err)
			return code
		}
		if err != nil {
			log.Error("closing the data directory", "err", err)
			return exitFailed
		}
		log.Info("stopped")
	case <-time.After(time.Until(end)):
		log.Warn("stopped without a final checkpoint, which would take too long: the next start replays the log")
	}
	return code
}

// isUnmirrored reports whether nothing else failed than the wait for the standby, which ended
// because the server stops or was replaced.
func isUnmirrored(err error) bool {
	all, ok := err.(interface{ Unwrap() []error })
	return ok && !slices.ContainsFunc(all.Unwrap(), func(err error) bool {
		return !errors.Is(err, replica.ErrClosed) && !errors.Is(err, replica.ErrOver)
	})
}
