package replica

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"clouddragon/internal/disk"
	"clouddragon/internal/test/golden"
	"clouddragon/kvlog/wal"
)

var goldenStates = map[string]State{
	`{"Version":1,"Epoch":1,"Primary":true}
65028fbc
`: {Version: 1, Epoch: 1, Primary: true},
	`{"Version":1,"Epoch":7,"Primary":true,"Before":"http://10.0.0.1:8081","Raise":true,"Standby":"b:/data"}
fa61d69d
`: {Version: 1, Epoch: 7, Primary: true, Before: "http://10.0.0.1:8081", Raise: true, Standby: "b:/data"},
	`{"Version":1,"Epoch":18446744073709551615,"Primary":false,"Now":"http://10.0.0.1:8081","InSync":true}
52b7a345
`: {Version: 1, Epoch: 1<<64 - 1, Now: "http://10.0.0.1:8081", InSync: true},
	`{"Version":1,"Epoch":3,"Primary":true,"Elected":true}
999393dd
`: {Version: 1, Epoch: 3, Primary: true, Elected: true},
}

func TestStateIsAlwaysTheseBytes(t *testing.T) {
	for text, s := range goldenStates {
		got, err := s.encode()
		if err != nil || string(got) != text {
			t.Errorf("%+v is\n%s(%v), want\n%s", s, got, err, text)
		}
		if back, err := decodeState([]byte(text)); err != nil || back != s {
			t.Errorf("read back: %+v, %v; want %+v", back, err, s)
		}
	}
}

func TestDamageOfTheStateIsRefused(t *testing.T) {
	for text := range goldenStates {
		refused := func(what string, b []byte) {
			if s, err := decodeState(b); err == nil {
				t.Errorf("%s: read as %+v", what, s)
			}
		}
		for what, b := range golden.Flips([]byte(text)) {
			refused(what, b)
		}
		for what, b := range golden.Cuts([]byte(text)) {
			refused(what, b)
		}
		refused("with more behind it", []byte(text+"\n"))
	}
	dir := t.TempDir()
	if err := (State{Epoch: 2}).write(disk.OS{}, dir); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadState(disk.OS{}, dir); err != nil || s.Epoch != 2 || s.Primary {
		t.Errorf("read %+v, %v", s, err)
	}
	f, err := disk.OS{}.Open(filepath.Join(dir, StateFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("3"), 21); err != nil {
		t.Fatal(err)
	}
	f.Close()
	damage := (*disk.Damage)(nil)
	if _, err := ReadState(disk.OS{}, dir); !errors.As(err, &damage) || damage.File != StateFile {
		t.Errorf("a damaged file: %v", err)
	}
	if p, err := NewPrimary(disk.OS{}, dir, nil, quietly); err == nil {
		p.Close()
		t.Error("a server starts with a damaged state")
	}
}

func TestStateOfALaterFormatIsRefused(t *testing.T) {
	text := `{"Version":2,"Epoch":1,"Primary":true}`
	_, err := decodeState([]byte(text + "\n" + checksum(text) + "\n"))
	if err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("version 2: %v", err)
	}
}

func goldenFrame() wal.Frame {
	return wal.Frame{From: wal.Pos{Segment: 0x0102030405060708, Offset: 0x1112131415161718, Seq: 0x2122232425262728, Sum: 0x31323334},
		Segment: 0x4142434445464748, Size: 0x5152535455565758, Count: 0x61626364, Records: []byte("records")}
}

const goldenFrameBytes = `
	0807060504030201 1817161514131211 2827262524232221 34333231
	4847464544434241 5857565554535251 64636261 07000000
	7265636f726473`

func TestFrameIsAlwaysTheseBytes(t *testing.T) {
	golden.Want(t, "the frame", appendFrame(nil, goldenFrame()), goldenFrameBytes)
	all := golden.Unhex(goldenFrameBytes + goldenFrameBytes)
	r := bytes.NewReader(all)
	var buf []byte
	for range 2 {
		f, b, err := readFrame(r, buf)
		if err != nil || !reflect.DeepEqual(f, goldenFrame()) {
			t.Fatalf("read back: %+v, %v", f, err)
		}
		buf = b
	}
	if _, _, err := readFrame(r, buf); err != io.EOF {
		t.Errorf("behind the last one: %v, want %v", err, io.EOF)
	}
	for what, b := range golden.Cuts(golden.Unhex(goldenFrameBytes)) {
		if _, _, err := readFrame(bytes.NewReader(b), nil); err == nil || err == io.EOF && len(b) > 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestFrameIsNoLargerThanASegment(t *testing.T) {
	b := golden.Unhex(goldenFrameBytes)
	le.PutUint32(b[48:], maxRecords+1)
	if _, buf, err := readFrame(bytes.NewReader(b), nil); err == nil || cap(buf) > 0 {
		t.Errorf("a frame of %d bytes: %v, %d bytes of memory", maxRecords+1, err, cap(buf))
	}
}

func FuzzFrame(f *testing.F) {
	good := golden.Unhex(goldenFrameBytes)
	f.Add(good)
	f.Add(good[:frameHeader])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= frameHeader && le.Uint32(b[48:]) > 1<<20 {
			return // it takes the memory first
		}
		frame, _, err := readFrame(bytes.NewReader(b), nil)
		if err != nil {
			return
		}
		if back := appendFrame(nil, frame); !bytes.Equal(back, b[:len(back)]) {
			t.Errorf("%x is written back as %x", b, back)
		}
		for range frame.All() { // no panic
		}
	})
}

func FuzzState(f *testing.F) {
	for text := range goldenStates {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		line, _, _ := strings.Cut(string(b), "\n")
		for _, p := range [][]byte{b, []byte(line + "\n" + checksum(line) + "\n")} {
			s, err := decodeState(p)
			if err != nil {
				continue
			}
			again, err := s.encode()
			if err != nil {
				t.Fatal(err)
			}
			if back, err := decodeState(again); err != nil || back != s {
				t.Errorf("%q is %+v, and then %+v, %v", p, s, back, err)
			}
		}
	})
}
