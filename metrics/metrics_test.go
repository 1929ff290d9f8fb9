package metrics

import (
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	sequence = 1
	lock     = 2
)

var apis = []string{"other", "sequence", "lock"}

// everything returns metrics with every source and every event seen once.
func everything() *Metrics {
	m := New("1.2.3", apis)
	m.Watch(Sources{
		Storage: func() Storage {
			return Storage{Queue: 3, Slots: []Slots{{"64", 5, 100}, {"128", 6, 50}}, TableBytes: 11, IndexBytes: 12, LogBytes: 13,
				Segments: 4, Pending: 14, Checkpoints: 7, RecoveryTook: 2500 * time.Millisecond, RecoveryBytes: 15, CheckpointTook: 1500 * time.Millisecond, CheckpointAt: time.Unix(1000, 5e8), Stopped: true, DiskFull: true}
		},
		Disk: func() (Disk, error) { return Disk{21, 22}, nil },
		Locks: func() []Locks {
			return []Locks{{"mlock", 1, 50, 2, 51, 52, 53, 3, 54, 55}, {"lock", 4, 60, 5, 61, 62, 63, 6, 64, 65}}
		},
		Rates:   func() Rates { return Rates{58} },
		Replica: func() Replica { return Replica{"primary", 71, true, true, true, true, 72, 73, 74} },
		KV:      func() KV { return KV{31, 32, 33, 34, 35, 36, 37, Retries{38, 39, 40}} },
		Names:   func() Names { return Names{42, 43, 44, 45, true, 46, 47} },
		Watch:   func() Watch { return Watch{48, 49, 56, 57} },
		Dropped: func() uint64 { return 41 },
	})
	wait, handover := m.LockTimes()("lock")
	wait(time.Millisecond)
	handover(time.Millisecond)
	m.Request(sequence, "POST", 200, 2*time.Millisecond)
	m.Commit(8, 4096, 3*time.Millisecond)
	return m
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("a scrape answers %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wantLines(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, line := range want {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the scrape has no line %q", line)
		}
	}
}

func TestEverySourceIsScraped(t *testing.T) {
	wantLines(t, scrape(t, everything()),
		`clouddragon_queue_depth 3`,
		`clouddragon_slots_used{class="64"} 5`,
		`clouddragon_slots_used{class="128"} 6`,
		`clouddragon_slots_capacity{class="64"} 100`,
		`clouddragon_table_bytes 11`,
		`clouddragon_index_bytes 12`,
		`clouddragon_log_bytes 13`,
		`clouddragon_log_segments 4`,
		`clouddragon_log_pending_bytes 14`,
		`clouddragon_recovery_duration_seconds 2.5`,
		`clouddragon_recovery_read_bytes 15`,
		`clouddragon_checkpoints_total 7`,
		`clouddragon_last_checkpoint_duration_seconds 1.5`,
		`clouddragon_last_checkpoint_timestamp_seconds 1000.5`,
		`clouddragon_writes_stopped 1`,
		`clouddragon_disk_full 1`,
		`clouddragon_disk_free_bytes 21`,
		`clouddragon_disk_size_bytes 22`,
		`clouddragon_locks_held{api="mlock"} 1`,
		`clouddragon_lock_waiters{api="lock"} 5`,
		`clouddragon_lock_expired_total{api="lock"} 6`,
		`clouddragon_lock_holders{api="mlock"} 50`,
		`clouddragon_lock_granted_total{api="lock"} 61`,
		`clouddragon_lock_refused_total{api="lock"} 62`,
		`clouddragon_lock_timed_out_total{api="lock"} 63`,
		`clouddragon_lock_forced_total{api="lock"} 64`,
		`clouddragon_lock_lost_total{api="lock"} 65`,
		`clouddragon_lock_wait_seconds_count{api="lock"} 1`,
		`clouddragon_lock_handover_seconds_count{api="lock"} 1`,
		`clouddragon_rate_waiters 58`,
		`clouddragon_replica_primary 1`,
		`clouddragon_replica_standby 1`,
		`clouddragon_replica_sync 1`,
		`clouddragon_replica_in_sync 1`,
		`clouddragon_replica_live 1`,
		`clouddragon_replica_epoch 71`,
		`clouddragon_replica_lag_batches 72`,
		`clouddragon_replica_lag_seconds 73`,
		`clouddragon_replica_clock_skew_seconds 74`,
		`clouddragon_kv_keys 31`,
		`clouddragon_kv_live_bytes 32`,
		`clouddragon_kv_log_bytes 33`,
		`clouddragon_compactions_total 34`,
		`clouddragon_compaction_moved_bytes_total 35`,
		`clouddragon_kv_reads_total 36`,
		`clouddragon_kv_damaged_records_total 37`,
		`clouddragon_retries_kept_total 38`,
		`clouddragon_retries_replayed_total 39`,
		`clouddragon_retries_mismatched_total 40`,
		`clouddragon_log_lines_dropped_total 41`,
		`clouddragon_names_runs 42`,
		`clouddragon_names_pending 43`,
		`clouddragon_names_memory_bytes 44`,
		`clouddragon_names_disk_bytes 45`,
		`clouddragon_names_rebuilding 1`,
		`clouddragon_names_rebuilt 46`,
		`clouddragon_names_rebuilds_total 47`,
		`clouddragon_watchers 48`,
		`clouddragon_watchers_limit 49`,
		`clouddragon_event_streams 56`,
		`clouddragon_event_streams_lost_total 57`,
		`clouddragon_commits_total 1`,
		`clouddragon_commit_operations_sum 8`,
		`clouddragon_sync_duration_seconds_sum 0.003`,
		`clouddragon_log_written_bytes_total 4096`,
	)
}

func TestWithoutASourceItsMetricsAreLeftOut(t *testing.T) {
	m := New("1", apis)
	m.Watch(Sources{Disk: func() (Disk, error) { return Disk{}, errors.New("statfs failed") }})
	text := scrape(t, m)
	for _, name := range []string{"queue_depth", "disk_free_bytes", "locks_held", "lock_wait_seconds", "kv_keys"} {
		if strings.Contains(text, "clouddragon_"+name) {
			t.Errorf("clouddragon_%s is there, though nothing was read", name)
		}
	}
	wantLines(t, text, `clouddragon_commits_total 0`)
}

func TestRequestsAreCountedByTheirLabels(t *testing.T) {
	m := New("1", apis)
	for range 3 {
		m.Request(sequence, "POST", 200, 200*time.Microsecond)
	}
	m.Request(sequence, "POST", 409, 2*time.Second)
	m.Request(lock, "GET", 418, 0) // a code without a fixed place
	m.Request(lock, "GET", 418, 0)
	m.Request(lock, "BREW", 405, 0)
	m.Request(0, "GET", 9999, 0)
	wantLines(t, scrape(t, m),
		`clouddragon_requests_total{api="sequence",code="200",method="POST"} 3`,
		`clouddragon_requests_total{api="sequence",code="409",method="POST"} 1`,
		`clouddragon_requests_total{api="lock",code="418",method="GET"} 2`,
		`clouddragon_requests_total{api="lock",code="405",method="other"} 1`,
		`clouddragon_requests_total{api="other",code="9999",method="GET"} 1`,
		`clouddragon_request_duration_seconds_bucket{api="sequence",method="POST",le="0.0001"} 0`,
		`clouddragon_request_duration_seconds_bucket{api="sequence",method="POST",le="0.00025"} 3`,
		`clouddragon_request_duration_seconds_count{api="sequence",method="POST"} 4`,
	)
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := everything()
	if n := testing.AllocsPerRun(100, func() {
		m.Request(sequence, "POST", 200, time.Millisecond)
		m.Commit(1, 100, time.Millisecond)
	}); n != 0 {
		t.Errorf("a request and a commit cost %v allocations, want 0", n)
	}
}

// TestDashboardAndAlertsNameExistingMetrics finds metrics that were renamed in the code but
// not in the dashboard or the alerts.
func TestDashboardAndAlertsNameExistingMetrics(t *testing.T) {
	text := scrape(t, everything())
	for _, file := range []string{"dashboard.json", "alerts.yml"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(b) {
			t.Errorf("%s is not JSON", file)
		}
		names := regexp.MustCompile(`\b(clouddragon|go|process)_[a-z_]+`).FindAllString(string(b), -1)
		if len(names) < 5 {
			t.Errorf("%s names %d metrics", file, len(names))
		}
		for _, name := range names {
			if !strings.Contains(text, "\n"+name+" ") && !strings.Contains(text, "\n"+name+"{") {
				t.Errorf("%s asks for %s, which does not exist", file, name)
			}
		}
	}
}

func TestEveryMetricIsOnTheDashboard(t *testing.T) {
	b, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (clouddragon_[a-z_]+)`).FindAllStringSubmatch(scrape(t, everything()), -1) {
		if !strings.Contains(string(b), m[1]) {
			t.Errorf("%s is not on the dashboard", m[1])
		}
	}
}

// TestPromtoolFindsNoFault needs promtool, which Debian has in its package prometheus.
func TestPromtoolFindsNoFault(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	run := func(stdin io.Reader, args ...string) {
		t.Helper()
		cmd := exec.Command(promtool, args...)
		cmd.Stdin = stdin
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	run(strings.NewReader(scrape(t, everything())), "check", "metrics")
	run(nil, "check", "rules", "alerts.yml")
	run(nil, "test", "rules", "testdata/alerts_test.yml")

	// The dashboard's queries, as rules, since promtool does not read dashboards.
	b, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range board.Panels {
		for _, q := range p.Targets {
			rules = append(rules, rule{"r", strings.NewReplacer("$__rate_interval", "5m").Replace(q.Expr)})
		}
	}
	if len(rules) == 0 {
		t.Fatal("the dashboard asks for nothing")
	}
	b, err = json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yml") // JSON is YAML too
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	run(nil, "check", "rules", "--lint=none", file)
}

func BenchmarkRequest(b *testing.B) {
	m := New("1", apis)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Request(sequence, "POST", 200, time.Millisecond)
		}
	})
}
