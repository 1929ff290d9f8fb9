package planted

import (
	"fmt"
	"os"
	"strings"
)

// caughtFile says of each bug which test caught it last, in lines of the bug, the
// package and the test. It only saves time: a bug that this test no longer
// catches is given to all tests.
const caughtFile = "testdata/caught.txt"

// caught says which test failed first; the zero caught, that none did.
type caught struct{ test, pkg, says, output string }

// name is the test's name without how it failed, "TestX (hangs)".
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

// writeCaught writes what is known of the bugs that there are, in their order.
func writeCaught(name string, by map[string]caught, bugs []bug) error {
	var text strings.Builder
	for _, b := range bugs {
		if c := by[b.name]; c.test != "" {
			fmt.Fprintln(&text, b.name, c.pkg, c.name())
		}
	}
	return os.WriteFile(name, []byte(text.String()), 0o644)
}
