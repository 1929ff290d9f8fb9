package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// helps lists the commands, each with the environment variables that it reads and its exit
// codes.
var helps = []struct {
	args        []string
	environment []string
	exits       []string
}{
	{nil, []string{"CLOUDDRAGON_TOKEN", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"}, []string{"0", "1", "64", "78"}},
	{[]string{"lock"}, []string{"CLOUDDRAGON_SERVER", "CLOUDDRAGON_TOKEN"}, []string{"64", "69", "75", "77", "126", "127"}},
	{[]string{"status"}, []string{"CLOUDDRAGON_SERVER", "CLOUDDRAGON_TOKEN"}, []string{"0", "1", "64", "69", "77"}},
	{[]string{"backup"}, []string{"CLOUDDRAGON_SERVER", "CLOUDDRAGON_TOKEN"}, []string{"0", "1", "64", "69", "77"}},
	{[]string{"restore"}, []string{"none"}, []string{"0", "1", "64"}},
	{[]string{"verify"}, []string{"none"}, []string{"0", "1", "64"}},
	{[]string{"move"}, []string{"CLOUDDRAGON_TOKEN"}, []string{"0", "1", "64", "69", "77"}},
	{[]string{"promote"}, []string{"CLOUDDRAGON_SERVER", "CLOUDDRAGON_TOKEN"}, []string{"0", "1", "64", "69", "75", "77"}},
	{[]string{"config"}, []string{"CLOUDDRAGON_TOKEN"}, []string{"0", "1", "64", "78"}},
}

// section returns the first words of the entries in a section of a help text.
func section(help, name string) (words []string) {
	_, rest, _ := strings.Cut(help, "\n"+name+":")
	lines := strings.Split(rest, "\n")
	for _, line := range lines[1:] {
		if !strings.HasPrefix(line, "  ") {
			break
		}
		if line[2] != ' ' {
			words = append(words, strings.Fields(line)[0])
		}
	}
	return words
}

// flagsInSource returns the flags that each command registers, by the name of the command that
// its function passes to newFlags.
func flagsInSource(t *testing.T) map[string][]string {
	t.Helper()
	command := regexp.MustCompile(`(?s)newFlags\("([\w ]+)"\)(.*?)\bparse\(`)
	name := regexp.MustCompile(`\b(?:flags\.\w+\((?:&[\w.]+, )?|durationFlag\(flags, &[\w.]+, )"([\w-]+)"`)
	found := map[string][]string{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, c := range command.FindAllSubmatch(src, -1) {
			flags := []string{"-help"}
			for _, m := range name.FindAllSubmatch(c[2], -1) {
				flags = append(flags, "-"+string(m[1]))
			}
			if bytes.Contains(c[2], []byte(".register(flags)")) {
				flags = append(flags, "-server", "-token-file")
			}
			found[string(c[1])] = flags
		}
	}
	return found
}

func TestHelpNamesFlagsEnvironmentAndExitCodes(t *testing.T) {
	source := flagsInSource(t)
	if len(source) != len(helps) {
		t.Errorf("%d commands make flags, %d are known here", len(source), len(helps))
	}
	for _, h := range helps {
		var stdout, stderr bytes.Buffer
		code := run(append(slices.Clone(h.args), "-help"), &stdout, &stderr)
		help := stdout.String()
		name := strings.Join(append([]string{"clouddragon"}, h.args...), " ")
		if code != exitOK || stderr.Len() > 0 || !strings.HasPrefix(help, "usage: "+name+" ") {
			t.Errorf("%s -help: exit %d, stderr %q, stdout %q", name, code, stderr.String(), help)
		}
		for _, c := range []struct {
			section string
			want    []string
		}{{"flags", source[name]}, {"environment", h.environment}, {"exit codes", h.exits}} {
			got := section(help, c.section)
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("%s -help: the section %q has %q, want %q", name, c.section, got, c.want)
			}
		}
		for line := range strings.Lines(help) {
			if len(line) > 100 || strings.Contains(line, "\t") {
				t.Errorf("%s -help: a line is too long or has a tab: %q", name, line)
			}
		}
		if len(h.args) > 0 && !strings.Contains(usage, "\n       "+name+" ") {
			t.Errorf("clouddragon -help does not name %s", name)
		}
		stdout.Reset()
		code = run(append(slices.Clone(h.args), "-no-such-flag"), &stdout, &stderr)
		want := name + ": flag provided but not defined: -no-such-flag: see " + name + " -help\n"
		if code != exitUsage || stdout.Len() > 0 || stderr.String() != want {
			t.Errorf("%s with a wrong flag: exit %d, stdout %q, stderr %q", name, code, stdout.String(), stderr.String())
		}
	}
}
