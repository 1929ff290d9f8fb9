package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func testSweep() *sweep {
	s := newSweep("connections", thousands, 4, "What was asked <for>.", ours, redis)
	s.columns = []string{"start"}
	for _, rate := range []float64{900, 1000, 1100} {
		s.addRate(1, ours, rate)
		s.addRate(64, ours, 40*rate)
		s.addRate(64, redis, 50*rate)
	}
	s.memory[swept{64, ours}] = 20 << 20
	s.more[1], s.more[64] = []string{"0.50 s"}, []string{"1.00 s"}
	return s
}

func TestSweepHoldsEachPlaceAgainstItsPeer(t *testing.T) {
	var b strings.Builder
	testSweep().write(&b)
	for _, want := range []string{
		"## Connections\n\n| connections | clouddragon | Redis | clouddragon of Redis | memory of clouddragon | start |\n",
		"| 1 | 1,000 (900–1,100) | – | – | – | 0.50 s |\n",
		"| 64 | 40,000 (36,000–44,000) | 50,000 (45,000–55,000) | **0.80** (0.80–0.80) | 20 MiB | 1.00 s |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in:\n%s", want, b.String())
		}
	}
}

func TestPanelsShowWhatWasTaken(t *testing.T) {
	s := testSweep()
	p := s.throughput()
	if want := []point{{1, 1000}, {64, 40_000}}; !slices.Equal(p.curves[0].points, want) || p.yBase != 10 {
		t.Errorf("got %v on base %v, want %v on 10", p.curves[0].points, p.yBase, want)
	}
	if want := []point{{64, 50_000}}; !slices.Equal(p.curves[1].points, want) {
		t.Errorf("got %v, want %v", p.curves[1].points, want)
	}
	if m := s.inMemory(); !slices.Equal(m.curves[0].points, []point{{64, 20}}) || len(m.curves[1].points) > 0 || m.yBase != 0 {
		t.Errorf("got %v on base %v", m.curves, m.yBase)
	}
}

func TestPictureIsWellFormedAndNamesAll(t *testing.T) {
	s := testSweep()
	text := picture([]panel{s.throughput(), s.inMemory(), {title: "a < b & c", xLabel: short, yLabel: short}})
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
	}
	for _, want := range []string{"Throughput over connections", "Memory over connections", ">clouddragon<", ">Redis<", ">10k<", "a &lt; b &amp; c"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Errorf("a place that is no number in:\n%s", text)
	}
}

func TestNamesInALegendStandApart(t *testing.T) {
	long := panel{curves: []curve{{name: "kv set 64 B"}, {name: "sequence POST"}, {name: "Redis SET 64 B"}}}
	at := long.legend()
	for i, c := range long.curves {
		end := at[i] + 7 + charWidth*float64(len(c.name))
		if i+1 < len(at) && end > at[i+1]-3.5 || end > cellWidth {
			t.Errorf("%q ends at %.0f; the names start at %.0f in a cell of %d", c.name, end, at, cellWidth)
		}
	}
}

func TestLongRunKeepsItsNotes(t *testing.T) {
	dir := t.TempDir()
	const mine = "\n## Notes\n\nMind the bend.\n"
	if err := os.WriteFile(filepath.Join(dir, curvesFile), []byte("# old\n"+mine), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &long{options: options{seconds: time.Second}, sweeps: []*sweep{testSweep()},
		ram:     []keyMemory{{what: kvSet, ids: 1_000_000, heap: 9 << 20, bytes: 10.96}, {what: redisSet, ids: 1_000_000}},
		starts:  []startTime{{kvSet, "after kill -9", 1_000_000, 1500 * time.Millisecond}},
		written: []amplification{{row: &row{ids: 7, value: 64}, values: 100, written: 250, compactions: 3}},
	}
	if err := l.save(dir, l.markdown()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, curvesFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		mine, "![Throughput](throughput.svg)",
		"| 1,000,000 | kv set 64 B | 0 MiB | 0 MiB | 9 MiB | 11.0 |\n",
		"| 1,000,000 | Redis SET 64 B | 0 MiB | 0 MiB | – | 0.0 |\n",
		"| 1,000,000 | kv set 64 B | after kill -9 | 1.50 s |\n",
		"| 64 B | 7 | 0 | 2.50 | 0 MiB | 0 MiB | 3 | – |\n",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	for _, name := range []string{throughputFile, memoryFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestIDsGrowByTensToTheMost(t *testing.T) {
	for most, want := range map[int][]int{
		1:          {1},
		500:        {1, 500},
		10_000:     {1, 1000, 10_000},
		10_000_000: {1, 1000, 10_000, 100_000, 1_000_000, 10_000_000},
	} {
		if got := idSteps(most); !slices.Equal(got, want) {
			t.Errorf("to %d: got %v, want %v", most, got, want)
		}
	}
}

func TestMetricIsFoundByItsWholeName(t *testing.T) {
	text := []byte("# HELP keys what\nkeys_old 7\nkeys 1.5e+06\n")
	if got, err := parseMetric(text, "keys"); got != 1_500_000 || err != nil {
		t.Errorf("got %v, %v; want 1500000", got, err)
	}
	if _, err := parseMetric(text, "key"); err == nil {
		t.Error("a metric that is not there is found")
	}
}

func TestBytesWrittenAreThoseOfTheDisk(t *testing.T) {
	text := []byte("   7       0 loop0 1 2 3 4 5 6 7 8 9 10 11\n" +
		" 254       1 vda1 1 2 3 4 5 6 77 8 9 10 11\n 254       0 vda 10 20 30 40 50 60 70 80 90 100 110\n")
	if got, err := parseDiskstats(text, 254, 0); got != 70*512 || err != nil {
		t.Errorf("got %d, %v; want %d", got, err, 70*512)
	}
	if _, err := parseDiskstats(text, 0, 31); !errors.Is(err, errNoDisk) {
		t.Errorf("got %v, want %v", err, errNoDisk)
	}
}
