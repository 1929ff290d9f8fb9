package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources are called once at each scrape. Several scrapes may call them at a time. If one is
// nil, its metrics are left out.
type Sources struct {
	Storage func() Storage
	Disk    func() (Disk, error) // an error leaves the metrics out of that scrape
	Locks   func() []Locks
	Rates   func() Rates
	KV      func() KV
	Names   func() Names
	Watch   func() Watch
	Replica func() Replica
	Dropped func() uint64 // dropped lines of the server's log
}

// Storage is the state of the writer, the tables, the log and the checkpoints.
type Storage struct {
	Queue      int // operations that the writer has not taken yet
	Slots      []Slots
	TableBytes int64 // of the files
	IndexBytes int64 // memory of the indexes
	LogBytes   int64
	Segments   int
	Pending    uint64 // bytes logged since the last checkpoint

	RecoveryTook   time.Duration // of the start
	RecoveryBytes  int64         // of the log and the tables that the start read
	Checkpoints    uint64
	CheckpointTook time.Duration // of the last one
	CheckpointAt   time.Time     // zero: none yet
	BackupAt       time.Time     // moment of the last complete backup; zero: none since the start
	Stopped        bool
	DiskFull       bool
}

// Slots are those of one size class.
type Slots struct {
	Class          string
	Used, Capacity uint64
}

// Disk is the file system that holds the data directory.
type Disk struct{ FreeBytes, SizeBytes uint64 }

// Locks are those of one API.
type Locks struct {
	API                    string
	Held, Holders, Waiters int

	// Totals.
	Granted, Refused, TimedOut, Expired, Forced, Lost uint64
}

// Rates is the state of the rates.
type Rates struct{ Waiters int }

// KV is the state of the values.
type KV struct {
	Keys                int
	LiveBytes, LogBytes int64
	Compactions         uint64
	MovedBytes          uint64
	Reads               uint64
	Damaged             uint64 // records that failed their checksum

	Retries Retries
}

// Retries are the totals of calls with an Idempotency-Key.
type Retries struct{ Kept, Replayed, Mismatched uint64 }

// Names is the state of the index of names, which lists are made from.
type Names struct {
	Runs        int // sorted files
	Pending     int // names in memory that are in no file yet
	MemoryBytes int64
	DiskBytes   int64
	Rebuilding  bool
	Rebuilt     uint64 // names that the last rebuild has added
	Rebuilds    uint64
}

// Watch is the state of watchers and streams of events.
type Watch struct {
	Watchers, Limit, Streams int64
	Lost                     uint64 // total of streams that fell behind
}

// Watch adds the metrics of the sources. Call it once.
func (m *Metrics) Watch(s Sources) {
	add(m, s.Storage, storageSeries)
	if s.Disk != nil {
		m.registry.MustRegister(&source[Disk]{s.Disk, diskSeries})
	}
	add(m, s.Locks, lockSeries)
	add(m, s.Rates, rateSeries)
	add(m, s.KV, kvSeries)
	add(m, s.Names, nameSeries)
	add(m, s.Watch, watchSeries)
	add(m, s.Replica, replicaSeries)
	add(m, s.Dropped, droppedSeries)
}

// add registers the series of a source, if there is one.
func add[T any](m *Metrics, read func() T, all []series[T]) {
	if read != nil {
		m.registry.MustRegister(&source[T]{func() (T, error) { return read(), nil }, all})
	}
}

var storageSeries = []series[Storage]{
	gauge("queue_depth", "Operations that wait for the writer.",
		func(s Storage) float64 { return float64(s.Queue) }),
	perClass("slots_used", "Slots in use, by size class in bytes.",
		func(s Slots) float64 { return float64(s.Used) }),
	perClass("slots_capacity", "Slots that the tables hold now, by size class in bytes; they grow ahead of need.",
		func(s Slots) float64 { return float64(s.Capacity) }),
	gauge("table_bytes", "Size of the slot tables on disk.",
		func(s Storage) float64 { return float64(s.TableBytes) }),
	gauge("index_bytes", "Memory of the indexes that find slots and values.",
		func(s Storage) float64 { return float64(s.IndexBytes) }),
	gauge("log_bytes", "Size of the log on disk.",
		func(s Storage) float64 { return float64(s.LogBytes) }),
	gauge("log_segments", "Segments of the log.",
		func(s Storage) float64 { return float64(s.Segments) }),
	gauge("log_pending_bytes", "Bytes logged since the last checkpoint: what the next start has to replay.",
		func(s Storage) float64 { return float64(s.Pending) }),
	gauge("recovery_duration_seconds", "Time that the start took to read the data directory and to write again what it recovered.",
		func(s Storage) float64 { return s.RecoveryTook.Seconds() }),
	gauge("recovery_read_bytes", "Bytes of the log and the tables that the start read.",
		func(s Storage) float64 { return float64(s.RecoveryBytes) }),
	counter("checkpoints_total", "Checkpoints since the start.",
		func(s Storage) float64 { return float64(s.Checkpoints) }),
	gauge("last_checkpoint_duration_seconds", "Time that the last checkpoint took.",
		func(s Storage) float64 { return s.CheckpointTook.Seconds() }),
	gauge("last_checkpoint_timestamp_seconds", "When the last checkpoint ended, in seconds since 1970.",
		func(s Storage) float64 { return unix(s.CheckpointAt) }),
	gauge("last_backup_timestamp_seconds", "The time of the state that the last complete backup holds, in seconds since 1970; 0 if there was none since the start.",
		func(s Storage) float64 { return unix(s.BackupAt) }),
	gauge("writes_stopped", "1 once the disk failed and writes are stopped, else 0.",
		func(s Storage) float64 { return one(s.Stopped) }),
	gauge("disk_full", "1 while the disk has no room for files to grow: writes that need more room are refused with 507.",
		func(s Storage) float64 { return one(s.DiskFull) }),
}

var diskSeries = []series[Disk]{
	gauge("disk_free_bytes", "Free space of the file system that holds the data directory.",
		func(d Disk) float64 { return float64(d.FreeBytes) }),
	gauge("disk_size_bytes", "Size of the file system that holds the data directory.",
		func(d Disk) float64 { return float64(d.SizeBytes) }),
}

var lockSeries = []series[[]Locks]{
	perAPI("locks_held", "Locks held now.", prometheus.GaugeValue,
		func(l Locks) float64 { return float64(l.Held) }),
	perAPI("lock_holders", "Holders of all locks: a lock may have several.", prometheus.GaugeValue,
		func(l Locks) float64 { return float64(l.Holders) }),
	perAPI("lock_waiters", "Callers in the queues of locks.", prometheus.GaugeValue,
		func(l Locks) float64 { return float64(l.Waiters) }),
	perAPI("lock_expired_total", "Holds that expired.", prometheus.CounterValue,
		func(l Locks) float64 { return float64(l.Expired) }),
	perAPI("lock_granted_total", "Grants of locks.", prometheus.CounterValue,
		func(l Locks) float64 { return float64(l.Granted) }),
	perAPI("lock_refused_total", "Calls that were refused at once because others hold the lock or wait for it.", prometheus.CounterValue,
		func(l Locks) float64 { return float64(l.Refused) }),
	perAPI("lock_timed_out_total", "Calls whose wait timed out before they got the lock.", prometheus.CounterValue,
		func(l Locks) float64 { return float64(l.TimedOut) }),
	perAPI("lock_forced_total", "Holds that were ended by force.", prometheus.CounterValue,
		func(l Locks) float64 { return float64(l.Forced) }),
	perAPI("lock_lost_total", "Renewals and unlocks by callers that no longer held the lock.", prometheus.CounterValue,
		func(l Locks) float64 { return float64(l.Lost) }),
}

var rateSeries = []series[Rates]{
	gauge("rate_waiters", "Calls that wait until a rate allows them.",
		func(r Rates) float64 { return float64(r.Waiters) }),
}

var kvSeries = []series[KV]{
	gauge("kv_keys", "Keys that have a value.",
		func(k KV) float64 { return float64(k.Keys) }),
	gauge("kv_live_bytes", "Bytes of the records in the log that hold the current value of a key.",
		func(k KV) float64 { return float64(k.LiveBytes) }),
	gauge("kv_log_bytes", "Bytes of all records of values in the log, live or not.",
		func(k KV) float64 { return float64(k.LogBytes) }),
	counter("compactions_total", "Segments whose live records were moved away.",
		func(k KV) float64 { return float64(k.Compactions) }),
	counter("compaction_moved_bytes_total", "Bytes of the records that compaction moved.",
		func(k KV) float64 { return float64(k.MovedBytes) }),
	counter("kv_reads_total", "Records of values read from disk.",
		func(k KV) float64 { return float64(k.Reads) }),
	counter("kv_damaged_records_total", "Records of values that failed their checksum when read.",
		func(k KV) float64 { return float64(k.Damaged) }),
	counter("retries_kept_total", "Writes with an Idempotency-Key whose answer was kept.",
		func(k KV) float64 { return float64(k.Retries.Kept) }),
	counter("retries_replayed_total", "Writes that were answered with the kept answer to an earlier call.",
		func(k KV) float64 { return float64(k.Retries.Replayed) }),
	counter("retries_mismatched_total", "Writes refused because their Idempotency-Key was used for another request.",
		func(k KV) float64 { return float64(k.Retries.Mismatched) }),
}

var nameSeries = []series[Names]{
	gauge("names_runs", "Sorted files of the index of names.",
		func(n Names) float64 { return float64(n.Runs) }),
	gauge("names_pending", "Names that are in no sorted file of the index yet.",
		func(n Names) float64 { return float64(n.Pending) }),
	gauge("names_memory_bytes", "Memory of the index of names, except for the pending ones.",
		func(n Names) float64 { return float64(n.MemoryBytes) }),
	gauge("names_disk_bytes", "Size of the index of names on disk.",
		func(n Names) float64 { return float64(n.DiskBytes) }),
	gauge("names_rebuilding", "1 while the index of names is rebuilt and lists wait for it, else 0.",
		func(n Names) float64 { return one(n.Rebuilding) }),
	gauge("names_rebuilt", "Names that the rebuild of the index has found so far, or that the last one found.",
		func(n Names) float64 { return float64(n.Rebuilt) }),
	counter("names_rebuilds_total", "Rebuilds of the index of names since the start.",
		func(n Names) float64 { return float64(n.Rebuilds) }),
}

var watchSeries = []series[Watch]{
	gauge("watchers", "Calls that wait for a change, and streams of events.",
		func(w Watch) float64 { return float64(w.Watchers) }),
	gauge("watchers_limit", "How many watchers there may be (limits.watchers).",
		func(w Watch) float64 { return float64(w.Limit) }),
	gauge("event_streams", "Open streams of events.",
		func(w Watch) float64 { return float64(w.Streams) }),
	counter("event_streams_lost_total", "Streams of events that were ended because their clients read too slowly.",
		func(w Watch) float64 { return float64(w.Lost) }),
}

var droppedSeries = []series[uint64]{
	counter("log_lines_dropped_total", "Lines of the server's own log that were dropped because nobody read them in time.",
		func(n uint64) float64 { return float64(n) }),
}

// series is one metric of a source. each emits its values with their labels.
type series[T any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	each func(t T, emit func(v float64, labels ...string))
}

func newSeries[T any](name, help string, kind prometheus.ValueType, each func(T, func(float64, ...string)), labels ...string) series[T] {
	return series[T]{prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil), kind, each}
}

func gauge[T any](name, help string, value func(T) float64) series[T] {
	return newSeries(name, help, prometheus.GaugeValue, func(t T, emit func(float64, ...string)) { emit(value(t)) })
}

func counter[T any](name, help string, value func(T) float64) series[T] {
	return newSeries(name, help, prometheus.CounterValue, func(t T, emit func(float64, ...string)) { emit(value(t)) })
}

func perClass(name, help string, value func(Slots) float64) series[Storage] {
	return newSeries(name, help, prometheus.GaugeValue, func(s Storage, emit func(float64, ...string)) {
		for _, c := range s.Slots {
			emit(value(c), c.Class)
		}
	}, "class")
}

func perAPI(name, help string, kind prometheus.ValueType, value func(Locks) float64) series[[]Locks] {
	return newSeries(name, help, kind, func(ls []Locks, emit func(float64, ...string)) {
		for _, l := range ls {
			emit(value(l), l.API)
		}
	}, "api")
}

// source is a collector that reads a T once at each scrape.
type source[T any] struct {
	read   func() (T, error)
	series []series[T]
}

func (s *source[T]) Describe(to chan<- *prometheus.Desc) {
	for _, x := range s.series {
		to <- x.desc
	}
}

func (s *source[T]) Collect(to chan<- prometheus.Metric) {
	t, err := s.read()
	if err != nil {
		return
	}
	for _, x := range s.series {
		x.each(t, func(v float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(x.desc, x.kind, v, labels...)
		})
	}
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
