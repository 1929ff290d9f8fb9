package planted

import (
	"fmt"
	"os"
	"strings"
)

// caughtFile names the test that caught each bug last: a line has the bug, the package and the
// test. It only saves time: if that test no longer catches the bug, all tests are run.
const caughtFile = "testdata/caught.txt"

// caught is the test that failed first. Its zero value means that none failed.
type caught struct{ test, pkg, says, output string }

// name returns the test's name without the way it failed, as in "TestX (hangs)".
func (c caught) name() string {
	name, _, _ := strings.Cut(c.test, " ")
	return name
}

func readCaught(name string) (map[string]caught, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	by := map[string]caught{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("%s: want a bug, a package and a test, not %q", name, line)
		}
		by[f[0]] = caught{pkg: f[1], test: f[2]}
	}
	return by, nil
}

// writeCaught writes the file for the given bugs, in their order.
func writeCaught(name string, by map[string]caught, bugs []bug) error {
	var text strings.Builder
	for _, b := range bugs {
		if c := by[b.name]; c.test != "" {
			fmt.Fprintln(&text, b.name, c.pkg, c.name())
		}
	}
	return os.WriteFile(name, []byte(text.String()), 0o644)
}
