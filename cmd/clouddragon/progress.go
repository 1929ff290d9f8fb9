package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// progress is the progress of a long task. On a terminal it is shown in one line, which is
// updated twice a second.
type progress struct {
	done, total atomic.Int64 // bytes; a total of 0 is unknown

	// Used by the goroutine that reports.
	terminal io.Writer // nil: there is no terminal
	now      func() time.Time
	began    time.Time
	shown    time.Time
	width    int // of the line on the terminal
}

// lineEvery is how often the line is updated.
const lineEvery = time.Second / 2

// newProgress returns a progress that is shown if stderr is a terminal.
func newProgress(stderr io.Writer) *progress {
	p := &progress{now: time.Now, began: time.Now()}
	if isTerminal(os.Stderr) {
		p.terminal = stderr
	}
	return p
}

// report is a store.Progress.
func (p *progress) report(done, total int64) {
	p.done.Store(done)
	p.total.Store(total)
	if p.terminal == nil {
		return
	}
	if now := p.now(); now.Sub(p.shown) >= lineEvery {
		p.shown = now
		p.write(p.line(now.Sub(p.began)))
	}
}

// String returns the progress in words.
func (p *progress) String() string {
	done, total := p.done.Load(), p.total.Load()
	if total == 0 {
		return inMiB(done)
	}
	return fmt.Sprintf("%d%% of %s", percent(done, total), inMiB(total))
}

// line returns the line for the terminal after a time.
func (p *progress) line(after time.Duration) string {
	rate := float64(p.done.Load()) / max(after.Seconds(), 1e-3)
	return fmt.Sprintf("%s, %s/s", p, inMiB(int64(rate)))
}

// write replaces the line on the terminal.
func (p *progress) write(line string) {
	fmt.Fprintf(p.terminal, "\r%s%s", line, strings.Repeat(" ", max(0, p.width-len(line))))
	p.width = len(line)
}

// clear removes the line before something else is written to the terminal.
func (p *progress) clear() {
	if p.width > 0 {
		p.write("")
		fmt.Fprint(p.terminal, "\r")
	}
}

// percent returns at most 100, because the total may be an estimate.
func percent(done, total int64) int { return min(100, int(float64(done)/float64(total)*100)) }

func inMiB(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
