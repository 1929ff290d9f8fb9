// Package handlers is the HTTP layer on top of package db. It maps paths and methods to
// calls, checks their parameters, and writes results and refusals.
//
// Every request takes the same path: locate parses the path, checkOrigin refuses requests
// from web pages of other sites, authorize checks the token, the table of endpoints finds
// the call, params reads the query and the body, the call uses db, and send writes the
// answer. A durable call has three steps, which steps.go explains: prepare, an operation
// of db, answer.
package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"clouddragon/db"
	"clouddragon/internal/front"
)

// Options say what is served and to whom.
type Options struct {
	DB     *db.DB  // nil: there is no data yet, and Admit refuses every call on it
	Tokens *Tokens // nil or empty: no token is needed
	Limits Limits
	// Program is the version of the program, for the manifests of backups.
	Program string
	// Draining, if not nil, is closed once the server shuts down; /healthz says so.
	Draining <-chan struct{}
	// Role returns the server's current role, for GET /healthz?role=. nil: it is always a
	// primary.
	Role func() Role
	// Admit, if not nil, returns an error if this server must not answer a call now: a
	// write, or a read that may or may not be stale. It must not block.
	Admit func(write, stale bool) error
	// Peers answers requests of other servers and of operators below /replica/; nil: there
	// is no such route.
	Peers http.Handler
	// Metrics answers GET /metrics; nil: there is no such route.
	Metrics http.Handler
	// Observe, if not nil, is called for each request after its answer. The method is
	// one of GET, HEAD, POST, PUT, PATCH, DELETE and "other". The code is 499 if the
	// client hung up before there was an answer.
	Observe func(api API, method string, code int, d time.Duration)
	Log     *slog.Logger // nil: none
}

// Limits bound what a client may ask for. A zero takes the default.
type Limits struct {
	Value  int64         // bytes of a value; 0: 8 MiB
	Dur    time.Duration // how long a lock is held; 0: 24 h
	Wait   time.Duration // how long a call queues for a lock; 0: 10 min
	Batch  int           // calls of a batch; 0: 10,000
	Replay time.Duration // how long the answer to an Idempotency-Key is kept; 0: 24 h
	Backup time.Duration // how long a backup may take; 0: 6 h
}

// API is the part of the server that a request is for.
type API uint8

// The APIs. Other stands for paths that are not a route.
const (
	Other API = iota
	Sequence
	Counter
	KV
	MLock
	MUnlock
	Lock
	Rate
	TFState
	Batch
	List
	Accounts
	Events
	Page
	Healthz
	Backup
	Move
	MoveData
	OpenAPI
	Replica // a message of another server
	ReplicaStatus
	Promote
	Metrics
)

// apiNames are the names of the APIs in paths.
var apiNames = [...]string{
	Other:    "other",
	Sequence: "sequence",
	Counter:  "counter",
	KV:       "kv",
	MLock:    "mlock",
	MUnlock:  "munlock",
	Lock:     "lock",
	Rate:     "rate",
	TFState:  "tfstate",
	Batch:    "batch",
	List:     "list",
	Accounts: "accounts",
	Events:   "events",
	Page:     "page",
	Healthz:  "healthz",
	Backup:   "backup",
	OpenAPI:  "openapi",
	Move:     "move",
	MoveData: "movedata",
	Metrics:  "metrics",

	Replica:       "replica",
	ReplicaStatus: "replica/status",
	Promote:       "replica/promote",
}

// The APIs with a path below an account, /db/:acc/API/:id.
const (
	firstKeyed = Sequence
	lastKeyed  = TFState
)

// String returns the API's name as in the path, or "other".
func (a API) String() string { return apiNames[a] }

// endpoint is one line of the table: a method of an API, the parameters that it takes in
// the query or the body, and the function that serves it. GET also serves HEAD.
type endpoint struct {
	api    API
	method string
	params []string
	serve  func(*server, *call) error // nil: steps serves it
	steps  *steps                     // for durable calls and for calls in a batch
	watch  *watch                     // how a GET waits for a change; nil: it does not
	waits  bool                       // it may wait for other calls
	quick  bool                       // a loop may call serve, which does not wait there
	inLoop bool                       // a loop takes the steps, where net/http calls serve
}

var endpoints = []endpoint{
	{api: Sequence, method: "GET", params: []string{"not", "wait", "stale"}, serve: getSequence, watch: watchSequence, quick: true, steps: readSequence, waits: true},
	{api: Sequence, method: "POST", params: []string{"n", "above", "lock", "token"}, steps: addSequence},
	{api: Sequence, method: "DELETE", params: []string{"lock", "token"}, steps: resetSequence},

	{api: Counter, method: "GET", params: []string{"not", "wait", "stale"}, serve: getCounter, watch: watchCounter, quick: true, steps: readCounter, waits: true},
	{api: Counter, method: "POST", params: []string{"add", "set", "min", "max", "if", "ttl", "touch", "lock", "token"}, steps: addCounter},
	{api: Counter, method: "DELETE", params: []string{"lock", "token"}, steps: resetCounter},

	{api: KV, method: "GET", params: []string{"ver", "not", "wait", "stale"}, serve: getValue, watch: watchValue, quick: true, steps: readValue, waits: true}, // also for memory
	{api: KV, method: "POST", params: []string{"ver", "ttl", "lock", "token"}, steps: setValue},
	{api: KV, method: "PUT", params: []string{"ver", "ttl", "lock", "token"}, steps: setValue},
	{api: KV, method: "PATCH", params: []string{"ttl", "ver", "lock", "token"}, steps: setTTL, waits: true}, // for memory
	{api: KV, method: "DELETE", params: []string{"ver", "lock", "token"}, steps: deleteValue},

	{api: MLock, method: "GET", params: []string{"token", "not", "wait", "stale"}, serve: getMutex, watch: watchMutex, quick: true, waits: true},
	{api: MLock, method: "POST", params: []string{"id", "token", "dur", "wait", "limit", "shared", "least"}, serve: lockMutex, quick: true, waits: true},
	{api: MUnlock, method: "POST", params: []string{"id", "token", "force"}, serve: unlockMutex, quick: true},

	{api: Lock, method: "GET", params: []string{"token", "not", "wait", "stale"}, serve: getLock, watch: watchLock, steps: readLock, waits: true, inLoop: true},
	{api: Lock, method: "POST", params: []string{"id", "token", "dur", "wait", "limit", "shared", "least"}, serve: takeLock, steps: tryLock, waits: true, inLoop: true},
	{api: Lock, method: "DELETE", params: []string{"id", "token", "force"}, steps: releaseLock},

	{api: Rate, method: "GET", params: []string{"limit", "per", "burst", "stale"}, steps: readRate},
	{api: Rate, method: "POST", params: []string{"limit", "per", "burst", "cost", "wait"}, serve: takeRate, steps: tryRate, waits: true, inLoop: true},
	{api: Rate, method: "DELETE", steps: forgetRate},

	{api: List, method: "GET", params: []string{"prefix", "after", "limit", "stale"}, serve: listThings},
	{api: Accounts, method: "GET", params: []string{"after", "limit", "stale"}, serve: listAccounts},
	{api: Events, method: "GET", params: []string{"api", "prefix"}, serve: sendEvents, waits: true},

	{api: Page, method: "GET", serve: getPage},
	{api: Healthz, method: "GET", params: []string{"role"}, serve: getHealth, quick: true},
	{api: Healthz, method: "OPTIONS", params: []string{"role"}, serve: getHealth},
	{api: Backup, method: "GET", serve: getBackup, waits: true},
	{api: Metrics, method: "GET", serve: getMetrics},
	{api: ReplicaStatus, method: "GET", serve: servePeers, waits: true},
	{api: Promote, method: "POST", params: []string{"force"}, serve: promote, waits: true},
	{api: Replica, method: "POST", serve: servePeers, waits: true},
}

// server has what all requests share. It does not change after New.
type server struct {
	db       *db.DB
	tokens   *Tokens
	limits   Limits
	program  string
	draining <-chan struct{}
	askRole  func() Role // nil: a primary for good
	admit    func(write, stale bool) error
	peers    http.Handler
	metrics  http.Handler
	observe  func(API, string, int, time.Duration)
	log      *slog.Logger
	pace     pace
	memory   *memory
	loopback atomic.Pointer[string] // the last Host that was a loopback address
}

// New returns the handler of all routes.
func New(o Options) http.Handler {
	s := &server{
		db:       o.DB,
		tokens:   o.Tokens,
		limits:   o.Limits,
		program:  o.Program,
		draining: o.Draining,
		askRole:  o.Role,
		admit:    o.Admit,
		peers:    o.Peers,
		metrics:  o.Metrics,
		observe:  o.Observe,
		log:      o.Log,
		pace:     defaultPace,
	}
	if s.tokens == nil {
		s.tokens = new(Tokens)
	}
	l := &s.limits
	l.Value = cmp.Or(l.Value, 8<<20)
	l.Dur, l.Wait = cmp.Or(l.Dur, 24*time.Hour), cmp.Or(l.Wait, 10*time.Minute)
	l.Batch, l.Replay = cmp.Or(l.Batch, 10_000), cmp.Or(l.Replay, 24*time.Hour)
	l.Backup = cmp.Or(l.Backup, 6*time.Hour)
	s.memory = newMemory(l.Value)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// call is one request and its answer. It belongs to the request's goroutine.
type call struct {
	w     http.ResponseWriter
	r     *http.Request
	conn  *front.Conn // nil: unknown
	began time.Time
	plain *plainCall // set if an event loop serves it, so that it must not wait; nil: it has its own goroutine

	ask
	inAccount  bool   // the path is below an account
	stale      bool   // a read that a standby may answer
	readOnly   bool   // the token is for reading only
	cameAsJSON bool   // the body is a batch in JSON
	fault      error  // what is wrong with the names in the path
	retryKey   string // the Idempotency-Key of a write; empty: none
	sentBody   []byte // the body of a write that has a key

	status  int
	ctype   []string // Content-Type
	body    []byte
	sent    bool
	whole   bool   // the whole body of the request has been read
	linger  bool   // the client may still send body after the answer
	held    int64  // bytes taken from server.memory
	waiting *peer  // ends with the call; nil: none
	buf     []byte // buffer for small bodies, reused by the next call
}

var calls = sync.Pool{New: func() any { return &call{buf: make([]byte, 0, 512)} }}

// codeGone is the code for metrics if the client hung up. It is never sent.
const codeGone = 499

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := calls.Get().(*call)
	c.w, c.r, c.conn, c.began = w, r, front.Begin(r), time.Now()
	defer func() { s.finish(c, recover()) }()
	if mayEndElsewhere(r) {
		w.Header()["Connection"] = closeConn
	}
	if r.ContentLength != 0 {
		// If the handler does not read the body, net/http reads the rest. A deadline
		// keeps it from waiting forever.
		s.pace.read(c)
	}
	if err := s.handle(c); err != nil {
		if errors.Is(err, context.Canceled) {
			// A client could take any answer, even an empty one, for a granted lock.
			panic(http.ErrAbortHandler)
		}
		s.refuse(c, err)
	}
	s.send(c)
}

// handle finds the endpoint of a request and calls it.
func (s *server) handle(c *call) error {
	e, err := s.route(c)
	if err != nil {
		return err
	}
	switch {
	case e.watch != nil:
		return s.getOrWatch(c, e)
	case e.serve != nil:
		return e.serve(s, c)
	}
	return s.do(c, e)
}

// route finds the endpoint of a request and reads the parameters.
func (s *server) route(c *call) (*endpoint, error) {
	c.method = c.r.Method
	c.locate(c.r.URL)
	if err := s.checkOrigin(c); err != nil {
		return nil, err
	}
	if err := s.authorize(c); err != nil {
		return nil, err
	}
	e := find(c.api, c.r.Method)
	switch {
	case c.r.ProtoMajor == 2:
		// net/http passes the preface of HTTP/2 on as a request.
		return nil, &refusal{http.StatusHTTPVersionNotSupported, "HTTP/2 is not supported here: use HTTP/1.1"}
	case c.api == Other, c.api == Metrics && s.metrics == nil, c.aboutReplica() && s.peers == nil, c.api == Replica && e == nil:
		return nil, c.noRoute()
	case e == nil:
		c.w.Header()["Allow"] = []string{allowed(c.api)}
		what := c.api.String()
		if c.api == List {
			what = c.of.String() + " without an id"
		}
		return nil, &refusal{http.StatusMethodNotAllowed, fmt.Sprintf("method %s is not allowed on %s: use %s", quote(c.r.Method), what, allowed(c.api))}
	case c.fault != nil:
		return nil, c.fault
	}
	if c.inAccount && s.db != nil {
		if err := s.db.Admit(c.key.Acc); err != nil {
			return nil, err
		}
	}
	err := c.readRetryKey(e)
	if err != nil {
		return nil, err
	}
	c.params.names, c.params.place = e.params, inQuery
	switch c.api {
	case Healthz:
		err = c.params.readRole(c.r.URL.RawQuery)
	case Replica: // its messages are not parsed here
	default:
		err = c.params.parse(c.r.URL.RawQuery)
	}
	if err == nil {
		err = s.admitted(c, e)
	}
	if err != nil {
		return nil, err
	}
	if !e.readsBody() {
		if err := s.readParams(c); err != nil {
			return nil, err
		}
		if !e.waits {
			c.brief()
		}
	}
	return e, nil
}

// finish ends a call, also one that panicked with p. After a panic the client gets a 500,
// or, if the answer has begun, the connection is cut.
func (s *server) finish(c *call, p any) {
	switch {
	case p == http.ErrAbortHandler:
		c.status = codeGone
	case p != nil:
		s.log.Error("a handler panicked", "api", c.api, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if c.sent {
			c.status, p = http.StatusInternalServerError, http.ErrAbortHandler
			break
		}
		p = nil
		s.refuse(c, errInternal)
		s.send(c)
	}
	if s.observe != nil {
		s.observe(c.api, methodLabel(c.r.Method), c.status, time.Since(c.began))
	}
	if c.waiting != nil {
		c.waiting.end()
	}
	held, conn, linger := c.held, c.conn, c.linger
	*c = call{buf: c.buf}
	s.memory.free(held)
	calls.Put(c)
	if linger && p == nil {
		conn.Linger()
	}
	if p != nil {
		panic(p)
	}
}
