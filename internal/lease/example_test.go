package lease_test

import (
	"fmt"

	"clouddragon/internal/lease"
)

// A writer waits for a reader, and a group of steps is taken back.
func Example() {
	var last int64
	table := lease.New(func(lease.Key, bool) (int64, error) { last++; return last, nil }, lease.NewLimit(100))
	k := lease.Key{Acc: "shop", ID: "till"}

	table.Acquire(0, k, lease.Request{Owner: "reader", Dur: 30, Limit: lease.Shared}, nil)
	writer := &lease.Waiter{Data: "the writer's connection"}
	res := table.Acquire(1, k, lease.Request{Owner: "writer", Dur: 30, Wait: 60}, writer)
	fmt.Println("queued:", res.Outcome == lease.Queued)

	mark := table.Mark()
	for _, e := range table.Release(2, k, "reader", 0, false).Events {
		fmt.Println(e.Holder.Owner, "ended:", e.Kind == lease.HolderEnded, "waiters answered:", len(e.Waiters))
	}
	table.Undo(mark) // say the disk had no room for it
	table.Forget()

	h, _ := table.Oldest(2, k)
	fmt.Println("held by", h.Owner, "and waited for by", table.Queue(k, 10)[0].Owner)
	// Output:
	// queued: true
	// reader ended: true waiters answered: 0
	// writer ended: false waiters answered: 1
	// held by reader and waited for by writer
}
