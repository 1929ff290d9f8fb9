package main

import (
	"strings"
	"testing"
)

// Whatever the limit, connections leave enough descriptors for files. A limit that is too low
// for the server is refused with advice what to set.
func TestDescriptorsAreShared(t *testing.T) {
	for _, limit := range []uint64{64, 65, 100, 256, 1024, 1 << 20, 1<<64 - 1} {
		of, err := share(limit)
		if err != nil {
			t.Errorf("%d: %v", limit, err)
			continue
		}
		if of.connections < 1 || of.segments < 1 || of.segments > mostSegments || uint64(of.connections+of.segments+ownFiles) > limit {
			t.Errorf("%d descriptors are shared as %+v", limit, of)
		}
	}
	for _, limit := range []uint64{0, 16, 63} {
		if _, err := share(limit); err == nil || !strings.Contains(err.Error(), "set it to 64") {
			t.Errorf("%d: got %v, want what to set", limit, err)
		}
	}
}
