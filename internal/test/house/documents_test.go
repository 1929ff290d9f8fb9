package house

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link      = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`)
	codeBlock = regexp.MustCompile("(?s)```.*?```")
	heading   = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noAnchor  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors returns the anchors of a document's headings, as GitHub makes them.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		all["#"+strings.ReplaceAll(noAnchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return all
}

func TestLinksLeadSomewhere(t *testing.T) {
	files(t, ".md", func(name string, text []byte) {
		body := codeBlock.ReplaceAllString(string(text), "")
		for _, m := range link.FindAllStringSubmatch(body, -1) {
			to, anchor := m[1], m[2]
			if strings.Contains(to, "://") {
				continue
			}
			target := name
			if to != "" {
				target = filepath.Join(filepath.Dir(name), to)
			}
			b, err := os.ReadFile(filepath.Join(root, target))
			if err != nil {
				t.Errorf("%s links to %s: %v", name, to, err)
				continue
			}
			if anchor != "" && !anchors(string(b))[anchor] {
				t.Errorf("%s links to %s%s: there is no such heading", name, to, anchor)
			}
		}
	})
}

// TestDocumentsHaveNoConflictMarkers finds what a merge left behind.
func TestDocumentsHaveNoConflictMarkers(t *testing.T) {
	files(t, ".md", func(name string, text []byte) {
		for i, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, "<<<<<<< ") || strings.HasPrefix(line, ">>>>>>> ") {
				t.Errorf("%s:%d has a conflict marker", name, i+1)
			}
		}
	})
}

// TestFormatsNameTheVersions compares docs/formats.md with the code.
func TestFormatsNameTheVersions(t *testing.T) {
	b, err := os.ReadFile(root + "/docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct{ row, file, version string }{
		{"`CHECKPOINT`", "db/store/checkpoint_format.go", "checkpointVersion"},
		{"`slots-N`", "slots/table.go", "headerVersion"},
		{"`log/N.seg`", "kvlog/wal/segment.go", "segmentVersion"},
		{"`index`", "kvlog/snapshot.go", "snapshotVersion"},
	} {
		code, err := os.ReadFile(filepath.Join(root, f.file))
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(f.version + `\s*=\s*(\d+)`).FindSubmatch(code)
		if m == nil {
			t.Errorf("%s has no constant %s", f.file, f.version)
			continue
		}
		row := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(f.row) + ` \|[^|]*\| ` + string(m[1]) + ` \|`)
		if !row.Match(b) {
			t.Errorf("docs/formats.md does not say that %s has version %s", f.row, m[1])
		}
	}
}

// TestFormatsNameEveryKindAndRecord finds kinds of slots and types of records that
// docs/formats.md does not describe.
func TestFormatsNameEveryKindAndRecord(t *testing.T) {
	b, err := os.ReadFile(root + "/docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	log, tables, ok := strings.Cut(string(b), "\n## Tables\n")
	if !ok {
		t.Fatal("docs/formats.md has no section Tables")
	}
	kind := regexp.MustCompile(`(?m)^\s*(?:const )?kind[A-Z]\w*\s+uint8\s*=\s*(\d+)`)
	record := regexp.MustCompile(`(?m)^\s*(?:const )?[tT]ype[A-Z]\w*\s+(?:uint8\s*)?=\s*(\d+)`)
	found := 0
	sources(t, func(name string, _ *ast.File) {
		code, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range []struct {
			under, text string
			pattern     *regexp.Regexp
		}{{"db/op.go", tables, kind}, {"db/commit/", log, record}, {"kvlog/", log, record}} {
			if !strings.HasPrefix(name, in.under) {
				continue
			}
			for _, m := range in.pattern.FindAllSubmatch(code, -1) {
				found++
				if !strings.Contains(in.text, "\n| "+string(m[1])+" |") {
					t.Errorf("docs/formats.md has no row %s, which is in %s: %s", m[1], name, strings.TrimSpace(string(m[0])))
				}
			}
		}
	})
	if found < 9 {
		t.Errorf("%d kinds and types were found, want 9 or more", found)
	}
}
