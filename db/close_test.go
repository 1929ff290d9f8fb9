package db

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// Calls that wait for room are answered when the database is closed: with the error of a
// shutdown, not that of a failed disk.
func TestCallsThatLackRoomAreAnsweredWhenItCloses(t *testing.T) {
	fs := memdisk.New()
	d := mustOpen(t, tiny(fs, newTestClock()))
	waiting, resume := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Allocate && strings.HasSuffix(op.Name, "slots-512") {
			once.Do(func() {
				close(waiting)
				<-resume
			})
		}
		return nil
	})
	answers := make(chan error, 40)
	for i := range cap(answers) { // more than the table has slots for
		go func() { answers <- addN(d, fmt.Sprint(i, strings.Repeat("x", 250)), 1) }()
	}
	<-waiting
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	for !d.writer.Closed() {
		runtime.Gosched()
	}
	close(resume)
	for range cap(answers) {
		if err := <-answers; err != nil && !errors.Is(err, ErrStopping) {
			t.Errorf("the answer is %v", err)
		}
	}
	wantDone(t, "close", <-closed)
}

func TestAMutexThatGetsNoTokenInAShutdownSaysSo(t *testing.T) {
	d := mustOpen(t, tiny(memdisk.New(), newTestClock()))
	mustClose(t, d)
	for range 2 {
		if _, err := d.mutexes.Lock(context.Background(), LockRequest{Key: door, Dur: time.Hour}); !errors.Is(err, ErrStopping) {
			t.Errorf("the answer is %v, want %v", err, ErrStopping)
		}
	}
}
