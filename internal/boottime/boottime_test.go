package boottime

import (
	"testing"
	"time"
)

func TestAlarmRingsNotBeforeItsTime(t *testing.T) {
	a, err := NewAlarm()
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{-time.Hour, 0, 5 * time.Millisecond} {
		at := Now() + after
		if err := a.Set(at + time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := a.Set(at); err != nil {
			t.Fatal(err)
		}
		<-a.C
		if now := Now(); now < at {
			t.Errorf("an alarm for %v rings at %v", at, now)
		}
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	<-a.done // its goroutine has ended
}
