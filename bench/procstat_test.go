package main

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

func TestStatOfAProgramWithAHostileName(t *testing.T) {
	stat := "4711 (a) R 1 (b) S 1 4711 4711 0 -1 4194560 2000 0 0 0 150 25 0 0 20 0 9 0 1000 1300000000 300 18446744073709551615 1\n"
	got, err := parseStat([]byte(stat))
	if err != nil {
		t.Fatal(err)
	}
	if want := (usage{cpu: 1750 * time.Millisecond}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := parseStat([]byte("4711 (a) S 1 2 3\n")); err == nil {
		t.Error("a line that is cut short is taken")
	}
}

func TestVoluntarySwitchesAreNotTheOthers(t *testing.T) {
	status := []byte("Name:\tx\nnonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t42\n")
	for name, want := range map[string]int64{"voluntary_ctxt_switches": 42, "nonvoluntary_ctxt_switches": 7} {
		if got, err := statusField(status, name); got != want || err != nil {
			t.Errorf("%s = %d, %v; want %d", name, got, err, want)
		}
	}
	if _, err := statusField(status, "ctxt_switches"); err == nil {
		t.Error("a field that is not there is found")
	}
}

func TestMemoryIsReadInBytes(t *testing.T) {
	if n, err := statusField([]byte("VmRSS:\t   12345 kB\n"), "VmRSS"); n != 12345 || err != nil {
		t.Errorf("got %d, %v; want 12345", n, err)
	}
	m, err := residentOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if m.own < 1<<20 || m.all < m.own || m.all > 1<<40 {
		t.Errorf("this process has %+v in memory", m)
	}
	if u, err := usageOf(os.Getpid()); err != nil || u.switches == 0 {
		t.Errorf("this process has used %+v, %v", u, err)
	}
}

func TestCaughtSignalIsSeen(t *testing.T) {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1)
	defer signal.Stop(caught)
	if got, err := catches(os.Getpid(), syscall.SIGUSR1); !got || err != nil {
		t.Errorf("SIGUSR1: %v, %v; want true", got, err)
	}
	if got, err := catches(os.Getpid(), syscall.SIGKILL); got || err != nil {
		t.Errorf("SIGKILL: %v, %v; want false", got, err)
	}
}
