package crashtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// steppable is the value of sandboxVariable if the wall clock of the servers can be stepped.
const steppable = "steppable"

// buildSteppable builds the program so that it adds the contents of a file to each reading of
// the wall clock.
func buildSteppable(t *testing.T) string {
	t.Helper()
	source, err := filepath.Abs("../../../db/commit/clock.go")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const reading = "time.Now().UnixNano()"
	text := string(b)
	if strings.Count(text, reading) != 1 {
		t.Fatalf("%s does not read the wall clock once, as %s", source, reading)
	}
	text = strings.Replace(text, reading, reading+" + step()", 1)
	text = strings.Replace(text, "import (\n", "import (\n\t\"os\"\n\t\"strconv\"\n", 1)
	text += `
func step() int64 {
	b, err := os.ReadFile(os.Getenv("` + stepVariable + `"))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}
`
	dir := t.TempDir()
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: filepath.Join(dir, "clock.go")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"clock.go": text, "overlay.json": string(overlay)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "clouddragon")
	if err := build(program, "-overlay", filepath.Join(dir, "overlay.json")); err != nil {
		t.Fatal(err)
	}
	return program
}

// setClock makes the wall clock of a server wrong by the given time.
func (s *netServer) setClock(t *testing.T, by time.Duration) {
	t.Helper()
	next := s.setup.step + ".next"
	if err := os.WriteFile(next, []byte(strconv.FormatInt(int64(by), 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, s.setup.step); err != nil {
		t.Fatal(err)
	}
}
