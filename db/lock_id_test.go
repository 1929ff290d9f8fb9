package db

import (
	"context"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// The second call is a retry behind a proxy that keeps the first. Whether it comes before the grant or after it, both
// get the same token.
func TestTwoWaitingCallsWithOneIdGetTheLockTogether(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	token := hold(t, d, "holder", time.Hour)
	first := wait(t, d, context.Background(), 1, "bob")
	second := make(chan grant, 1)
	go func() {
		token, err := d.Lock(context.Background(), LockRequest{Key: door, Owner: "bob", Dur: time.Hour, Wait: time.Hour})
		second <- grant{"bob", token, err}
	}()
	unlock(t, d, token)
	a, b := <-first, <-second
	if a.err != nil || b.err != nil || a.token != b.token || a.token <= token {
		t.Fatalf("got %+v and %+v after token %d", a, b, token)
	}
	wantHolder(t, d, Holder{Owner: "bob", Token: a.token, TTL: time.Hour, Expires: time.Unix(0, epoch).Add(time.Hour)})
	unlock(t, d, a.token)
	mustClose(t, d)
}
