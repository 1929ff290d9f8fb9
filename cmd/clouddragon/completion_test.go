package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCompletionOffersCommandsFlagsAndFiles asks bash for its completions.
func TestCompletionOffersCommandsFlagsAndFiles(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash")
	}
	script, err := filepath.Abs("../../internal/packaging/clouddragon.bash")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"my config.yml", "dir/a.tar"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	offer := func(words ...string) []string {
		const ask = `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _clouddragon; printf '%s\n' "${COMPREPLY[@]}"`
		cmd := exec.Command("bash", append([]string{"-c", ask, "bash", script, "clouddragon"}, words...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
		b, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v", words, err)
		}
		offered := strings.Split(strings.Trim(string(b), "\n"), "\n")
		slices.Sort(offered)
		return offered
	}
	for _, c := range []struct {
		words []string // the last one is being typed
		want  string
	}{
		{[]string{""}, "backup config lock move promote restore status verify"},
		{[]string{"st"}, "status"},
		{[]string{"-"}, "-config -help -version"},
		{[]string{"-config", "my"}, "my config.yml"},
		{[]string{"-config", "d"}, "dir"},
		{[]string{"config", "-p"}, "-print"},
		{[]string{"config", "-check", ""}, "dir my config.yml"},
		{[]string{"status", "-a"}, "-account"},
		{[]string{"status", "-account", ""}, ""},
		{[]string{"backup", "-o", "dir/"}, "dir/a.tar"},
		{[]string{"restore", "-data", ""}, "dir"},
		{[]string{"restore", "-data", "x", "dir/"}, "dir/a.tar"},
		{[]string{"verify", ""}, "dir"},
		{[]string{"lock", "-token-f"}, "-token-file"},
		{[]string{"lock", "-shared", ""}, ""},
		{[]string{"lock", "-wait", "60s", "name", "bas"}, "bash"},
		{[]string{"lock", "name", "cat", "my"}, "my config.yml"},
		{[]string{"lock", "name", "cat", "-"}, ""},
	} {
		got := offer(c.words...)
		if c.want == "bash" {
			if !slices.Contains(got, "bash") {
				t.Errorf("for %q bash does not offer the command bash, but %q", c.words, got)
			}
		} else if strings.Join(got, " ") != c.want {
			t.Errorf("for %q bash offers %q, want %q", c.words, got, c.want)
		}
	}
}
