package main

import (
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Every row that can load a server in this process gets no refusals and returns all of its
// figures.
func TestRowsLoadTheServer(t *testing.T) {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	server := &target{name: ours, speak: "http", addr: serveInProcess(t), process: &process{cmd: &exec.Cmd{Process: self}}}
	o := options{ids: 20, keys: 20, seconds: time.Millisecond}
	if err := fill(t.Context(), server, o.ids); err != nil {
		t.Fatal(err)
	}
	all := append(rows(o), letIn(3), told(3))
	measured := 0
	for _, r := range all {
		// The last three start processes.
		if r.conns > 64 || strings.HasPrefix(r.name, "replica:") || strings.HasPrefix(r.name, "clouddragon lock:") || strings.Contains(r.name, "backup") {
			continue
		}
		figures, err := r.measure(t.Context(), &bench{options: o}, server)
		if err != nil || len(figures) != len(r.figures) {
			t.Errorf("%s: %v, %v; want %d figures", r.name, figures, err, len(r.figures))
			continue
		}
		for i, x := range figures {
			if !(x > 0) || math.IsInf(x, 0) {
				t.Errorf("%s: %s is %v", r.name, r.figures[i].name, x)
			}
		}
		measured++
	}
	if measured < len(all)/2 {
		t.Errorf("only %d of %d rows were measured", measured, len(all))
	}
}
