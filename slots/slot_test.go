package slots

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"clouddragon/internal/format"
	"clouddragon/internal/test/golden"
)

var (
	testID = [16]byte{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}
	codec  = Codec{testID}
)

// image returns the image of a used slot.
func image(r Ref, k Key, payload string) []byte {
	b := make([]byte, r.Size())
	codec.Encode(b, r, k, []byte(payload))
	return b
}

// freeImage returns the image of a slot that was used.
func freeImage(r Ref) []byte {
	b := make([]byte, r.Size())
	codec.EncodeFree(b, r)
	return b
}

func TestSlotImageIsAlwaysTheseBytes(t *testing.T) {
	r := MakeRef(1, 0x1234)
	if uint64(r) != 0x4000000000001234 {
		t.Errorf("the Ref is %#x", uint64(r))
	}
	used := image(r, Key{Kind: 3, Acc: "shop", ID: "order/7"}, "payload!")
	golden.Want(t, "a used slot", used, `0591c7bb 03 04 07 08
		7061796c6f616421 73686f70 6f726465722f37`+golden.Zeros(128-8-8-4-7))
	free := freeImage(r)
	golden.Want(t, "a free slot", free, `1cb99749`+golden.Zeros(124))
	for _, image := range [][]byte{used, free} {
		told := binary.LittleEndian.AppendUint64(testID[:], uint64(r))
		told = append(told, image[4:]...)
		if got, want := binary.LittleEndian.Uint32(image), crc32.Checksum(told, format.Castagnoli); got != want {
			t.Errorf("the checksum is %08x, that of the ID, the Ref and the rest is %08x", got, want)
		}
	}
}

func TestSmallestClassThatFitsIsUsed(t *testing.T) {
	acc, id := strings.Repeat("a", MaxAcc), strings.Repeat("i", MaxID)
	for _, c := range []struct {
		name    string
		key     Key
		payload int
		class   int
		ok      bool
	}{
		{"smallest", Key{Kind: 1, Acc: "a", ID: "i"}, 0, 0, true},
		{"64 full", Key{Kind: 1, Acc: "a", ID: id[:47]}, 8, 0, true},
		{"64 and one more", Key{Kind: 1, Acc: "a", ID: id[:48]}, 8, 1, true},
		{"128 full", Key{Kind: 1, Acc: "a", ID: id[:111]}, 8, 1, true},
		{"128 and one more", Key{Kind: 1, Acc: "a", ID: id[:112]}, 8, 2, true},
		{"256 full", Key{Kind: 1, Acc: "a", ID: id[:239]}, 8, 2, true},
		{"256 and one more", Key{Kind: 1, Acc: "a", ID: id[:240]}, 8, 3, true},
		{"longest names", Key{Kind: 127, Acc: acc, ID: id}, 512 - 8 - MaxAcc - MaxID, 3, true},
		{"longest names and one more", Key{Kind: 127, Acc: acc, ID: id}, 512 - 8 - MaxAcc - MaxID + 1, 0, false},
		{"longest payload", Key{Kind: 1, Acc: "a", ID: "i"}, MaxPayload, 3, true},
		{"payload too long", Key{Kind: 1, Acc: "a", ID: "i"}, MaxPayload + 1, 0, false},
		{"kind 0", Key{Kind: 0, Acc: "a", ID: "i"}, 8, 0, false},
		{"no account", Key{Kind: 1, Acc: "", ID: "i"}, 8, 0, false},
		{"account too long", Key{Kind: 1, Acc: acc + "a", ID: "i"}, 8, 0, false},
		{"no id", Key{Kind: 1, Acc: "a", ID: ""}, 8, 0, false},
		{"id too long", Key{Kind: 1, Acc: "a", ID: id + "i"}, 8, 0, false},
	} {
		class, ok := ClassFor(c.key, c.payload)
		if class != c.class || ok != c.ok {
			t.Errorf("%s: class %d, %v, wanted %d, %v", c.name, class, ok, c.class, c.ok)
		}
		if !ok {
			continue
		}
		r := MakeRef(class, 9)
		payload := strings.Repeat("p", c.payload)
		s, err := codec.Decode(r, image(r, c.key, payload))
		if err != nil || !s.is(c.key) || string(s.Payload) != payload || s.Free {
			t.Errorf("%s: came back as %+v, %v", c.name, s, err)
		}
		if s.hash() != c.key.Hash() {
			t.Errorf("%s: the slot's hash is not the key's", c.name)
		}
	}
}

func TestSimilarKeysHaveDifferentHashes(t *testing.T) {
	seen := make(map[uint64]Key)
	for _, k := range []Key{{Kind: 1, Acc: "ab", ID: "c"}, {Kind: 1, Acc: "a", ID: "bc"}, {Kind: 2, Acc: "ab", ID: "c"}, {Kind: 1, Acc: "ab", ID: "d"}} {
		if other, ok := seen[k.Hash()]; ok {
			t.Errorf("%+v and %+v have the same hash", k, other)
		}
		seen[k.Hash()] = k
	}
}

func TestASlotCountsOnlyInItsPlace(t *testing.T) {
	r := MakeRef(1, 7)
	for name, good := range map[string][]byte{"used": image(r, Key{Kind: 1, Acc: "a", ID: "i"}, "x"), "free": freeImage(r)} {
		if _, err := codec.Decode(r, good); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := codec.Decode(MakeRef(1, 8), good); err == nil {
			t.Errorf("%s: it is good in another slot", name)
		}
		other := Codec{ID: [16]byte{1}}
		if _, err := other.Decode(r, good); err == nil {
			t.Errorf("%s: it is good in another directory", name)
		}
		if _, err := codec.Decode(MakeRef(0, 7), good[:64]); err == nil {
			t.Errorf("%s: its half is good in another table", name)
		}
		if _, err := codec.Decode(r, good[:64]); err == nil {
			t.Errorf("%s: its half is good", name)
		}
	}
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	for name, k := range map[string]Key{
		"kind 0":      {Kind: 0, Acc: "a", ID: "i"},
		"no account":  {Kind: 1, ID: "i"},
		"too long id": {Kind: 1, Acc: "a", ID: strings.Repeat("i", MaxID+1)},
		"no room":     {Kind: 1, Acc: "a", ID: strings.Repeat("i", 60)},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: it was written", name)
				}
			}()
			image(MakeRef(0, 0), k, "")
		}()
	}
}

// resum stores the right checksum in an image, so that a test gets past that check.
func resum(r Ref, image []byte) {
	binary.LittleEndian.PutUint32(image, codec.sum(r, image))
}

func TestAGoodChecksumOverBadContentsIsRefused(t *testing.T) {
	r := MakeRef(0, 3)
	for name, spoil := range map[string]func(b []byte){
		"free with lengths":          func(b []byte) { clear(b); b[5] = 1 },
		"free with contents":         func(b []byte) { clear(b); b[63] = 1 },
		"account longer than a name": func(b []byte) { b[5] = MaxAcc + 1 },
		"no account":                 func(b []byte) { b[5] = 0 },
		"no id":                      func(b []byte) { b[6] = 0 },
		"id beyond the slot":         func(b []byte) { b[6] = 55 },
		"payload beyond the slot":    func(b []byte) { b[7] = 255 },
		"bytes after the contents":   func(b []byte) { b[63] = 1 },
	} {
		b := image(r, Key{Kind: 1, Acc: "a", ID: "i"}, "x")
		spoil(b)
		resum(r, b)
		if s, err := codec.Decode(r, b); err == nil {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for class := range Classes {
		r := MakeRef(class, 5)
		f.Add(uint8(class), uint32(5), image(r, Key{Kind: 3, Acc: "account", ID: "some id"}, "payload"))
		f.Add(uint8(class), uint32(5), freeImage(r))
		f.Add(uint8(class), uint32(5), make([]byte, r.Size()))
		f.Add(uint8(class), uint32(5), bytes.Repeat([]byte{0xff}, r.Size()))
	}
	f.Add(uint8(0), uint32(0), []byte("short"))
	f.Fuzz(func(t *testing.T, class uint8, n uint32, b []byte) {
		r := MakeRef(int(class%4), uint64(n))
		if len(b) != r.Size() {
			if s, err := codec.Decode(r, b); err == nil {
				t.Fatalf("%d bytes were read as %+v, a slot has %d", len(b), s, r.Size())
			}
			return
		}
		for _, fix := range []bool{false, true} {
			if fix {
				resum(r, b)
			}
			s, err := codec.Decode(r, b)
			if err != nil {
				continue
			}
			again := freeImage(r)
			if !s.Free {
				again = image(r, s.Key(), string(s.Payload))
			}
			if !bytes.Equal(again, b) {
				t.Fatalf("read as %+v, which is written as\n%x, but was\n%x", s, again, b)
			}
		}
	})
}
