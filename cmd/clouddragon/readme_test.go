package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestReadmeIsTrue runs every shell line of the README. make is only asked what it would do.
// The other lines are sent to a server of the test, and have to print what the comment at
// their end says. In the comment "…" stands for anything, and text in parentheses is for the
// reader.
func TestReadmeIsTrue(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	readme, ran := runBlocks(t, "../../README.md")
	if ran < 6 {
		t.Errorf("the README has %d blocks of calls, want the first screen and one for each API", ran)
	}
	first, _, _ := strings.Cut(readme, "\n## ")
	for _, line := range []string{"make run\n", "make test\n", "curl -X POST localhost:8081/db/1/sequence/a    # 1\n", "curl -X POST localhost:8081/db/1/sequence/a    # 2\n"} {
		if !strings.Contains(first, line) {
			t.Errorf("the first screen has no line %q", line)
		}
	}
}

// TestApiDocIsTrue runs the examples of docs/api.md.
func TestApiDocIsTrue(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}
	if _, ran := runBlocks(t, "../../docs/api.md"); ran == 0 {
		t.Error("docs/api.md has no block of calls")
	}
}

// runBlocks runs the shell blocks of a document and compares what they print. It
// returns the document and how many blocks sent requests to a server.
func runBlocks(t *testing.T, file string) (text string, ran int) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "job.sh"), []byte("#!/bin/sh\n[ \"$CLOUDDRAGON_LOCK_TOKEN\" -gt 0 ]\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, m := range shellBlock.FindAllStringSubmatch(string(b), -1) {
		script := m[1]
		if target, ok := strings.CutPrefix(script, "make "); ok {
			shell(t, "../..", "make -n "+target)
			continue
		}
		got := shell(t, dir, strings.ReplaceAll(script, "localhost:8081", p.addr), "CLOUDDRAGON_SERVER=http://"+p.addr)
		if pattern := printed(script); !regexp.MustCompile("^" + pattern + "$").MatchString(got) {
			t.Errorf("%s\nprints:\n%s\nwant:\n%s", script, got, pattern)
		}
		ran++
	}
	p.stop()
	return string(b), ran
}

// shell runs a script and returns what it printed.
func shell(t *testing.T, dir, script string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "no_proxy=*", "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH")), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s\n%v: %s%s", script, err, out, stderr.String())
	}
	return string(out)
}

// printed returns a pattern for the output that the comments of a script promise.
func printed(script string) string {
	var want strings.Builder
	for line := range strings.Lines(script) {
		_, comment, _ := strings.Cut(strings.TrimSpace(line), " # ")
		comment, _, _ = strings.Cut(comment, " (")
		if comment == "" || strings.HasPrefix(comment, "(") {
			continue
		}
		want.WriteString(strings.ReplaceAll(regexp.QuoteMeta(comment), "…", ".+") + "\n")
	}
	return want.String()
}
