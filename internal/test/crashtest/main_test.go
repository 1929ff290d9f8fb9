package crashtest

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var (
	binary = flag.String("binary", "", "the program to test; without it, it is built")
	seed   = flag.Uint64("seed", 0, "what the choices follow from; 0: another one each time")
	rounds = flag.Int("rounds", 10, "how often the server is killed")
	cuts   = flag.Int("cuts", 50, "how often the power is cut")
	only   = flag.String("fault", "", "the only faults of a cluster in a network: 'kill,full disk' and so on")
	ops    = flag.Int("ops", 6000, "operations whose history is checked for linearizability")
)

func TestMain(m *testing.M) {
	// Most tests wait for other processes and for the disk, so several run at once. -parallel overrides it.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	flag.BoolVar(&withFront, "front", true, "whether the server has event loops in front of net/http")
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	os.Exit(run(m))
}

// built is whether the program is the one of this tree.
var built bool

func run(m *testing.M) int {
	clearStale()
	if *binary != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "clouddragon-binary-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*binary, built = filepath.Join(dir, "clouddragon"), true
	if err := build(*binary); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		return 1
	}
	return m.Run()
}

// build builds the program, with further arguments of go build.
func build(to string, further ...string) error {
	args := append([]string{"build", "-o", to}, further...)
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "clouddragon/cmd/clouddragon")...)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// The go command keeps a test's result for as long as what the test imports and
// the files it looks at are the same. The program is not imported, so its files are looked at.
func TestResultHangsOnTheProgram(t *testing.T) {
	sources := 0
	err := filepath.WalkDir("../../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "bin" || d.Name() == ".git"):
			return fs.SkipDir
		case filepath.Ext(path) == ".go":
			sources++
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil || sources < 100 {
		t.Errorf("looked at %d sources, %v; want all", sources, err)
	}
}

// begin names the seed, and with what the test is repeated.
func begin(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat it with: go test ./internal/test/crashtest -run '^%s$' -args -seed %d", t.Name(), *seed)
		}
	})
}

// atMost lowers a size where everything is slow.
func atMost(n, withRace int) int {
	if raceEnabled {
		return min(n, withRace)
	}
	return n
}
