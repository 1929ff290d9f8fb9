// Package archive is the format of a backup: a tar file with the files of a data
// directory, and behind them a manifest that says that it is whole.
//
//	CHECKPOINT            written first, so that a backup is told by its first name
//	slots-64 … slots-512  a table that grew while it was copied stands there twice: the last one counts
//	index                 if there is one
//	log/00000001.seg …
//	MANIFEST              the last
//
// `tar -x` makes a data directory of it, and `sha256sum -c MANIFEST` checks that.
//
// Every byte is checked by Read. The contents of the files have their checksums in
// the manifest, and the manifest has one of itself. A tar header must be exactly
// the one that Writer writes for that name and size, what fills up a block must be
// zeros, and two blocks of zeros must be the end of the file.
package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"path"
	"strings"
	"time"
)

const (
	block     = 512
	endBlocks = 2 * block

	// First is the name of the file that comes first.
	First = "CHECKPOINT"
	// ManifestName is the name of the manifest.
	ManifestName = "MANIFEST"
	// LogDir is the one directory in an archive.
	LogDir = "log"
)

// encodeHeader returns the tar header of a file. In the GNU format it is one block
// whatever the size.
func encodeHeader(name string, size int64, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: at, Format: tar.FormatGNU,
	})
	if err == nil && b.Len() != block {
		err = fmt.Errorf("the tar header of %q has %d bytes, want %d", name, b.Len(), block)
	}
	return b.Bytes(), err
}

// padding is how many zeros follow a file.
func padding(size int64) int64 { return -size & (block - 1) }

// checkName refuses a name that no backup has, above all one that leads out of the
// directory.
func checkName(name string) error {
	base, inLog := strings.CutPrefix(name, LogDir+"/")
	if base == "" || base == "." || base == ".." || strings.ContainsAny(base, "/\\\n\x00") || path.Clean(name) != name ||
		inLog != strings.HasSuffix(base, ".seg") {
		return fmt.Errorf("%q is no name of a file in a backup", name)
	}
	return nil
}
