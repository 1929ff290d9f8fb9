package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testResults() *results {
	r := newResults(options{seconds: time.Second}, []fact{{"kernel", "Linux 1.2"}})
	one, kv := &row{name: "one", conns: []int{64}, method: "POST", ids: 1}, &row{name: "values", conns: []int{64}, api: "kv"}
	r.rows = []*row{one, kv}
	r.notServed[kv] = errors.New("404: no such route")
	r.samples[measured{one, 64, ours}] = []sample{{rate: 9000, p50: time.Millisecond}, {rate: 900}}
	r.samples[measured{one, 64, empty}] = []sample{{rate: 10000}, {rate: 1000}}
	r.samples[measured{kv, 64, empty}] = []sample{{rate: 5000}, {rate: 5000}}
	return &r
}

func TestTablesSayWhatIsNotServed(t *testing.T) {
	text := testResults().markdown()
	for _, want := range []string{
		"- kernel: Linux 1.2\n",
		"| one | 64 | 4,950 (900–9,000) | 5,500 (1,000–10,000) | **0.90** (0.90–0.90) | – | – | – |\n",
		"| values | 64 | not served (404: no such route) | 5,000 (5,000–5,000) | – | – | – | – |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "NaN") {
		t.Errorf("a figure that was not taken is shown:\n%s", text)
	}
}

func TestNotesAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	const mine = "\n## Notes\n\nA larger batch did not help.\n"
	if err := os.WriteFile(file, []byte("# Results\n\nold figures\n"+mine), 0o600); err != nil {
		t.Fatal(err)
	}
	r := testResults()
	for range 2 {
		if err := r.save(file); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := r.markdown() + mine; string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for x, want := range map[float64]string{0: none, math.NaN(): none, 7: "7", 592.4: "592", 48149: "48,100", 1234567: "1,230,000"} {
		if got := number(x); got != want {
			t.Errorf("number(%v) = %q, want %q", x, got, want)
		}
	}
}
