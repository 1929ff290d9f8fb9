package archive

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// Writer writes an archive. After an error it returns the same one again.
type Writer struct {
	w     io.Writer
	at    time.Time
	files []File
	sum   hash.Hash
	size  int64 // of the file that is written
	left  int64 // bytes of it that are still to come
	err   error
}

// NewWriter returns a writer of an archive whose files have that time.
func NewWriter(w io.Writer, at time.Time) *Writer {
	return &Writer{w: w, at: at.Truncate(time.Second), sum: sha256.New()}
}

// Begin begins a file, whose bytes follow by Write and Zeros. One that is there
// already is replaced.
func (w *Writer) Begin(name string, size int64) error {
	if err := w.end(); err != nil {
		return err
	}
	header, err := encodeHeader(name, size, w.at)
	if err == nil {
		err = checkName(name)
	}
	if err == nil {
		_, err = w.w.Write(header)
	}
	if err != nil {
		return w.fail(err)
	}
	w.files = append(w.files, File{Name: name})
	w.sum.Reset()
	w.size, w.left = size, size
	return nil
}

// Write writes the next bytes of the file.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(p)) > w.left {
		return 0, w.fail(fmt.Errorf("%d bytes more than the file's size", int64(len(p))-w.left))
	}
	w.sum.Write(p)
	w.left -= int64(len(p))
	n, err := w.w.Write(p)
	return n, w.fail(err)
}

var zeros [64 << 10]byte

// Zeros writes n zeros, or as many as the file still wants if n is negative.
func (w *Writer) Zeros(n int64) error {
	if n < 0 {
		n = w.left
	}
	for n > 0 && w.err == nil {
		k := min(n, int64(len(zeros)))
		if _, err := w.Write(zeros[:k]); err != nil {
			return err
		}
		n -= k
	}
	return w.err
}

// end ends the file that is written.
func (w *Writer) end() error {
	if w.err != nil || len(w.files) == 0 {
		return w.err
	}
	if w.left > 0 {
		return w.fail(fmt.Errorf("%s: %d bytes of the file are missing", w.files[len(w.files)-1].Name, w.left))
	}
	copy(w.files[len(w.files)-1].Sum[:], w.sum.Sum(nil))
	_, err := w.w.Write(zeros[:padding(w.size)])
	return w.fail(err)
}

// Close writes the manifest, with the files that were written, and the end of the
// archive. Without it the archive counts as cut off.
func (w *Writer) Close(m Manifest) error {
	if err := w.end(); err != nil {
		return err
	}
	m.Files = w.files
	b := m.encode()
	header, err := encodeHeader(ManifestName, int64(len(b)), w.at)
	if err != nil {
		return w.fail(err)
	}
	b = append(append(header, b...), zeros[:padding(int64(len(b)))]...)
	if _, err = w.w.Write(append(b, zeros[:endBlocks]...)); err != nil {
		return w.fail(err)
	}
	w.err = errors.New("the archive is closed")
	return nil
}

// fail keeps the first error.
func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}
