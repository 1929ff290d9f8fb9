package db_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"clouddragon/db"
	"clouddragon/internal/test/memdisk"
)

// An operation holds its parameters and, once it is done, its answer.
func Example() {
	d, err := db.Open(db.Options{FS: memdisk.New(), Dir: "data"}) // FS is nil for real files
	if err != nil {
		log.Fatal(err)
	}
	block := db.SequenceAdd{Key: db.Key{Acc: "shop", ID: "order"}, N: 100}
	if err := d.Do(&block); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("orders %d to %d\n", block.Value-block.N+1, block.Value)

	// Store a value, then try to replace a version that it does not have.
	version, err := d.Set(db.SetRequest{Key: db.Key{Acc: "shop", ID: "greeting"}, Data: []byte("hello"), Check: db.AnyVersion})
	if err != nil {
		log.Fatal(err)
	}
	_, err = d.Set(db.SetRequest{Key: db.Key{Acc: "shop", ID: "greeting"}, Data: []byte("hi"), Check: version + 1})
	var conflict *db.ConflictError
	fmt.Println("lost:", errors.As(err, &conflict))

	if err := d.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// orders 1 to 100
	// lost: true
}

// A lock has a fencing token, which grows with every grant.
func ExampleDB_Lock() {
	d, err := db.Open(db.Options{FS: memdisk.New(), Dir: "data"})
	if err != nil {
		log.Fatal(err)
	}
	nightly := db.Key{Acc: "cron", ID: "nightly"}
	token, err := d.Lock(context.Background(), db.LockRequest{Key: nightly, Owner: "host1", Dur: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	_, err = d.Lock(context.Background(), db.LockRequest{Key: nightly, Owner: "host2", Dur: time.Hour})
	fmt.Println(err)
	if err := d.Unlock(db.UnlockRequest{Key: nightly, Token: token}); err != nil {
		log.Fatal(err)
	}
	if err := d.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// lock "nightly" is held; the holder is "host1"
}
