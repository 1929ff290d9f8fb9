package commit

import "sync"

// waiting is a call whose caller waits for the answer.
type waiting struct {
	Call
	answered chan struct{} // has room for one token
}

var waitings = sync.Pool{New: func() any {
	w := &waiting{answered: make(chan struct{}, 1)}
	w.Done = func(*Call) { w.answered <- struct{}{} }
	return w
}}

// Do submits one operation and waits for its answer.
func (w *Writer) Do(op Op) error {
	c := waitings.Get().(*waiting)
	c.Op = op
	err := w.Submit(&c.Call)
	if err == nil {
		<-c.answered
		err = c.Err
	}
	c.Call = Call{Done: c.Done}
	waitings.Put(c)
	return err
}

// Closed reports whether the writer no longer takes calls.
func (w *Writer) Closed() bool {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()
	return w.queue.closed != nil
}
