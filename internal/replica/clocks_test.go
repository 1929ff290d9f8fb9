package replica

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestClocksThatDifferAreTold(t *testing.T) {
	r := followed(t)
	var log bytes.Buffer
	r.sb.o.Log = slog.New(slog.NewTextHandler(&log, nil))
	beats := func(n int, ahead time.Duration) {
		t.Helper()
		for range n {
			if code, line := r.beat(beatRequest{Epoch: 1, Answered: r.sb.f.End(), Wall: time.Now().Add(-ahead).UnixNano()}); code != 200 {
				t.Fatalf("beat: %d %s", code, line)
			}
		}
	}
	near := func(want time.Duration) {
		t.Helper()
		if got := r.sb.Status().ClockSkew; got < want.Seconds() || got > want.Seconds()+patience.Seconds() {
			t.Errorf("the clock is told to be ahead by %v s, want about %v", got, want)
		}
	}
	beats(1, 0)
	// A beat that took long to arrive says nothing about the clock.
	beats(skewSamples-1, 10*time.Second)
	if got := r.sb.Status().ClockSkew; got >= maxSkew.Seconds() || log.Len() > 0 {
		t.Errorf("a slow beat is taken for a clock that is ahead by %v s: %s", got, log.String())
	}
	beats(skewSamples, 10*time.Second)
	near(10 * time.Second)
	beats(1, -4*time.Second)
	near(-4 * time.Second)
	if n := strings.Count(log.String(), "clocks of the two servers differ"); n != 1 {
		t.Errorf("told %d times that the clocks differ, want once:\n%s", n, log.String())
	}
	beats(skewSamples, 0)
	if !strings.Contains(log.String(), "agree again") {
		t.Errorf("not told that the clocks agree again:\n%s", log.String())
	}
	if r.beat(beatRequest{Epoch: 1, Answered: r.sb.f.End()}); r.sb.Status().ClockSkew < 0 {
		t.Error("the beat of a primary that does not tell its clock counts")
	}
}
