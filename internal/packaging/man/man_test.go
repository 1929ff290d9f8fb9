package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../../.."

// made builds the program and returns its path and the pages.
func made(t *testing.T) (binary string, all map[string]string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "clouddragon")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=1.2.3", "-o", binary, "./cmd/clouddragon")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	all, err := pages(root, binary, "2026-11-26")
	if err != nil {
		t.Fatal(err)
	}
	return binary, all
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestPagesNameEveryCommandFlagVariableAndExitCode(t *testing.T) {
	binary, all := made(t)
	main := output(t, binary, "-help")
	page := map[string]string{"": all["clouddragon.1"], "lock": all["clouddragon-lock.1"]}
	commands := []string{""}
	for _, m := range regexp.MustCompile(`(?m)clouddragon ([a-z]+) `).FindAllStringSubmatch(main, -1) {
		commands = append(commands, m[1])
	}
	if len(commands) < 7 {
		t.Errorf("-help names %d commands, want 6 or more", len(commands)-1)
	}
	for _, c := range commands {
		help, in := main, page[c]
		if c != "" {
			help = output(t, binary, c, "-help")
		}
		if in == "" {
			_, in, _ = strings.Cut(all["clouddragon.1"], "\n.SH \"CLOUDDRAGON "+strings.ToUpper(c)+"\"\n")
			in, _, _ = strings.Cut(in, "\n.SH ")
		}
		// Each line of a list begins with its term.
		for _, m := range regexp.MustCompile(`(?m)^  (\S+(?: [A-Z]+)?)  `).FindAllStringSubmatch(help, -1) {
			if !strings.Contains(in, "\n"+bold(m[1])) {
				t.Errorf("the page does not name %q of clouddragon %s -help", m[1], c)
			}
		}
		// No word of the help text is lost.
		plain := strings.NewReplacer(`\-`, "-", `\(aq`, "'").Replace(in)
		for _, word := range strings.Fields(help) {
			if word = strings.Trim(word, ":"); word != "usage" && word != "flags" && word != "signals" && word != "environment" &&
				word != "exit" && word != "codes" && !strings.Contains(plain, word) {
				t.Errorf("the page lacks the word %q of clouddragon %s -help", word, c)
			}
		}
	}
}

// TestConfigPageNamesEveryKeyWithItsDefault compares the page with what the program
// itself prints.
func TestConfigPageNamesEveryKeyWithItsDefault(t *testing.T) {
	binary, all := made(t)
	group, found := "", 0
	for line := range strings.Lines(output(t, binary, "config", "-print")) {
		m := key.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			t.Fatalf("config -print has a line %q", line)
		}
		switch {
		case m[1] != "":
			m[2] = group + m[2]
		case m[3] == "":
			group = m[2] + "."
			continue
		}
		found++
		term := regexp.QuoteMeta(escape(m[2]+": ")) + `"?` + regexp.QuoteMeta(escape(strings.Trim(m[3], `"`))) + `"?`
		if !regexp.MustCompile(`\n\\fB` + term + `\\fR\n`).MatchString(all["clouddragon.yml.5"]) {
			t.Errorf("clouddragon.yml(5) does not name %s with its default %s", m[2], m[3])
		}
	}
	if found < 20 {
		t.Errorf("config -print has %d keys, want 20 or more", found)
	}
}

func TestManRendersThePagesWithoutAWarning(t *testing.T) {
	_, all := made(t)
	dir := t.TempDir()
	checks := 0
	for _, check := range [][]string{{"man", "--warnings", "-l"}, {"mandoc", "-T", "lint", "-W", "warning"}} {
		if _, err := exec.LookPath(check[0]); err != nil {
			t.Logf("NOT TRIED: %s is not installed", check[0])
			continue
		}
		checks++
		for name, text := range all {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var stderr strings.Builder
			cmd := exec.Command(check[0], append(check[1:], file)...)
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80")
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil || stderr.Len() > 0 || check[0] == "mandoc" && len(out) > 0 {
				t.Errorf("%v %s: %v\n%s%s", check, name, err, stderr.String(), out)
			}
		}
	}
	if checks == 0 {
		t.Skip("needs man or mandoc")
	}
}

// TestWhatAPageCannotSayIsRefused tries texts of a form that is not known.
func TestWhatAPageCannotSayIsRefused(t *testing.T) {
	for _, text := range []string{"flags:\n  -x  y\n", "usage: a b\n\nnews:\n  x  y\n"} {
		if h, err := parseHelp(text); err == nil {
			t.Errorf("%q is taken as a help: %+v", text, h)
		}
	}
	if _, err := configPage("listen\n", "2026-11-26", "x 1"); err == nil {
		t.Error("a line that is neither a comment nor a key is taken")
	}
	p := newPage("x", 1, "2026-11-26", "x 1")
	p.paragraphs(".so file\n'a' -b \\c")
	if want := "\\&.so file\n\\(aqa\\(aq \\-b \\ec\n"; !strings.HasSuffix(p.String(), want) {
		t.Errorf("text becomes %q, want %q", p.String(), want)
	}
}
