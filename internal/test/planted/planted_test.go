package planted

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

var (
	plant = flag.String("plant", "", "plant the bugs whose names match, one at a time, and run the tests: each must be caught")
	limit = flag.Duration("limit", 3*time.Minute, "how long the tests of one package may take: with a bug they may hang")
)

// root is that of the module.
const root = "../../.."

// packages are those whose tests are run. A package comes before those that import it.
var packages = []string{
	"internal/disk", "internal/hashindex", "internal/names", "internal/logqueue", "internal/systemd", "internal/lease", "internal/archive",
	"slots", "kvlog/wal", "kvlog", "db/commit", "db/store", "db", "internal/front", "handlers", "internal/test/browser", "internal/client", "internal/job", "internal/replica", "cmd/clouddragon", "internal/test/crashtest",
}

// fewest is the least number of bugs that there have to be.
const fewest = 90

func TestEveryBugCanStillBePlanted(t *testing.T) {
	bugs, err := readBugs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	if len(bugs) < fewest {
		t.Errorf("there are %d bugs, want %d or more", len(bugs), fewest)
	}
	for _, b := range bugs {
		if _, err := b.plant(root); err != nil {
			t.Errorf("%s: %v", b.name, err)
		}
		if len(b.packages()) == 0 {
			t.Errorf("%s: no tests are run for it", b.name)
		}
	}
	for _, p := range packages {
		if !strings.HasPrefix(p, "internal/test/") && !slices.ContainsFunc(bugs, func(b bug) bool { return b.packages()[0] == p }) {
			t.Errorf("there is no bug in %s", p)
		}
	}
}

// TestEveryPlantedBugIsCaught first runs all tests without a bug: a test that fails anyway
// proves nothing when it fails with a bug.
func TestEveryPlantedBugIsCaught(t *testing.T) {
	if *plant == "" {
		t.Skip("it takes many minutes: make planted")
	}
	// A bug can make a test allocate without end: it fails before the machine does.
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: 8 << 30, Max: 8 << 30}); err != nil {
		t.Fatal(err)
	}
	match, err := regexp.Compile(*plant)
	if err != nil {
		t.Fatal(err)
	}
	all, err := readBugs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	last, err := readCaught(caughtFile)
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "bug\tcaught by\tof\tafter\n")
	planted := 0
	for _, b := range append([]bug{{name: "nothing"}}, all...) {
		if !match.MatchString(b.name) {
			continue
		}
		began := time.Now()
		by, err := b.run(t, last[b.name])
		took := time.Since(began).Round(100 * time.Millisecond)
		switch {
		case err != nil:
			t.Errorf("%s: %v", b.name, err)
		case len(b.edits) == 0 && by != caught{}:
			t.Fatalf("%s of %s fails without a bug:\n%s", by.test, by.pkg, by.output)
		case len(b.edits) == 0:
			by = caught{test: "(every test passes)", pkg: "all packages"}
		case by == caught{}:
			t.Errorf("%s is not caught: %s", b.name, b.breaks)
			delete(last, b.name)
			by = caught{test: "NOBODY", pkg: strings.Join(b.packages(), " ")}
		default:
			last[b.name] = by
		}
		planted += min(len(b.edits), 1)
		fmt.Fprintf(w, "%s\t%s\t%s\t%v\n", b.name, by.test, by.pkg, took)
		t.Logf("%s: %s of %s after %v: %s", b.name, by.test, by.pkg, took, by.says)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bugs planted\n%s", planted, table.String())
	if err := writeCaught(caughtFile, last, all); err != nil {
		t.Error(err)
	}
}

// packages returns the packages whose tests may catch the bug, the nearest one first. Without
// a bug it returns all.
func (b *bug) packages() []string {
	if len(b.edits) == 0 {
		return packages
	}
	i := slices.Index(packages, path.Dir(b.edits[0].file))
	if i < 0 {
		return nil
	}
	return packages[i:]
}

// run runs the tests with the bug in place, one package after the other, until one fails. It
// begins with only the test that caught the bug last: usually no other has to run.
func (b *bug) run(t *testing.T, last caught) (caught, error) {
	files, err := b.plant(root)
	if err != nil {
		return caught{}, err
	}
	overlay, err := writeOverlay(t.TempDir(), files)
	if err != nil {
		return caught{}, err
	}
	if slices.Contains(b.packages(), last.pkg) {
		by, err := runTests(last.pkg, overlay, "^"+last.name()+"$")
		if err != nil || by != (caught{}) {
			return by, err
		}
	}
	for _, p := range b.packages() {
		by, err := runTests(p, overlay, ".")
		if err != nil || by != (caught{}) {
			return by, err
		}
	}
	return caught{}, nil
}

// writeOverlay writes the files to dir, and next to them the overlay file for the go command.
func writeOverlay(dir string, files map[string]string) (name string, err error) {
	replace := map[string]string{}
	for file, text := range files {
		was, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			return "", err
		}
		replace[was] = filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(replace[was], []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name = filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, text, 0o600)
}

var (
	failedTest  = regexp.MustCompile(`(?m)^\s*--- FAIL: ([^\s/]+)`)
	startedTest = regexp.MustCompile(`(?m)^=== (?:RUN|CONT|NAME)\s+([^\s/]+)`)
	complaint   = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: .*`)
	hungTest    = regexp.MustCompile(`(?m)^panic: test timed out after .*\n\s+running tests:\n\s+(\S+)`)
	crashed     = regexp.MustCompile(`(?m)^(?:panic|fatal error): `)
)

// runTests runs the tests of one package whose names match. It returns an error if they could
// not be run.
func runTests(pkg, overlay, match string) (caught, error) {
	cmd := exec.Command("go", "test", "-v", "-run", match, "-failfast", "-count=1", "-vet=off", "-timeout", limit.String(), "./"+pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(),
		// In the environment, the overlay also holds for the programs that a test builds.
		"GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay),
		// Otherwise rapid writes files about failures into the tree.
		"RAPID_NOFAILFILE=1")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return caught{}, nil
	}
	by := caught{pkg: pkg, output: string(out)}
	if m := failedTest.FindSubmatchIndex(out); m != nil {
		by.test = string(out[m[2]:m[3]])
		_, of, _ := bytes.Cut(out, []byte("=== RUN   "+by.test+"\n"))
		by.says = strings.TrimSpace(string(complaint.Find(of)))
		return by, nil
	}
	if m := hungTest.FindSubmatch(out); m != nil {
		by.test = string(m[1]) + " (hangs)"
		return by, nil
	}
	// A panic outside of the test's own goroutine names no test.
	if m := startedTest.FindAllSubmatch(out, -1); m != nil && crashed.Match(out) {
		by.test = string(m[len(m)-1][1]) + " (panic)"
		return by, nil
	}
	return caught{}, fmt.Errorf("the tests of %s do not fail, they cannot be run: %w\n%s", pkg, err, out)
}
