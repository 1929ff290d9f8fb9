package db

import (
	"testing"
	"time"
)

// The old server may have handed out more than the new one knows.
func TestTakeOverRaisesWhatIsHandedOut(t *testing.T) {
	o := Options{Dir: t.TempDir(), Segment: 64 << 10, Extent: 8192}
	handOut := func(id string) (token, version int64, left time.Duration) {
		d := mustOpen(t, o)
		take := &LockTake{LockRequest: LockRequest{Key: Key{Acc: "1", ID: id}, Dur: time.Hour}}
		set := &ValueSet{Key: Key{Acc: "1", ID: "v"}, Data: []byte("x"), Conditions: Conditions{Check: AnyVersion}}
		read := &LockRead{Key: Key{Acc: "1", ID: "before"}}
		for _, op := range []Operation{take, set, read} {
			if err := d.Do(op); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		return take.Holder.Token, set.Version, read.Holders.Holders[0].TTL
	}
	token, version, _ := handOut("before")
	if err := TakeOver(o, 10*time.Minute); err != nil {
		t.Fatal(err)
	}
	token2, version2, left := handOut("after")
	if token2-token < takeOverRaise || version2-version < takeOverRaise {
		t.Errorf("token %d after %d, version %d after %d: want them 2^36 higher", token2, token, version2, version)
	}
	if left <= time.Hour {
		t.Errorf("a lock of an hour is held for %v more, want ten minutes of grace", left)
	}
}
