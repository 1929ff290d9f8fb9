package planted

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
)

// bug is the content of a file in testdata.
type bug struct {
	name   string
	breaks string // in the real world
	edits  []edit
}

// edit is one place of a bug.
type edit struct {
	file     string // slash-separated, from the root of the module
	old, new string // whole lines
}

// readBugs reads the files of testdata, in the order of their names.
func readBugs(dir string) ([]bug, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.bug"))
	if err != nil {
		return nil, err
	}
	var bugs []bug
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		b, err := parseBug(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		b.name = strings.TrimSuffix(filepath.Base(name), ".bug")
		bugs = append(bugs, b)
	}
	return bugs, nil
}

func parseBug(text string) (bug, error) {
	breaks, rest, ok := strings.Cut(text, "\n\n")
	if !ok || breaks == "" || strings.Contains(breaks, "\n") {
		return bug{}, fmt.Errorf("it must begin with one line that says what it breaks, and an empty one")
	}
	b := bug{breaks: breaks}
	for line := range strings.Lines(rest) {
		if line == "\n" {
			line = " \n" // an empty line that stays
		}
		if !strings.ContainsAny(line[:1], " -+") {
			b.edits = append(b.edits, edit{file: strings.TrimSpace(line)})
			continue
		}
		if len(b.edits) == 0 {
			return bug{}, fmt.Errorf("a line of no file: %q", line)
		}
		e := &b.edits[len(b.edits)-1]
		if line[0] != '+' {
			e.old += line[1:]
		}
		if line[0] != '-' {
			e.new += line[1:]
		}
	}
	for _, e := range b.edits {
		if e.old == e.new {
			return bug{}, fmt.Errorf("it changes nothing in %s", e.file)
		}
	}
	return b, nil
}

// plant returns the files of the module with the bug in them, by their names.
func (b *bug) plant(root string) (map[string]string, error) {
	files := map[string]string{}
	for _, e := range b.edits {
		text, ok := files[e.file]
		if !ok {
			read, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				return nil, err
			}
			text = string(read)
		}
		// The match begins with a line break, so that it never begins in the middle of a line.
		before, after, found := strings.Cut("\n"+text, "\n"+e.old)
		if !found || e.old == "" {
			return nil, fmt.Errorf("%s no longer has the lines\n%s", e.file, e.old)
		}
		if strings.Contains("\n"+after, "\n"+e.old) {
			return nil, fmt.Errorf("%s has more than once the lines\n%s", e.file, e.old)
		}
		files[e.file] = (before + "\n" + e.new + after)[1:]
	}
	for name, text := range files {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		if _, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution); err != nil {
			return nil, fmt.Errorf("with the bug in it: %w", err)
		}
	}
	return files, nil
}
