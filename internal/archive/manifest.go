package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Manifest says what a backup is a copy of. It stands at the end of the archive as
// lines of text, which `sha256sum -c` reads too:
//
//	# Cloud Dragon backup 1
//	# program VERSION
//	# time 2026-11-26T02:19:24.123456789Z
//	# log SEGMENT OFFSET BATCH
//	# version NUMBER
//	# tokens NUMBER
//	SHA-256  NAME
//	# replaced SHA-256  NAME of a file that follows once more
//	…
//	# manifest SHA-256 of all lines before
//
// Part of the file format, never changed.
type Manifest struct {
	Program string    // the version of the program that made it
	Time    time.Time // the moment that it shows
	Segment uint64    // where the log ends: the segment, the offset in bytes, and the number of the last batch
	Offset  int64
	Batch   uint64
	Version uint64 // no value in it has a newer version
	Tokens  uint64 // every fencing token handed out is below
	Files   []File // in the order of the archive; one that follows once more is replaced
}

// File is one file of the archive.
type File struct {
	Name string
	Sum  [sha256.Size]byte
}

const (
	manifestTitle = "# Cloud Dragon backup 1"
	manifestOwn   = "# manifest "
	replaced      = "# replaced "
	// maxManifest is the largest manifest that is read, in bytes: enough for
	// some 700,000 files.
	maxManifest = 64 << 20
)

func (m *Manifest) encode() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n# program %s\n# time %s\n# log %d %d %d\n# version %d\n# tokens %d\n", manifestTitle,
		m.Program, m.Time.UTC().Format(time.RFC3339Nano), m.Segment, m.Offset, m.Batch, m.Version, m.Tokens)
	last := make(map[string]int, len(m.Files))
	for i, f := range m.Files {
		last[f.Name] = i
	}
	for i, f := range m.Files {
		if i < last[f.Name] {
			b.WriteString(replaced)
		}
		fmt.Fprintf(&b, "%x  %s\n", f.Sum, f.Name)
	}
	return fmt.Appendf(nil, "%s%s%x\n", b.String(), manifestOwn, sha256.Sum256([]byte(b.String())))
}

var errManifest = errors.New("the manifest is not as it was written")

// decodeManifest is the reverse of encode. What it accepts is what encode writes.
func decodeManifest(b []byte) (*Manifest, error) {
	text := string(b)
	end := strings.LastIndex(text, manifestOwn)
	if end < 0 || text[end:] != fmt.Sprintf("%s%x\n", manifestOwn, sha256.Sum256(b[:end])) {
		return nil, fmt.Errorf("%w: its own checksum is wrong", errManifest)
	}
	lines := strings.Split(strings.TrimSuffix(text[:end], "\n"), "\n")
	if lines[0] != manifestTitle {
		return nil, fmt.Errorf("%w: it begins with %.40q, this program reads %q", errManifest, lines[0], manifestTitle)
	}
	m := new(Manifest)
	fields := []struct {
		key string
		set func(string) error
	}{
		{"program", func(s string) error { m.Program = s; return nil }},
		{"time", func(s string) (err error) { m.Time, err = time.Parse(time.RFC3339Nano, s); return err }},
		{"log", func(s string) error {
			_, err := fmt.Sscanf(s, "%d %d %d", &m.Segment, &m.Offset, &m.Batch)
			return err
		}},
		{"version", func(s string) (err error) { m.Version, err = strconv.ParseUint(s, 10, 64); return err }},
		{"tokens", func(s string) (err error) { m.Tokens, err = strconv.ParseUint(s, 10, 64); return err }},
	}
	if len(lines) <= len(fields) {
		return nil, fmt.Errorf("%w: it has %d lines", errManifest, len(lines))
	}
	for i, f := range fields {
		value, ok := strings.CutPrefix(lines[1+i], "# "+f.key+" ")
		if !ok {
			return nil, fmt.Errorf("%w: no %s in line %d", errManifest, f.key, 2+i)
		}
		if err := f.set(value); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errManifest, f.key, err)
		}
	}
	for _, line := range lines[1+len(fields):] {
		sum, name, ok := strings.Cut(strings.TrimPrefix(line, replaced), "  ")
		raw, err := hex.DecodeString(sum)
		if !ok || err != nil || len(raw) != sha256.Size {
			return nil, fmt.Errorf("%w: the line %.80q", errManifest, line)
		}
		m.Files = append(m.Files, File{name, [sha256.Size]byte(raw)})
	}
	if string(m.encode()) != text {
		return nil, fmt.Errorf("%w: it is written in another way", errManifest)
	}
	return m, nil
}
