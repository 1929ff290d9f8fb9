package commit_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"clouddragon/db/commit"
	"clouddragon/internal/test/memdisk"
)

// TestPulseTellsAStuckDecisionFromASlowDisk holds up the writer in either place.
func TestPulseTellsAStuckDecisionFromASlowDisk(t *testing.T) {
	fs := memdisk.New()
	r := openRig(t, fs, 1<<20, commit.Options{})
	there, goOn := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	fs.Fail(func(op memdisk.Op) error {
		if op.Kind == memdisk.Sync && strings.HasSuffix(op.Name, "00000001.seg") && held.CompareAndSwap(false, true) {
			there <- struct{}{}
			<-goOn
		}
		return nil
	})
	idle := r.Pulse()
	done := make(chan error, 1)
	go func() {
		done <- r.Do(opFunc(func(tx *commit.Tx) error {
			there <- struct{}{}
			<-goOn
			return put(tx, "a", 1, 0)
		}))
	}()
	<-there
	deciding := r.Pulse()
	if !deciding.Busy || deciding.OnDisk || deciding.Steps <= idle.Steps {
		t.Errorf("while it decides: %+v, before: %+v", deciding, idle)
	}
	if again := r.Pulse(); again != deciding {
		t.Errorf("it is stuck and shows %+v, then %+v", deciding, again)
	}
	goOn <- struct{}{}
	<-there
	writing := r.Pulse()
	if !writing.Busy || !writing.OnDisk || writing.Steps <= deciding.Steps {
		t.Errorf("while it writes: %+v, before: %+v", writing, deciding)
	}
	goOn <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if after := r.Pulse(); after.OnDisk || after.Steps <= writing.Steps {
		t.Errorf("after the answer: %+v, before: %+v", after, writing)
	}
	r.close(t)
	if closed := r.Pulse(); closed.Busy {
		t.Errorf("after Close: %+v", closed)
	}
}
