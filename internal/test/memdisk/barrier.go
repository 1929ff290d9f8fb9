package memdisk

import (
	"strings"
	"sync"
)

// Barrier stops a writer at its next sync of the log.
type Barrier struct {
	Reached chan struct{} // closed once the writer is there
	Pass    chan error    // takes what the sync returns
}

// NewBarrier makes the next sync of the current log segment wait. It replaces the disk's hook.
func (d *FS) NewBarrier() *Barrier {
	g := &Barrier{Reached: make(chan struct{}), Pass: make(chan error)}
	var (
		once    sync.Once
		mu      sync.Mutex // guards written
		written string
	)
	d.Fail(func(op Op) error {
		if !strings.HasSuffix(op.Name, ".seg") {
			return nil
		}
		mu.Lock()
		if op.Kind == Write && op.Off > 0 {
			written = op.Name
		}
		here := op.Kind == Sync && op.Name == written
		mu.Unlock()
		var err error
		if here {
			once.Do(func() {
				close(g.Reached)
				err = <-g.Pass
			})
		}
		return err
	})
	return g
}

// Open lets the writer continue.
func (g *Barrier) Open() { g.Pass <- nil }
