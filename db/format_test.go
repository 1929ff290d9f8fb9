package db

import (
	"fmt"
	"math/bits"
	"path"
	"testing"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/test/golden"
	"clouddragon/internal/test/memdisk"
)

func TestLogRecordsAreAlwaysTheseBytes(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	o := tiny(fs, clock)
	d := mustOpen(t, o)
	d.store.Tables.ID = golden.ID
	const batchHeader = 48
	at := d.writer.Position().Log.Offset
	want := func(what, records string) {
		t.Helper()
		all, err := fs.ReadFile(path.Join(o.Dir, "log/00000001.seg"))
		wantDone(t, "read the log", err)
		end := d.writer.Position().Log.Offset
		golden.Want(t, what, all[at+batchHeader:end], records)
		at = end
	}
	do := func(op Operation) {
		t.Helper()
		wantDone(t, "operation", d.Do(op))
	}
	do(&SequenceAdd{Key: Key{"acc", "seq"}, N: 0x0102030405060708})
	want("a sequence", `48000000 01 000000 0000000000000000
		c63fad36 01 03 03 08 0807060504030201 616363 736571`+golden.Zeros(42))

	do(&CounterAdd{Key: Key{"acc", "seq"}, Add: -2, Min: -10, Max: 10})
	want("a counter", `48000000 01 000000 0100000000000000
		c87e1db3 02 03 03 08 feffffffffffffff 616363 736571`+golden.Zeros(42))

	do(&NumberReset{Key: Key{"acc", "seq"}})
	want("a slot that is free again", `48000000 01 000000 0000000000000000
		bc28bd20 00 00 00 00`+golden.Zeros(56))

	const now = `10000000 03 000000 0000b49376e2fa18 0000b49376e2fa18`
	do(&CounterAdd{Key: Key{"acc", "end"}, Add: -2, Min: -10, Max: 10, TTL: time.Second})
	want("a counter with an end", `48000000 01 000000 0000000000000000
		12914a8a 02 03 03 10 feffffffffffffff 00ca4ecf76e2fa18 616363 656e64`+golden.Zeros(34)+now)

	d.tokens.Skip(1<<20 - 0x41)
	first, _ := d.tokens.Take()
	token, err := d.Lock(t.Context(), LockRequest{Key: Key{"acc", "l"}, Owner: "me", Dur: time.Second, Limit: 3, Least: time.Minute})
	wantDone(t, "a lock", err)
	if token != first+1 {
		t.Fatalf("the token is %d, want %d", token, first+1)
	}
	want("a lock", `08010000 01 000000 0000000000000080
		882c4e6f 83 03 01 9e 00ca4ecf76e2fa18 0000b49376e2fa18 0058fb8b84e2fa18 03000000 00 02 6d65`+golden.Zeros(126)+fmt.Sprintf("%016x", bits.ReverseBytes64(uint64(token)))+`616363 6c`+golden.Zeros(78)+now)

	wantDone(t, "tokens", d.writer.Do(commit.ReserveTokens{}))
	want("a block of tokens", `08000000 02 000000`+fmt.Sprintf("%016x", bits.ReverseBytes64(uint64(token+commit.TokenBlock))))
	mustClose(t, d)
}
