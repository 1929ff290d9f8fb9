package house

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	newFile    = regexp.MustCompile("(?s)```go\n// (\\S+)\n(.*?)```")
	insertions = regexp.MustCompile("(?s)```diff\n(\\S+)\n(.*?)```")
)

// TestAddingAnAPIWorks builds the example of docs/adding-an-api.md into the server
// and runs its test.
func TestAddingAnAPIWorks(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "docs/adding-an-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, m := range newFile.FindAllStringSubmatch(string(b), -1) {
		files[m[1]] = m[2]
	}
	m := insertions.FindStringSubmatch(string(b))
	if len(files) != 3 || m == nil {
		t.Fatalf("docs/adding-an-api.md has %d new files, want 3, and lines to insert", len(files))
	}
	text, err := os.ReadFile(filepath.Join(root, m[1]))
	if err != nil {
		t.Fatal(err)
	}
	files[m[1]] = insert(t, m[1], string(text), m[2])
	cmd := exec.Command("go", "test", "-count=1", "-overlay="+writeOverlay(t, files), "-v", "-run", "^TestPeak", "./handlers")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestPeak") {
		t.Errorf("the example does not work: %v\n%s", err, out)
	}
}

// writeOverlay writes an overlay for the go command: files that replace those of the tree or
// are added to them.
func writeOverlay(t *testing.T, files map[string]string) (name string) {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for file, text := range files {
		was, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		replace[was] = filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(replace[was], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	name = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// insert puts the lines that begin with + before the first line of the file that begins like
// the line after them.
func insert(t *testing.T, file, text, lines string) string {
	t.Helper()
	var add string
	for line := range strings.Lines(lines) {
		if line[0] == '+' {
			add += line[1:]
			continue
		}
		want := strings.TrimSpace(line)
		var out strings.Builder
		found := false
		for have := range strings.Lines(text) {
			if !found && strings.HasPrefix(strings.TrimSpace(have), want) {
				found = true
				out.WriteString(add)
			}
			out.WriteString(have)
		}
		if !found {
			t.Fatalf("%s has no line that begins with %q", file, want)
		}
		text, add = out.String(), ""
	}
	return text
}
