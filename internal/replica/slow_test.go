package replica

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"clouddragon/internal/disk"
)

// slowDisk makes a sync wait while a test holds the lock.
type slowDisk struct {
	disk.OS
	held *sync.RWMutex
}

func (d slowDisk) Open(name string) (disk.File, error)   { return d.slow(d.OS.Open(name)) }
func (d slowDisk) Create(name string) (disk.File, error) { return d.slow(d.OS.Create(name)) }

func (d slowDisk) slow(f disk.File, err error) (disk.File, error) {
	if err != nil {
		return nil, err
	}
	return slowFile{f, d.held}, nil
}

type slowFile struct {
	disk.File
	held *sync.RWMutex
}

func (f slowFile) Sync() error {
	f.held.RLock()
	defer f.held.RUnlock()
	return f.File.Sync()
}

// The standby can have a batch before the primary's own disk has it.
func TestStandbyThatIsQuickerThanThePrimaryStays(t *testing.T) {
	r := newRig(t)
	r.stopPrimary()
	var held sync.RWMutex
	r.o.FS = slowDisk{held: &held}
	r.startPrimary()
	r.p.patience = patience // the link must not end because the machine is slow
	r.o.FS = nil            // the standby has a disk of its own
	r.newStandby()
	r.run()
	r.inSync()
	r.mustAdd(3)
	r.p.mu.Lock()
	before := r.p.link
	r.p.mu.Unlock()
	var beats atomic.Int32
	count := func(_ http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path == "/replica/beat" {
			beats.Add(1)
		}
		return false
	}
	held.Lock()
	release := sync.OnceFunc(held.Unlock)
	t.Cleanup(release) // runs before the rig's cleanups
	done := make(chan error, 1)
	go func() { done <- r.add("late") }()
	until(t, "the standby has a batch that the primary lacks", func() bool {
		r.sb.mu.Lock()
		defer r.sb.mu.Unlock()
		return r.sb.f.End().Seq > r.d.Log().Durable().Seq
	})
	r.onWay.Store(&count)
	until(t, "the primary has sent beats meanwhile", func() bool { return beats.Load() >= 2 || !r.p.Status().Live })
	release()
	if err := <-done; err != nil {
		t.Errorf("the batch: %v", err)
	}
	r.mustAdd(3)
	r.p.mu.Lock()
	after := r.p.link
	r.p.mu.Unlock()
	if after != before {
		t.Error("the standby had to join again because it was quicker")
	}
}
