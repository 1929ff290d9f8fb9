package wal_test

import (
	"context"
	"fmt"
	"log"

	"clouddragon/internal/test/memdisk"
	"clouddragon/kvlog/wal"
)

// open starts a log and prints what it holds after the checkpoint.
func open(o wal.Options, checkpoint wal.Pos) (*wal.Log, error) {
	l, err := wal.Open(o, checkpoint, []uint64{checkpoint.Segment})
	if err != nil {
		return nil, err
	}
	tail, err := l.Replay(func(seq uint64, recs wal.Records) error {
		for rec := range recs.All() {
			fmt.Printf("batch %d: type %d, %q\n", seq, rec.Type, rec.Body)
		}
		return nil
	})
	if err == nil {
		err = l.Repair(tail)
	}
	// The caller writes its checkpoint again here.
	if err == nil {
		err = l.Start(tail)
	}
	return l, err
}

// A new log, two batches, and a start that replays them.
func Example() {
	o := wal.Options{FS: memdisk.New(), Dir: "log", ID: [16]byte{1, 2, 3}}
	checkpoint, err := wal.Create(o)
	if err != nil {
		log.Fatal(err)
	}
	l, err := open(o, checkpoint)
	if err != nil {
		log.Fatal(err)
	}
	var b wal.Batch
	for _, records := range [][]string{{"one", "two"}, {"three"}} {
		b.Reset()
		for _, body := range records {
			b.AddBytes(1, []byte(body))
		}
		if _, err := l.Append(&b); err != nil { // durable when it returns
			log.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		log.Fatal(err)
	}
	if l, err = open(o, checkpoint); err != nil {
		log.Fatal(err)
	}
	if err := l.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// batch 1: type 1, "one"
	// batch 1: type 1, "two"
	// batch 2: type 1, "three"
}

// A reader follows the log while it is appended to.
func ExampleLog_NewReader() {
	o := wal.Options{FS: memdisk.New(), Dir: "log", ID: [16]byte{1, 2, 3}}
	checkpoint, err := wal.Create(o)
	if err != nil {
		log.Fatal(err)
	}
	l, err := open(o, checkpoint)
	if err != nil {
		log.Fatal(err)
	}
	r, err := l.NewReader(l.Durable())
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		var b wal.Batch
		b.AddBytes(1, []byte("news"))
		if _, err := l.Append(&b); err != nil {
			log.Fatal(err)
		}
	}()
	seq, recs, err := r.Next(context.Background()) // waits for the batch
	if err != nil {
		log.Fatal(err)
	}
	for rec := range recs.All() {
		fmt.Printf("batch %d: %s\n", seq, rec.Body)
	}
	r.Close()
	if err := l.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// batch 1: news
}
