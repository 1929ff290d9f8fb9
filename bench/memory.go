package main

import (
	"fmt"
	"os"
)

// resident is what of a process is in memory, in bytes. The mapped tables are
// in all, but not in own: the kernel takes them back when it needs room.
type resident struct {
	all, own int64
}

func residentOf(pid int) (m resident, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return resident{}, err
	}
	if m.all, err = statusField(status, "VmRSS"); err != nil {
		return resident{}, err
	}
	if m.own, err = statusField(status, "RssAnon"); err != nil {
		return resident{}, err
	}
	return resident{m.all << 10, m.own << 10}, nil
}

func mib(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }
