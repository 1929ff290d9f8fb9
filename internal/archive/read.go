package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrCut is returned when an archive ends before its end.
var ErrCut = errors.New("the backup is cut off")

// ErrChanged is returned when an archive is not as it was written.
var ErrChanged = errors.New("the backup is damaged")

// Read reads an archive to its end and checks every byte of it. It calls file, if
// that is not nil, with each file in the order in which they stand there; what file
// does not read is read for it. Nothing is known to be good before Read returns
// without an error: ErrCut, ErrChanged, or the error of r or file.
func Read(r io.Reader, file func(name string, size int64, r io.Reader) error) (*Manifest, error) {
	a := reader{r: r, file: file}
	for {
		name, size, err := a.header()
		if err != nil {
			return nil, err
		}
		if name == ManifestName {
			return a.manifest(size)
		}
		if err := a.content(name, size); err != nil {
			return nil, err
		}
	}
}

type reader struct {
	r     io.Reader
	off   int64
	at    time.Time // of the files; zero before the first
	files []File
	file  func(name string, size int64, r io.Reader) error
}

// Read counts what is read.
func (a *reader) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	a.off += int64(n)
	return n, err
}

func (a *reader) changed(format string, args ...any) error {
	return fmt.Errorf("%w before byte %d: %s", ErrChanged, a.off, fmt.Sprintf(format, args...))
}

// full reads all of p.
func (a *reader) full(p []byte) error {
	_, err := io.ReadFull(a, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends at byte %d without a manifest and an end", ErrCut, a.off)
	}
	return err
}

// header reads the header of the next file.
func (a *reader) header() (name string, size int64, err error) {
	var b [block]byte
	if err := a.full(b[:]); err != nil {
		return "", 0, err
	}
	h, err := tar.NewReader(bytes.NewReader(b[:])).Next()
	if err != nil {
		return "", 0, a.changed("no tar header of a backup (%v)", err)
	}
	want, err := encodeHeader(h.Name, h.Size, h.ModTime)
	switch {
	case err != nil || !bytes.Equal(b[:], want) || !a.at.IsZero() && !h.ModTime.Equal(a.at):
		return "", 0, a.changed("the header of %.300q is not as it was written", h.Name)
	case a.at.IsZero() && h.Name != First:
		return "", 0, a.changed("it begins with %.300q: this is no backup of Cloud Dragon", h.Name)
	}
	a.at = h.ModTime
	return h.Name, h.Size, nil
}

// content reads a file and notes its checksum.
func (a *reader) content(name string, size int64) error {
	if err := checkName(name); err != nil {
		return a.changed("%v", err)
	}
	sum := sha256.New()
	lr := &io.LimitedReader{R: a, N: size}
	tee := io.TeeReader(lr, sum)
	if a.file != nil {
		if err := a.file(name, size, tee); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return err
	}
	if lr.N > 0 {
		return fmt.Errorf("%w: it ends at byte %d, in %s", ErrCut, a.off, name)
	}
	a.files = append(a.files, File{name, [sha256.Size]byte(sum.Sum(nil))})
	return a.zeros(padding(size), "behind "+name)
}

// zeros reads n bytes, fewer than two blocks, that must be zero.
func (a *reader) zeros(n int64, where string) error {
	var b [endBlocks]byte
	if err := a.full(b[:n]); err != nil {
		return err
	}
	if !bytes.Equal(b[:n], zeros[:n]) {
		return a.changed("bytes that are not zero %s", where)
	}
	return nil
}

// manifest reads the manifest and the end, and compares the files with it.
func (a *reader) manifest(size int64) (*Manifest, error) {
	if size > maxManifest {
		return nil, a.changed("a manifest of %d bytes", size)
	}
	b := make([]byte, size)
	if err := a.full(b); err != nil {
		return nil, err
	}
	m, err := decodeManifest(b)
	if err != nil {
		return nil, a.changed("%v", err)
	}
	if err := a.zeros(padding(size)+endBlocks-block, "behind the manifest"); err != nil {
		return nil, err
	}
	if err := a.zeros(block, "at the end"); err != nil {
		return nil, err
	}
	if n, err := io.ReadFull(a, b[:1]); n > 0 {
		return nil, a.changed("more bytes behind the end")
	} else if err != io.EOF {
		return nil, err
	}
	if len(m.Files) != len(a.files) {
		return nil, a.changed("%d files, the manifest has %d", len(a.files), len(m.Files))
	}
	for i, f := range m.Files {
		switch got := a.files[i]; {
		case f.Name != got.Name:
			return nil, a.changed("file %d is %s, the manifest has %s", i+1, got.Name, f.Name)
		case f.Sum != got.Sum:
			return nil, fmt.Errorf("%w: %s has the SHA-256 %x, the manifest says %x", ErrChanged, f.Name, got.Sum, f.Sum)
		}
	}
	return m, nil
}
