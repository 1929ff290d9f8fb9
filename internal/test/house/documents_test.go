package house

import (
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
