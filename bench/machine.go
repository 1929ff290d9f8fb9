package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// fact is something to know of the run that was measured.
type fact struct{ name, value string }

// machine tells where it was measured. What cannot be found out is "unknown".
func machine(dir, server string) []fact {
	facts := []fact{
		{"when", time.Now().UTC().Format("2006-01-02 15:04 UTC")},
		{"commit", firstLine("git", "describe", "--always", "--dirty", "--tags")},
		{"server", firstLine(server, "-version")},
		{"machine", fmt.Sprintf("%d × %s, %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"))},
		{"kernel", firstLine("uname", "-sr")},
		{"file system", strings.Join(strings.Fields(lastLine("df", "--output=source,fstype", dir)), " ")},
		{"load average at the start", fileLine("/proc/loadavg")},
		{"load generators", firstLine("wrk", "-v") + "; " + firstLine("redis-benchmark", "--version")},
	}
	for _, peer := range []string{"redis-server", "etcd"} {
		if _, err := exec.LookPath(peer); err == nil {
			facts = append(facts, fact{peer, firstLine(peer, "--version")})
		}
	}
	return facts
}

const unknown = "unknown"

func firstLine(name string, args ...string) string { return outputLines(name, args...)[0] }

func lastLine(name string, args ...string) string {
	lines := outputLines(name, args...)
	return lines[len(lines)-1]
}

// outputLines is what a program says, whatever its exit code: wrk -v has 1.
func outputLines(name string, args ...string) []string {
	out, err := exec.Command(name, args...).Output()
	if len(bytes.TrimSpace(out)) == 0 && err != nil {
		return []string{unknown}
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// field is the value behind the first "name:" in a file of /proc.
func field(file, name string) string {
	text, _ := os.ReadFile(file) // unreadable: unknown
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return unknown
}

func fileLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return unknown
	}
	return strings.TrimSpace(string(text))
}
