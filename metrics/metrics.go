// Package metrics has the server's Prometheus metrics. It does not know the other packages:
// events are reported by calls (Request, Commit), and states are read as plain numbers at
// each scrape (Sources).
package metrics

import (
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "clouddragon"

// seconds are the buckets of every duration here: 100 µs to 10 s.
var seconds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Metrics holds every metric of one server, in its own registry. Any goroutine may call
// its methods.
type Metrics struct {
	registry *prometheus.Registry

	apis     []string
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	cells    []cell // by API and method

	commits    prometheus.Counter
	operations prometheus.Histogram
	sync       prometheus.Histogram
	written    prometheus.Counter
}

// New returns the metrics of a server. Request takes the number of an API, which is its
// index in apis.
func New(version string, apis []string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		apis:     apis,
		cells:    make([]cell, len(apis)*len(methods)),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "requests_total",
			Help: "Requests answered, by API, method and status code; 499: the client hung up first.",
		}, []string{"api", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "request_duration_seconds", Buckets: seconds,
			Help: "Time from a request's header to its answer; for a lock it includes the wait.",
		}, []string{"api", "method"}),
		commits: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "commits_total",
			Help: "Batches made durable in the log.",
		}),
		operations: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "commit_operations",
			Help:    "Operations that one batch answered.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096},
		}),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "sync_duration_seconds", Buckets: seconds,
			Help: "Time to write a batch to the log and sync it.",
		}),
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "log_written_bytes_total",
			Help: "Bytes of the batches made durable in the log.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info",
		Help:        "Always 1; the labels tell what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(build, m.requests, m.duration, m.commits, m.operations, m.sync, m.written,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// maxScrapes is how many scrapes are answered at a time. Another one gets a 503. Each takes
// some hundred KiB, and a thread while a slow disk reports its size.
const maxScrapes = 8

// Handler answers a scrape.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
}

// Common methods and codes have fixed places. Other methods count as "other", and other codes
// are looked up each time.
var (
	methods = [...]string{"other", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
	codes   = [...]int{0, 200, 204, 304, 400, 401, 403, 404, 405, 408, 409, 412, 413, 499, 500, 503, 507}
	places  [600]uint8 // of codes
)

func init() {
	for i, code := range codes {
		places[code] = uint8(i)
	}
}

// cell holds the metrics of one API and method. Each is looked up by its labels once, when
// it is first needed.
type cell struct {
	duration atomic.Pointer[prometheus.Observer]
	requests [len(codes)]atomic.Pointer[prometheus.Counter]
}

// Request counts a request that was answered after d.
func (m *Metrics) Request(api int, method string, code int, d time.Duration) {
	at := 0
	for i := 1; i < len(methods); i++ {
		if methods[i] == method {
			at = i
		}
	}
	c := &m.cells[api*len(methods)+at]
	h := c.duration.Load()
	if h == nil {
		o := m.duration.WithLabelValues(m.apis[api], methods[at])
		h = &o
		c.duration.Store(h)
	}
	(*h).Observe(d.Seconds())

	place := uint8(0)
	if code > 0 && code < len(places) {
		place = places[code]
	}
	n := c.requests[place].Load()
	if n == nil {
		r := m.requests.WithLabelValues(m.apis[api], methods[at], strconv.Itoa(code))
		n = &r
		if place != 0 {
			c.requests[place].Store(n)
		}
	}
	(*n).Inc()
}

// Commit counts a batch with its operations and bytes. sync is the time that it took to write
// and sync.
func (m *Metrics) Commit(operations, bytes int, sync time.Duration) {
	m.commits.Inc()
	m.operations.Observe(float64(operations))
	m.sync.Observe(sync.Seconds())
	m.written.Add(float64(bytes))
}

// LockTimes adds the two histograms of locks. For an API it returns the functions that take
// the time that a caller has waited for its grant, and the time from the end of a hold to
// the grant of the next waiter. Call it once.
func (m *Metrics) LockTimes() func(api string) (wait, handover func(time.Duration)) {
	waits := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "lock_wait_seconds", Buckets: append(seconds[:len(seconds):len(seconds)], 30, 60, 300, 600),
		Help: "Time that a caller was in the queue of a lock until it was granted.",
	}, []string{"api"})
	handovers := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "lock_handover_seconds", Buckets: seconds,
		Help: "Time from the end of one hold to the grant of the next in line.",
	}, []string{"api"})
	m.registry.MustRegister(waits, handovers)
	return func(api string) (wait, handover func(time.Duration)) {
		w, h := waits.WithLabelValues(api), handovers.WithLabelValues(api)
		return func(d time.Duration) { w.Observe(d.Seconds()) }, func(d time.Duration) { h.Observe(d.Seconds()) }
	}
}
