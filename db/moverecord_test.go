package db

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

// moveRecords are one record of each kind.
func moveRecords() []*MoveRecord {
	lock := make([]byte, holdSize)
	lock[29] = 2
	copy(lock[holdHead:], "me")
	return []*MoveRecord{
		{ID: "v\x00\xff/", Payload: []byte("value"), Version: 1 << 60, Expires: 5, Type: "text/plain", Encoding: "br"},
		{ID: "\x00kept", Payload: []byte{}, Version: 1},
		{Kind: kindSequence, ID: "s", Payload: make([]byte, numberSize)},
		{Kind: kindCounter, ID: "c", Payload: make([]byte, counterSize)},
		{Kind: kindCounter, ID: "d", Payload: make([]byte, counterWithTime)},
		{Kind: kindRate, ID: "r", Payload: make([]byte, rateSize)},
		{Kind: kindLock, ID: "l", Sub: 7, Payload: lock},
	}
}

// readMoved reads a stream that ends with its last record.
func readMoved(b []byte) (all []*MoveRecord, raw []byte, err error) {
	in := NewMoveReader(bytes.NewReader(b), 1000)
	for {
		r, err := in.Next(true)
		if err == io.EOF {
			return all, raw, nil
		}
		if err != nil {
			return all, raw, err
		}
		r.Payload = append([]byte{}, r.Payload...)
		all, raw = append(all, r), append(raw, in.Raw...)
	}
}

func TestMovedRecordsComeAsTheyWereSent(t *testing.T) {
	want := moveRecords()
	var sent []byte
	for _, r := range want {
		sent = AppendMoveRecord(sent, r)
	}
	whole := AppendMoveEnd(bytes.Clone(sent), uint64(len(want)))
	got, raw, err := readMoved(whole)
	if err != nil || !reflect.DeepEqual(got, want) || !bytes.Equal(raw, sent) {
		t.Errorf("%v: got %+v", err, got)
	}
	for n := range whole {
		if _, _, err := readMoved(whole[:n]); !errors.Is(err, ErrMoveCut) {
			t.Fatalf("cut at %d of %d: %v", n, len(whole), err)
		}
		for bit := range 8 {
			bad := bytes.Clone(whole)
			bad[n] ^= 1 << bit
			if _, _, err := readMoved(bad); err == nil {
				t.Fatalf("byte %d with bit %d flipped is taken", n, bit)
			}
		}
	}
	if _, _, err := readMoved(AppendMoveEnd(bytes.Clone(sent), uint64(len(want))+1)); err == nil {
		t.Error("a stream that lacks a record is taken")
	}
	// A stream that need not have an end record may end after any record.
	in := NewMoveReader(bytes.NewReader(sent), 1000)
	for range want {
		if _, err := in.Next(false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Next(false); err != io.EOF {
		t.Errorf("the end is %v", err)
	}
	large := AppendMoveRecord(nil, &MoveRecord{ID: "v", Version: 1, Payload: make([]byte, 5000)})
	if _, _, err := readMoved(large); err == nil || errors.Is(err, ErrMoveCut) {
		t.Errorf("a record over the limit: %v", err)
	}
}

func FuzzMovedRecord(f *testing.F) {
	for _, r := range moveRecords() {
		f.Add(AppendMoveRecord(nil, r)[moveHead:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeMoveRecord(b)
		if err != nil {
			return
		}
		if r.Kind == kindLock {
			r.hold()
		}
		if again := AppendMoveRecord(nil, r)[moveHead:]; !bytes.Equal(again, b) {
			t.Errorf("%x is read as %x", b, again)
		}
		r.shift(5)
	})
}

// TestMarksFormat pins the format of the marks.
func TestMarksFormat(t *testing.T) {
	moves := map[string]Move{
		"shop":  {State: Frozen, ID: "I", Peer: "http://b", Before: &Move{State: Here, ID: "H", Peer: "http://a"}},
		"a\xff": {State: Arriving, ID: "J", Peer: "unix:/x", Attempt: "T"},
	}
	const golden = `[{"account":"Yf8=","state":"arriving","id":"J","peer":"unix:/x","attempt":"T"},` +
		`{"account":"c2hvcA==","state":"frozen","id":"I","peer":"http://b","before":{"state":"here","id":"H","peer":"http://a"}}]`
	data, err := encodeMarks(moves)
	if err != nil || string(data) != golden {
		t.Errorf("%v: got %s", err, data)
	}
	back, err := decodeMarks([]byte(golden))
	if err != nil || !reflect.DeepEqual(back, moves) {
		t.Errorf("%v: got %+v", err, back)
	}
	for _, bad := range []string{"", "{}", `[{"account":"Yf8=","state":"flying"}]`, `[{"account":"?"}]`} {
		if _, err := decodeMarks([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestRemovalStopsWhereTheAccountComesBack removes what an account has left behind while the
// account comes back.
func TestRemovalStopsWhereTheAccountComesBack(t *testing.T) {
	d := mustOpen(t, small(t))
	defer mustClose(t, d)
	start, err := d.Freeze("acc", "there")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Depart("acc", start.ID); err != nil {
		t.Fatal(err)
	}
	mark := d.MoveOf("acc")
	back, err := d.Arrive(t.Context(), "acc", "back", "there", 9, 9)
	if err != nil {
		t.Fatal(err)
	}
	records := moveRecords()
	if err := d.Import("acc", "back", back.Attempt, records); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		err := d.Do(&moveOut{kind: r.Kind, key: Key{"acc", r.ID}, mark: mark})
		if conflict := (*ConflictError)(nil); !errors.As(err, &conflict) {
			t.Errorf("kind %d is removed: %v", r.Kind, err)
		}
	}
	again, err := d.Arrive(t.Context(), "acc", "back", "there", 9, 9)
	if err != nil {
		t.Fatal(err)
	}
	err = d.Do(&moveOut{kind: kindSequence, key: Key{"acc", "s"}, mark: back})
	if conflict := (*ConflictError)(nil); !errors.As(err, &conflict) {
		t.Errorf("an older attempt removes: %v", err)
	}
	if err := errors.Join(d.Import("acc", "back", again.Attempt, records[:3]), d.Arrived("acc", "back", again.Attempt), d.Open("acc", "back")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sequence(Key{"acc", "s"}); err != nil {
		t.Error(err)
	}
}
