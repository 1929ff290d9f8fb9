package disk_test

import (
	"bytes"
	"path/filepath"
	"testing"
)

func TestHoldsComparesEveryByte(t *testing.T) {
	content := make([]byte, 3<<20+100)
	for i := range content {
		content[i] = byte(i>>8 ^ i)
	}
	f := create(t, filepath.Join(t.TempDir(), "f"), content)
	for _, r := range []struct{ off, n int }{
		{0, len(content)}, {0, 1}, {4095, 2}, {4096, 4096}, {100, 2 << 20}, {len(content) - 1, 1}, {5, 0},
	} {
		want := bytes.Clone(content[r.off:][:r.n])
		held, err := f.Holds(want, int64(r.off))
		must(t, err)
		if !held {
			t.Errorf("%d bytes at %d: the disk does not have what was written", r.n, r.off)
		}
		for _, at := range []int{0, r.n / 2, r.n - 1} {
			if r.n == 0 {
				continue
			}
			want[at]++
			if held, err = f.Holds(want, int64(r.off)); held || err != nil {
				t.Errorf("%d bytes at %d: byte %d is another, and the disk has it: %v, %v", r.n, r.off, at, held, err)
			}
			want[at]--
		}
	}
	if held, err := f.Holds(append(content, 0), 0); held || err != nil {
		t.Errorf("the disk has a byte behind the end: %v, %v", held, err)
	}
}
