// Package golden compares bytes of a file format with those in a test, and damages them in
// every way.
package golden

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"
	"testing"
)

// Unhex decodes hex with blanks and line breaks, as tests write it.
func Unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// Want compares bytes with those that are written in hex.
func Want(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if w := Unhex(want); !bytes.Equal(got, w) {
		t.Errorf("%s is\n%s\nwant\n%s", what, hex.Dump(got), hex.Dump(w))
	}
}

// ID is the ID of the data directory that the bytes belong to.
var ID = [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// Zeros returns n zero bytes in hex.
func Zeros(n int) string { return strings.Repeat("00", n) }

// Flips yields the bytes with each of their bits flipped, and says which bit. The yielded
// bytes are a copy that is valid until the next iteration.
func Flips(good []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		b := bytes.Clone(good)
		for i := range 8 * len(b) {
			b[i/8] ^= 1 << (i % 8)
			if !yield(fmt.Sprintf("bit %d of byte %d flipped", i%8, i/8), b) {
				return
			}
			b[i/8] = good[i/8]
		}
	}
}

// Cuts yields every shorter prefix of the bytes, with its length.
func Cuts(good []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for n := range good {
			if !yield(fmt.Sprintf("cut to %d bytes", n), bytes.Clone(good[:n])) {
				return
			}
		}
	}
}
