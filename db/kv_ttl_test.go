package db

import (
	"errors"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// wantTTLOf checks what a key holds and how long it has left.
func wantTTLOf(t *testing.T, d *DB, k Key, data string, version int64, left time.Duration) {
	t.Helper()
	v, err := d.Get(k)
	if err != nil || string(v.Data) != data || v.Version != version || v.Left != left || v.Type != "a/b" || v.Encoding != "gzip" {
		t.Errorf("%v is %+v, %v; want %q, version %d, %v left", k, v, err, data, version, left)
	}
}

func TestANewEndLeavesValueAndVersion(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	k := Key{"a", "v"}
	set := ValueSet{Key: k, Data: []byte("data"), Type: "a/b", Encoding: "gzip", Conditions: Conditions{Check: AnyVersion}}
	wantDone(t, "set", d.Do(&set))
	version := set.Version
	retime := func(ttl time.Duration, check int64) error {
		op := ValueTTL{Key: k, TTL: ttl, Conditions: Conditions{Check: check}}
		err := d.Do(&op)
		if err == nil && op.Version != version {
			t.Errorf("the answer is version %d, want %d", op.Version, version)
		}
		return err
	}
	wantDone(t, "an end", retime(time.Minute, AnyVersion))
	wantTTLOf(t, d, k, "data", version, time.Minute)
	clock.pass(time.Second)
	wantTTLOf(t, d, k, "data", version, 59*time.Second)
	wantDone(t, "no end", retime(0, version))
	wantTTLOf(t, d, k, "data", version, 0)
	if err := retime(time.Hour, version+1); !isConflict(err) {
		t.Errorf("of another version: %v", err)
	}
	var match *MatchError
	op := ValueTTL{Key: k, TTL: time.Hour, Conditions: Conditions{Check: AnyVersion, Match: Versions{Given: true, List: []int64{version + 1}}}}
	if err := d.Do(&op); !errors.As(err, &match) {
		t.Errorf("another version matches: %v", err)
	}
	wantTTLOf(t, d, k, "data", version, 0)
	wantDone(t, "an end", retime(time.Minute, version))

	for _, rebuilt := range []bool{false, true} {
		mustClose(t, d)
		if rebuilt {
			dropAnyIndex(t, fs, o.Dir)
		}
		d = mustOpen(t, o)
		wantTTLOf(t, d, k, "data", version, time.Minute)
	}
	// The next version is larger all the same.
	other := ValueSet{Key: Key{"a", "other"}, Conditions: Conditions{Check: AnyVersion}}
	wantDone(t, "set", d.Do(&other))
	if other.Version <= version {
		t.Errorf("version %d after %d", other.Version, version)
	}
	clock.pass(time.Minute)
	if err := retime(time.Minute, AnyVersion); !errors.Is(err, ErrNotFound) {
		t.Errorf("a value that is over: %v", err)
	}
	if err := d.Do(&ValueTTL{Key: Key{"a", "none"}, Conditions: Conditions{Check: AnyVersion}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no value: %v", err)
	}
	mustClose(t, d)
}

func dropAnyIndex(t *testing.T, fs *memdisk.FS, dir string) {
	t.Helper()
	if err := fs.Remove(dir + "/index"); err != nil {
		t.Fatal(err)
	}
}

// The new expiry applies to the value that is there when the operation is decided: another
// operation may have stored it after this one was submitted, earlier in the same group, or
// with another expiry.
func TestNewEndAppliesToTheCurrentValue(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	k, anything := Key{"a", "v"}, Conditions{Check: AnyVersion}
	set := func(data string) *ValueSet {
		return &ValueSet{Key: k, Data: []byte(data), Type: "a/b", Encoding: "gzip", Conditions: anything}
	}
	first, late := set("first"), set("a longer second one")
	wantDone(t, "set", d.Do(first))
	op := ValueTTL{Key: k, TTL: time.Minute, Conditions: anything}
	wantDone(t, "prepare", op.prepare(d))
	wantDone(t, "set", d.Do(late))
	wantDone(t, "decide", d.writer.Do(&op))
	wantTTLOf(t, d, k, "a longer second one", late.Version, time.Minute)

	third := set("third")
	wantDone(t, "a group", d.Do(&Batch{Atomic: true, Ops: []Operation{third, &ValueTTL{Key: k, TTL: time.Hour, Conditions: anything}, &ValueTTL{Key: k, TTL: time.Second, Conditions: anything}}}))
	wantTTLOf(t, d, k, "third", third.Version, time.Second)

	read := ValueRead{Key: k, Conditions: anything}
	wantDone(t, "prepare", read.prepare(d))
	wantDone(t, "an end", d.Do(&ValueTTL{Key: k, TTL: time.Hour, Conditions: anything}))
	wantDone(t, "read", d.writer.Do(&read))
	if read.Value.Left != time.Hour {
		t.Errorf("the read says %v, not the end of now", read.Value.Left)
	}
	gone := ValueTTL{Key: k, TTL: time.Minute, Conditions: anything}
	wantDone(t, "prepare", gone.prepare(d))
	wantDone(t, "delete", d.DeleteValue(k, AnyVersion))
	if err := d.writer.Do(&gone); !errors.Is(err, ErrNotFound) {
		t.Errorf("the value was deleted meanwhile: %v", err)
	}
	mustClose(t, d)
}

func TestANewEndReadsNoMoreThanItMay(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	k, anything := Key{"a", "v"}, Conditions{Check: AnyVersion}
	wantDone(t, "set", d.Do(&ValueSet{Key: k, Data: make([]byte, 1000), Type: "a/b", Encoding: "gzip", Conditions: anything}))
	budget := int64(1000)
	op := ValueTTL{Key: k, TTL: time.Minute, Conditions: anything, Budget: &budget}
	if err := d.Do(&op); !errors.Is(err, ErrTooLarge) {
		t.Errorf("with a budget of 1000 bytes: %v", err)
	}
	budget = op.Needs()
	wantDone(t, "an end", d.Do(&op))
	mustClose(t, d)
}
