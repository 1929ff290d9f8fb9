package slots

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path"
	"strings"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/format"
	"clouddragon/internal/test/golden"
	"clouddragon/internal/test/memdisk"
)

const testExtent = 4096

func options(fs *memdisk.FS) Options {
	return Options{FS: fs, Dir: "data", ID: testID, Extent: testExtent}
}

// initial are the sizes of new files.
var initial = [4]int64{2 * 4096, 2 * 4096, 2 * 4096, 2 * 4096}

// created returns a disk with new tables, all of it durable.
func created(t testing.TB) *memdisk.FS {
	fs := memdisk.New()
	must(t, fs.MkdirAll("data"))
	must(t, Create(options(fs)))
	return fs.Clone()
}

func must(t interface {
	Helper()
	Fatalf(string, ...any)
}, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// edit changes the contents of a file.
func edit(t testing.TB, fs *memdisk.FS, name string, change func(b []byte) []byte) {
	t.Helper()
	b, err := fs.ReadFile(path.Join("data", name))
	must(t, err)
	must(t, fs.WriteFile(path.Join("data", name), change(b)))
}

func TestTableHeaderIsAlwaysTheseBytes(t *testing.T) {
	fs := created(t)
	b, err := fs.ReadFile("data/slots-256")
	must(t, err)
	if len(b) != headerSize+testExtent || int64(len(b)) != InitialSize(testExtent) {
		t.Errorf("the file has %d bytes, wanted a header page and an extent", len(b))
	}
	golden.Want(t, "the header", b[:headerSize], `
		4344736c6f74730a 02000000 00010000
		a0a1a2a3a4a5a6a7a8a9aaabacadaeaf`+golden.Zeros(4092-32)+`49cd15d8`)
	if got, want := binary.LittleEndian.Uint32(b[4092:]), crc32.Checksum(b[:4092], format.Castagnoli); got != want {
		t.Errorf("the checksum is %08x, that of the rest is %08x", got, want)
	}
	if !isZero(b[headerSize:]) {
		t.Error("the slots are not zeros")
	}
}

func FuzzTableHeader(f *testing.F) {
	for class := range Classes {
		f.Add(uint8(class), codec.header(class))
		f.Add(uint8(class), Codec{ID: [16]byte{1}}.header(class))
	}
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte(headerMagic))
	f.Add(uint8(2), bytes.Repeat([]byte{0xff}, headerSize))
	f.Fuzz(func(t *testing.T, class uint8, b []byte) {
		class %= uint8(len(Classes))
		page := make([]byte, headerSize)
		copy(page, b)
		for _, fix := range []bool{false, true} {
			if fix {
				binary.LittleEndian.PutUint32(page[headerSum:], crc32.Checksum(page[:headerSum], format.Castagnoli))
			}
			if codec.checkHeader(int(class), page) != "" {
				continue
			}
			if want := codec.header(int(class)); !bytes.Equal(page[:32], want[:32]) {
				t.Fatalf("%x was accepted, wanted %x", page[:32], want[:32])
			}
		}
	})
}

func TestDamagedTableFileIsRefusedByName(t *testing.T) {
	const name = "slots-128"
	header := func(class int, c Codec) func([]byte) []byte {
		return func(b []byte) []byte { return append(c.header(class), b[headerSize:]...) }
	}
	for _, c := range []struct {
		name   string
		damage func(b []byte) []byte // nil: the file is removed
		says   []string
	}{
		{"missing", nil, []string{"missing", "8192"}},
		{"empty", func(b []byte) []byte { return nil }, []string{"0 bytes", "8192"}},
		{"cut in the header", func(b []byte) []byte { return b[:100] }, []string{"100 bytes", "8192"}},
		{"cut after the header", func(b []byte) []byte { return b[:headerSize] }, []string{"4096 bytes", "8192"}},
		{"cut by a byte", func(b []byte) []byte { return b[:len(b)-1] }, []string{"8191 bytes", "8192"}},
		{"no table", func(b []byte) []byte { copy(b, "SQLite"); return b }, []string{"SQLite", "CDslots"}},
		{"zeros", func(b []byte) []byte { clear(b); return b }, []string{"CDslots"}},
		{"a newer version", func(b []byte) []byte { b[8] = 3; return b }, []string{"version is 3", "version 2"}},
		{"a byte of the header", func(b []byte) []byte { b[2000] ^= 1; return b }, []string{"checksum", "damaged"}},
		{"another table", header(2, codec), []string{"256 bytes", "128"}},
		{"another directory", header(1, Codec{ID: [16]byte{0xbb}}), []string{"bb000000", "a0a1a2a3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := created(t)
			if c.damage == nil {
				must(t, fs.Remove("data/"+name))
			} else {
				edit(t, fs, name, c.damage)
			}
			tables, err := Open(options(fs), initial)
			if err == nil {
				t.Fatal("it was opened")
			}
			if d := new(disk.Damage); tables != nil || !errors.As(err, &d) || d.File != name {
				t.Errorf("the error is %v, wanted a *disk.Damage of %s", err, name)
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			if n := fs.OpenHandles(); n != 0 {
				t.Errorf("%d handles were left open", n)
			}
		})
	}
}

func TestCreateReplacesAnInterruptedOne(t *testing.T) {
	fs := memdisk.New()
	must(t, fs.WriteFile("data/slots-64", []byte("half a header")))
	must(t, fs.WriteFile("data/slots-256", bytes.Repeat([]byte{1}, 10*testExtent)))
	must(t, Create(options(fs)))
	open(t, fs, checkpoint{sizes: initial})
	for class := range Classes {
		b, err := fs.ReadFile("data/" + FileName(class))
		must(t, err)
		if int64(len(b)) != InitialSize(testExtent) || !isZero(b[headerSize:]) {
			t.Errorf("%s has %d bytes, wanted an empty table of %d", FileName(class), len(b), InitialSize(testExtent))
		}
	}
}

func TestNewTablesAreDurable(t *testing.T) {
	fs := memdisk.New()
	must(t, fs.MkdirAll("data"))
	must(t, fs.SyncDir(""))
	must(t, Create(options(fs)))
	must(t, fs.SyncDir("data"))
	open(t, fs.Cut(fs.Len()).Nothing(), checkpoint{sizes: initial})
}

func TestFullDiskIsReportedWhenTablesAreMade(t *testing.T) {
	fs := memdisk.New()
	must(t, fs.MkdirAll("data"))
	fs.SetRoom(3 * 8192)
	if err := Create(options(fs)); !disk.IsFull(err) || !strings.Contains(err.Error(), "data/slots-512") {
		t.Errorf("the error is %v, wanted that the disk is full and the file's name", err)
	}
	if n := fs.OpenHandles(); n != 0 {
		t.Errorf("%d handles were left open", n)
	}
}

func TestExtentMustBeAWholeNumberOfPages(t *testing.T) {
	fs := created(t)
	for _, extent := range []int{-4096, 100, 4097} {
		o := options(fs)
		o.Extent = extent
		if err := Create(o); err == nil {
			t.Errorf("Create accepted %d", extent)
		}
		if tables, err := Open(o, initial); err == nil {
			t.Errorf("Open accepted %d", extent)
			must(t, tables.Close())
		}
	}
}
