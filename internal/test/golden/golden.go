// Package golden compares bytes of a file format with those that a test names.
package golden

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// Unhex reads bytes as they are written in a test: with blanks and line breaks.
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
