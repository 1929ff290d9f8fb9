package front

import (
	"bufio"
	"slices"
	"sync"
	"testing"
)

// A Submit that is held up, as by the read of an old value, may not have told anybody yet what comes
// first. What the client has sent behind that must not overtake it; other clients go on.
func TestStalledSubmitIsNotOvertakenByItsConnection(t *testing.T) {
	var (
		mu    sync.Mutex // guards order
		order []string
	)
	began, release, started := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f := &fakePlain{}
	f.start = func(x *Exchange) Verdict {
		if x.Request.URL.Path == "/2" {
			close(started)
		}
		return Pending
	}
	f.submit = func(xs []*Exchange, _ bool) {
		if xs[0].Request.URL.Path == "/1" {
			close(began)
			<-release
		}
		for _, x := range xs {
			mu.Lock()
			order = append(order, x.Request.URL.Path)
			mu.Unlock()
			x.Done()
		}
	}
	r := newLoopRig(t, f, 10, nil)
	c, other := r.dial(), r.dial()
	r.send(c, ask("POST", "/1"))
	<-began
	r.send(c, ask("POST", "/2"))
	<-started
	r.send(other, ask("POST", "/3"))
	r.want(bufio.NewReader(other), "done /3")
	close(release)
	b := bufio.NewReader(c)
	r.want(b, "done /1")
	r.want(b, "done /2")
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"/3", "/1", "/2"}; !slices.Equal(order, want) {
		t.Errorf("the order is %v, want %v", order, want)
	}
}
