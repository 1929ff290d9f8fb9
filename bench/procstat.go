package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// usage is what a process has used since it started.
type usage struct {
	cpu      time.Duration // in the process and in the kernel for it
	switches int64         // context switches of its threads
}

// tick is the unit of CPU time in /proc, the same on every Linux.
const tick = 10 * time.Millisecond

// usageOf reads /proc. A thread that has ended counts for cpu only.
func usageOf(pid int) (usage, error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return usage{}, err
	}
	u, err := parseStat(stat)
	if err != nil {
		return usage{}, err
	}
	threads, err := filepath.Glob(dir + "task/*/status")
	if err != nil {
		return usage{}, err
	}
	for _, t := range threads {
		status, err := os.ReadFile(t)
		if err != nil {
			continue // the thread has ended since
		}
		for _, name := range []string{"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"} {
			n, err := statusField(status, name)
			if err != nil {
				return usage{}, fmt.Errorf("%s: %w", t, err)
			}
			u.switches += n
		}
	}
	return u, nil
}

// parseStat reads utime and stime, the fields 14 and 15 of
// /proc/PID/stat. The second is the program's name and may hold anything.
func parseStat(stat []byte) (usage, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from the third on
	var cpu int64
	for _, field := range []int{14, 15} {
		if field-3 >= len(fields) {
			return usage{}, fmt.Errorf("/proc/PID/stat has no field %d: %q", field, stat)
		}
		n, err := strconv.ParseInt(string(fields[field-3]), 10, 64)
		if err != nil {
			return usage{}, fmt.Errorf("/proc/PID/stat, field %d: %w", field, err)
		}
		cpu += n
	}
	return usage{cpu: time.Duration(cpu) * tick}, nil
}

// statusField reads a number out of /proc/PID/status; memory is in kB there.
func statusField(status []byte, name string) (int64, error) {
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			return strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(value), []byte("kB")))), 10, 64)
		}
	}
	return 0, fmt.Errorf("there is no %s", name)
}

// catches says whether a process has a handler for a signal.
func catches(pid int, sig syscall.Signal) (bool, error) {
	file := fmt.Sprintf("/proc/%d/status", pid)
	mask, err := strconv.ParseUint(field(file, "SigCgt"), 16, 64)
	if err != nil {
		return false, fmt.Errorf("%s, SigCgt: %w", file, err)
	}
	return mask>>(sig-1)&1 != 0, nil
}
