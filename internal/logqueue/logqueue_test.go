package logqueue

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

const patience = 20 * time.Second

// reader takes what is written to it once it is allowed to.
type reader struct {
	entered chan struct{} // a send for each write that begins
	allowed chan error    // a receive for each write; an error fails it
	mu      sync.Mutex    // guards text
	text    string
}

func newReader() *reader {
	return &reader{entered: make(chan struct{}, 1000), allowed: make(chan error, 1000)}
}

func (r *reader) Write(p []byte) (int, error) {
	r.entered <- struct{}{}
	if err := <-r.allowed; err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text += string(p)
	return len(p), nil
}

func (r *reader) read() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text
}

func TestWritersDoNotWaitForTheReaderAndItLearnsWhatItMissed(t *testing.T) {
	r := newReader()
	q := New(r)
	fmt.Fprintln(q, "first")
	<-r.entered
	line := strings.Repeat("x", 1023) + "\n"
	for range Size/len(line) + 12 {
		fmt.Fprint(q, line)
	}
	if n := q.Dropped(); n != 12 {
		t.Errorf("%d lines dropped, want 12", n)
	}
	close(r.allowed)
	q.Close(patience)
	text := r.read()
	if n := strings.Count(text, line); !strings.HasPrefix(text, "first\n") || n != Size/len(line) {
		t.Errorf("the reader got %d lines, want %d after the first", n, Size/len(line))
	}
	if n := strings.Count(text, `level=WARN msg="12 log lines were dropped"`); n != 1 {
		t.Errorf("it was told %d times that 12 lines were dropped, want once", n)
	}
}

func TestFailedWritesCountAsDroppedAndAreSaidLater(t *testing.T) {
	r := newReader()
	q := New(r)
	for range 3 {
		r.allowed <- errors.New("broken pipe")
		fmt.Fprintln(q, "lost")
		<-r.entered
	}
	r.allowed <- nil
	r.allowed <- nil
	// The fourth line may be written together with the third, which is lost.
	for end := time.Now().Add(patience); q.Dropped() < 3 && time.Now().Before(end); {
		runtime.Gosched()
	}
	fmt.Fprintln(q, "back")
	q.Close(patience)
	if text := r.read(); !strings.HasPrefix(text, "back\n") || !strings.Contains(text, `"3 log lines were dropped"`) {
		t.Errorf("the reader got %q, want the line after the lost ones and their number", text)
	}
	if n := q.Dropped(); n != 3 {
		t.Errorf("%d lines dropped, want 3", n)
	}
}

func TestCloseDoesNotWaitBeyondItsLimit(t *testing.T) {
	r := newReader()
	defer close(r.allowed)
	q := New(r)
	fmt.Fprintln(q, "stuck")
	<-r.entered
	returned := make(chan struct{})
	go func() {
		q.Close(time.Millisecond)
		close(returned)
	}()
	select {
	case <-returned:
	case <-time.After(patience):
		t.Fatal("it waits for a reader that does not read")
	}
}
