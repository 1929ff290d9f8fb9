package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clouddragon/internal/test/golden"
)

var at = time.Date(2026, 11, 26, 2, 19, 24, 123456789, time.UTC)

// write makes an archive with a few small files, one of them twice.
func write(t *testing.T, files ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, at)
	for _, f := range files {
		if err := w.Begin(f[0], int64(len(f[1])+100)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f[1]); err != nil {
			t.Fatal(err)
		}
		if err := w.Zeros(-1); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(Manifest{Program: "v1 (a b)", Time: at, Segment: 2, Offset: 8192, Batch: 77, Version: 1 << 60, Tokens: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var small = [][2]string{{First, "checkpoint"}, {"slots-64", "old"}, {"slots-64", "new"}, {"log/00000001.seg", strings.Repeat("log", 200)}}

func TestReadGivesBackWhatWasWritten(t *testing.T) {
	got := map[string]string{}
	m, err := Read(bytes.NewReader(write(t, small...)), func(name string, size int64, r io.Reader) error {
		b, err := io.ReadAll(r)
		if int64(len(b)) != size {
			t.Errorf("%s has %d bytes, want %d", name, len(b), size)
		}
		got[name] = string(bytes.TrimRight(b, "\x00"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !m.Time.Equal(at) || m.Program != "v1 (a b)" || m.Segment != 2 || m.Offset != 8192 || m.Batch != 77 || m.Version != 1<<60 || m.Tokens != 1<<20 {
		t.Errorf("got %+v", m)
	}
	if len(got) != 3 || got["slots-64"] != "new" || got[First] != "checkpoint" || len(m.Files) != 4 {
		t.Errorf("got %q, %v", got, m.Files)
	}
}

// TestEveryFlippedBitIsFound flips each bit of an archive, including its headers and padding.
func TestEveryFlippedBitIsFound(t *testing.T) {
	for how, b := range golden.Flips(write(t, small...)) {
		if _, err := Read(bytes.NewReader(b), nil); !errors.Is(err, ErrChanged) && !errors.Is(err, ErrCut) {
			t.Fatalf("%s: %v", how, err)
		}
	}
}

func TestEveryCutIsFound(t *testing.T) {
	b := write(t, small...)
	for how, cut := range golden.Cuts(b) {
		if _, err := Read(bytes.NewReader(cut), nil); !errors.Is(err, ErrCut) {
			t.Fatalf("%s: %v", how, err)
		}
	}
	for _, more := range []string{"x", "\x00", strings.Repeat("\x00", 10240)} {
		if _, err := Read(strings.NewReader(string(b)+more), nil); !errors.Is(err, ErrChanged) {
			t.Fatalf("%d bytes behind the end: %v", len(more), err)
		}
	}
}

// TestErrorsOfOthersPassThrough checks that a failed read or a full disk is not reported as
// damage.
func TestErrorsOfOthersPassThrough(t *testing.T) {
	b := write(t, small...)
	mine := errors.New("mine")
	for n := range b {
		r := io.MultiReader(bytes.NewReader(b[:n]), errReader{mine})
		if _, err := Read(r, nil); !errors.Is(err, mine) {
			t.Fatalf("a read that fails at byte %d: %v", n, err)
		}
	}
	if _, err := Read(bytes.NewReader(b), func(string, int64, io.Reader) error { return mine }); err != mine {
		t.Fatal(err)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	w := NewWriter(io.Discard, at)
	for _, name := range []string{"", ".", "..", "/etc/passwd", "../x", "log/../x", "log/", "a/b", "log/x", "x.seg", "log/a/b.seg", "a\nb"} {
		if err := w.Begin(name, 0); err == nil {
			t.Errorf("%q is taken", name)
		}
		w.err = nil
	}
}

// TestManifestFormat pins the manifest.
func TestManifestFormat(t *testing.T) {
	b := write(t, small[:3]...)
	want, err := os.ReadFile("testdata/MANIFEST")
	if err != nil {
		t.Fatal(err)
	}
	if at := bytes.Index(b, []byte(manifestTitle)); !bytes.HasPrefix(b[at:], want) {
		t.Errorf("got\n%s\nwant\n%s", bytes.TrimRight(b[at:], "\x00"), want)
	}
}

// TestTarAndSha256sumReadIt checks the archive with the programs that an operator has.
func TestTarAndSha256sumReadIt(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "b.tar")
	if err := os.WriteFile(file, write(t, small...), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", "tar xf b.tar; sha256sum --strict -c MANIFEST")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "log/00000001.seg: OK") {
		t.Errorf("%v\n%s", err, out)
	}
	// A size that is too large for the octal digits of a tar header.
	if h, err := encodeHeader("slots-64", 1<<40, at); err != nil || len(h) != block {
		t.Errorf("%d bytes, %v", len(h), err)
	}
}

func FuzzRead(f *testing.F) {
	var t testing.T
	f.Add(write(&t, small...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Read(bytes.NewReader(b), nil)
		if err != nil {
			return
		}
		if got, err := decodeManifest(m.encode()); err != nil || !got.Time.Equal(m.Time) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
