package db

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestSemaphoreOfMutexesLetsInAsManyAsItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMutexes(10)
		three := LockRequest{Key: gate, Dur: time.Minute, Limit: 3, Wait: time.Hour}
		for range 3 {
			mustLock(t, m, three)
		}
		fourth := lockLater(m, three)
		mustUnlock(t, m, UnlockRequest{Key: gate, Token: 2})
		fourth.want(t, 4, 0)
		fifth := lockLater(m, three)
		fifth.want(t, 5, time.Minute) // each has its own end
		if s := m.Stats(); s.Held != 1 || s.Holders != 1 || s.Expired != 3 {
			t.Fatalf("got %+v", s)
		}
	})
}

func TestReadersOfAMutexWaitForTheWriterBeforeThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMutexes(10)
		reader := LockRequest{Key: gate, Dur: time.Hour, Shared: true, Wait: time.Minute}
		one := mustLock(t, m, reader)
		mustLock(t, m, reader)
		writer := lockLater(m, LockRequest{Key: gate, Dur: time.Hour, Wait: time.Minute})
		third, fourth := lockLater(m, reader), lockLater(m, reader)
		mustUnlock(t, m, UnlockRequest{Key: gate, Token: one})
		// A writer that hangs up lets the readers in at once.
		writer.cancel(errors.New("gone"))
		third.want(t, 3, 0)
		fourth.want(t, 4, 0)
		if s := m.Stats(); s.Holders != 3 {
			t.Fatalf("got %+v", s)
		}
	})
}

// The second call is a retry behind a proxy that keeps the first.
func TestTwoWaitingCallsWithOneIdGetTheMutexTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, hangsUp := range []bool{false, true} {
			m := testMutexes(1)
			mustLock(t, m, LockRequest{Key: gate, Dur: time.Hour})
			first := lockLater(m, LockRequest{Key: gate, Owner: "bob", Dur: time.Second, Wait: time.Minute})
			second := lockLater(m, LockRequest{Key: gate, Owner: "bob", Dur: time.Hour, Wait: time.Minute})
			if hangsUp {
				first.cancel(errors.New("gone"))
				synctest.Wait()
			}
			mustUnlock(t, m, UnlockRequest{Key: gate})
			if !hangsUp {
				first.want(t, 2, 0)
			}
			second.want(t, 2, 0)
			all, err := m.Holders(gate, 0)
			if err != nil || len(all.Holders) != 1 || all.Holders[0].TTL != time.Hour {
				t.Fatalf("got %+v, %v", all, err)
			}
		}
	})
}

func TestMutexHoldersAndQueueAreListedUpToAHundred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMutexes(1000)
		if _, err := m.Holders(gate, 0); err != ErrNotFound {
			t.Fatalf("a free mutex: %v", err)
		}
		for i := range MaxListed + 20 {
			mustLock(t, m, LockRequest{Key: gate, Owner: fmt.Sprint(i), Dur: time.Minute, Shared: true})
		}
		for i := range MaxListed + 10 {
			lockLater(m, LockRequest{Key: gate, Owner: fmt.Sprint("w", i), Dur: time.Minute, Wait: time.Hour})
		}
		<-time.After(time.Second) // of the bubble's clock
		all, err := m.Holders(gate, 0)
		if err != nil || len(all.Holders) != MaxListed || len(all.Queue) != MaxListed {
			t.Fatalf("%d holders and %d waiters are listed, %v", len(all.Holders), len(all.Queue), err)
		}
		for i, h := range all.Holders {
			if h.Owner != fmt.Sprint(i) || h.Token != int64(i+1) || h.TTL != 59*time.Second || h.Waiters != MaxListed+10 {
				t.Fatalf("holder %d: %+v", i, h)
			}
		}
		if i := slices.IndexFunc(all.Queue, func(w Waiter) bool { return w.Waited != time.Second }); i >= 0 || all.Queue[99].Owner != "w99" {
			t.Fatalf("waiter %d: %+v", i, all.Queue[max(i, 0)])
		}
		one, err := m.Holders(gate, 7)
		if err != nil || len(one.Holders) != 1 || one.Holders[0].Owner != "6" || one.Queue != nil {
			t.Fatalf("the holder with token 7: %+v, %v", one, err)
		}
		var held *HeldError
		if _, err := m.Holders(gate, 9999); !errors.As(err, &held) || held.Holder.Token != 1 {
			t.Fatalf("a token that holds nothing: %v", err)
		}
		mustUnlock(t, m, UnlockRequest{Key: gate, Force: true})
		if all, _ := m.Holders(gate, 0); len(all.Holders) != 1 || all.Holders[0].Owner != "w0" {
			t.Fatalf("after force: %+v", all.Holders)
		}
		m.Drain()
		synctest.Wait()
		<-time.After(time.Hour) // of the bubble's clock
		wantNoneLeft(t, m)
	})
}

func TestRefusalOfAMutexAtRestSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := testMutexes(10)
		token := mustLock(t, m, LockRequest{Key: gate, Owner: "job", Dur: time.Second, Least: time.Minute})
		mustUnlock(t, m, UnlockRequest{Key: gate, Owner: "job"})
		rest := Holder{Owner: "job", Token: token, TTL: time.Minute, Expires: time.Unix(0, time.Now().Add(time.Minute).UnixNano())}
		_, err := m.Lock(t.Context(), LockRequest{Key: gate, Owner: "job", Dur: time.Second})
		wantHeld(t, err, `mutex "gate" is held; the holder is "job"; it was given back or expired, and stays held for its least time`, rest)
		next := lockLater(m, LockRequest{Key: gate, Owner: "job", Dur: time.Second, Wait: time.Hour})
		next.want(t, token+1, time.Minute)
	})
}
