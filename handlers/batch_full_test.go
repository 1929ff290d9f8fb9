package handlers

import (
	"fmt"
	"strings"
	"testing"

	"clouddragon/db"
	"clouddragon/internal/test/memdisk"
)

// fullRig returns a server with some things whose disk has no room left for values of least
// bytes.
func fullRig(t *testing.T, least int) *rig {
	fs := memdisk.New()
	r := newRigOn(t, db.Options{FS: fs}, nil)
	for _, a := range []reply{r.put("/db/1/kv/old", "value"), r.put("/db/1/kv/other", "value"), r.do("POST", "/db/1/lock/door?id=me&dur=1h")} {
		if a.status != 200 {
			t.Fatal(a)
		}
	}
	fs.SetRoom(fs.Used())
	n := 0
	for size := 1 << 20; size >= least; size /= 4 {
		for ; r.put(fmt.Sprintf("/db/1/kv/filler%d", n), strings.Repeat("f", size)).status == 200; n++ {
		}
	}
	if a := r.put("/db/1/kv/new", strings.Repeat("n", least)); a.status != 507 {
		t.Fatalf("the disk is not full: %v", a)
	}
	return r
}

// A batch with atomic=false does on a full disk what its calls would do alone.
func TestCallsOnTheirOwnGoOnAsFarAsAFullDiskAllows(t *testing.T) {
	r := fullRig(t, 1)
	full := "507 " + db.ErrFull.Error() + "\n"
	r.wantBatch("?atomic=false", "POST counter/c\nGET kv/old\nDELETE kv/old\nPUT kv/new x\nGET kv/old\nDELETE lock/door?id=me\nGET lock/door\nPATCH kv/other?ttl=1h\n",
		full+"200 value\n204\n"+full+"404 there is no kv \"old\" of account \"1\"\n204\n404 lock \"door\" of account \"1\" is not locked\n"+full)
	r.want(404, "*", "GET", "/db/1/kv/old")
	r.want(404, "*", "GET", "/db/1/counter/c")
	r.want(404, "*", "GET", "/db/1/lock/door")

	// The same as JSON.
	r.wantBatch("?atomic=false", `[{"method":"POST","path":"counter/c"},{"method":"DELETE","path":"kv/other"}]`,
		`[{"status":507,"error":"`+db.ErrFull.Error()+`"},{"status":204}]`+"\n")
}

// A batch that is refused as a whole on a full disk changes nothing.
func TestABatchThatNeedsRoomIsRefusedOnAFullDisk(t *testing.T) {
	r := fullRig(t, 1)
	for _, c := range []struct{ name, query, body, header string }{
		{"all or nothing", "", "DELETE kv/old\nPOST counter/c\n", "X: y"},
		{"calls that all need room", "?atomic=false", "POST counter/c\nPUT kv/new x\n", "X: y"},
		{"with a key, whose answer needs room", "?atomic=false", "DELETE kv/old\nPOST counter/c\n", "Idempotency-Key: a"},
	} {
		r.checkRefusal(r.batch(c.query, c.body, c.header), 507, db.ErrFull.Error(), c.name)
		r.want(200, "value", "GET", "/db/1/kv/old")
		r.want(404, "*", "GET", "/db/1/counter/c")
	}
}

// The refusals of a full disk are not kept, although there is room for the answer.
func TestABatchWithAKeyIsDoneOnceThereIsRoom(t *testing.T) {
	const size = 256 << 10
	r := fullRig(t, size)
	body := "DELETE kv/old\nPUT kv/new " + strings.Repeat("n", size) + "\n"
	for range 2 {
		r.checkRefusal(r.batch("?atomic=false", body, "Idempotency-Key: a"), 507, db.ErrFull.Error(), "a batch with a key")
		r.want(200, "value", "GET", "/db/1/kv/old")
	}
	r.wantBatch("?atomic=false", body, "204\n507 "+db.ErrFull.Error()+"\n")
}
