package names

import (
	"testing"

	"clouddragon/internal/test/golden"
	"clouddragon/internal/test/memdisk"
)

// The bytes below are the format. If the test fails, indexes that were written before can
// no longer be read and are rebuilt.
func TestFilesAreAlwaysTheseBytes(t *testing.T) {
	o := tiny(memdisk.New())
	o.ID, o.Block = golden.ID, 10
	x, _, err := Open(o)
	if err == nil {
		t.Fatal("a new index says that it is complete")
	}
	x.Complete()
	for _, key := range []string{"apple", "apply", "bear"} {
		x.Add(key)
	}
	if err := x.Save(0x0101); err != nil {
		t.Fatal(err)
	}
	x.Remove("bear")
	if err := x.Save(0x0102); err != nil {
		t.Fatal(err)
	}
	for _, file := range []struct{ name, want string }{
		{"names/run-00000001", `
			00 0a 6170706c65  04 02 79  3bf3a9e2
			00 08 62656172  ac34300c
			0e 01 61  0a 01 62
			63646e616d65730a 01000000 000102030405060708090a0b0c0d0e0f
			0100000000000000 0300000000000000 1800000000000000 0600000000000000 736ae323 49bce1f0`},
		{"names/run-00000002", `
			00 09 62656172  6ba60286
			0a 01 62
			63646e616d65730a 01000000 000102030405060708090a0b0c0d0e0f
			0200000000000000 0100000000000000 0a00000000000000 0300000000000000 50b40584 ad1b5f01`},
		{"names/manifest", `
			63646e616d65736d 01000000 000102030405060708090a0b0c0d0e0f 0201000000000000 02000000
			0200000000000000 5100000000000000
			0100000000000000 6200000000000000
			75d499d0`},
	} {
		got, err := o.FS.(*memdisk.FS).ReadFile(file.name)
		if err != nil {
			t.Fatal(err)
		}
		golden.Want(t, file.name, got, file.want)
	}
}
