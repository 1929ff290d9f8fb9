package kvlog

import (
	"bytes"
	"errors"
	"iter"
	"math"
	"testing"

	"clouddragon/internal/test/golden"
	"clouddragon/kvlog/wal"
)

// The bytes below are the format: if one of these tests fails, existing data can no
// longer be read.

func goldenValue() []byte {
	p := make([]byte, ValueSize("ac", "id", "t/x", "", 5))
	data := []byte("hello")
	newCodec(testID).putValue(p, "ac", "id", "t/x", "", 0x0102, 0x0304, data, SumValue(data))
	return p
}

func TestGoldenValue(t *testing.T) {
	p := goldenValue()
	golden.Want(t, "the value", p, `
		f136a4d9  4cbb719a  05000000  02 02 03 00
		0201000000000000  0403000000000000
		6163 6964 742f78 68656c6c6f`)
	v, err := newCodec(testID).decodeValue(p)
	if err != nil || !v.is("ac", "id") || string(v.Type) != "t/x" || v.Version != 0x0102 || v.Expires != 0x0304 || string(v.Data) != "hello" {
		t.Errorf("read as %+v, %v", v, err)
	}
}

func TestGoldenValueWithAnEncoding(t *testing.T) {
	data := []byte("hello")
	p := make([]byte, ValueSize("ac", "id", "t/x", "gzip", len(data)))
	newCodec(testID).putValue(p, "ac", "id", "t/x", "gzip", 0x0102, 0x0304, data, SumValue(data))
	golden.Want(t, "the value", p, `
		079293cb  4cbb719a  05000000  02 02 03 04
		0201000000000000  0403000000000000
		6163 6964 742f78 677a6970 68656c6c6f`)
	v, err := newCodec(testID).decodeValue(p)
	if err != nil || !v.is("ac", "id") || string(v.Type) != "t/x" || string(v.Encoding) != "gzip" || string(v.Data) != "hello" {
		t.Errorf("read as %+v, %v", v, err)
	}
}

func TestGoldenTombstone(t *testing.T) {
	p := make([]byte, TombstoneSize("ac", "id"))
	PutTombstone(p, "ac", "id", 258)
	golden.Want(t, "the tombstone", p, `0201000000000000  02 02  6163 6964`)
	m, err := DecodeTombstone(p)
	if err != nil || string(m.Acc) != "ac" || string(m.ID) != "id" || m.Origin != 258 {
		t.Errorf("read as %+v, %v", m, err)
	}
}

func TestGoldenIndexSnapshotHead(t *testing.T) {
	r := newValuesRig(t)
	r.set("key", "value", 0x1000_0000_0000)
	at := wal.Pos{Segment: 1, Offset: 4096 + 8, Seq: 3, Sum: 4}
	golden.Want(t, "the head", r.v.Freeze(at).head, `
		6364696e6465780a  01000000  46491594
		90000000  0d000000  746865206469726563746f7279204944
		0100000000000000  0810000000000000  0300000000000000  04000000  00040000
		0000000000000000  01000000  00000000
		0100000000000000  00000000  01000000
		3800000000000000  3800000000000000  0000000000000000
		00fa833000100000  3800000000000000`)
}

// Any damaged bit is found, by the check of the head or of the whole record.
func TestNoDamagedValueIsTakenForAnother(t *testing.T) {
	c, good := newCodec(testID), goldenValue()
	for _, bad := range []iter.Seq2[string, []byte]{golden.Flips(good), golden.Cuts(good)} {
		for how, p := range bad {
			if _, err := c.decodeValue(p); !errors.Is(err, errValue) {
				t.Errorf("%s: %v", how, err)
			}
		}
	}
	if _, err := c.decodeValue(append(bytes.Clone(good), 0)); !errors.Is(err, errValue) {
		t.Errorf("a byte longer: %v", err)
	}
}

func FuzzValue(f *testing.F) {
	f.Add(goldenValue())
	f.Add(make([]byte, valueHead))
	f.Fuzz(func(t *testing.T, p []byte) {
		c := newCodec(testID)
		if _, need, err := c.head(p); err != nil && need > len(p)+4*math.MaxUint8+valueHead {
			t.Errorf("a head of %d bytes needs %d", len(p), need)
		}
		v, err := c.decodeValue(p)
		if err != nil {
			return
		}
		again := make([]byte, len(p))
		c.putValue(again, string(v.Acc), string(v.ID), string(v.Type), string(v.Encoding), v.Version, v.Expires, v.Data, v.Sum)
		if !bytes.Equal(again[4:], p[4:]) {
			t.Errorf("%x reads as what is written as %x", p, again)
		}
	})
}

func FuzzTombstone(f *testing.F) {
	p := make([]byte, TombstoneSize("ac", "id"))
	PutTombstone(p, "ac", "id", 258)
	f.Add(p)
	f.Add(make([]byte, tombstoneHead))
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := DecodeTombstone(p)
		if err != nil {
			return
		}
		again := make([]byte, TombstoneSize(string(m.Acc), string(m.ID)))
		if PutTombstone(again, string(m.Acc), string(m.ID), m.Origin); !bytes.Equal(again, p) {
			t.Errorf("%x reads as what is written as %x", p, again)
		}
	})
}
