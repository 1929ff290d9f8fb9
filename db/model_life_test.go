package db

import (
	"math/rand/v2"

	"pgregory.net/rapid"

	"clouddragon/internal/test/memdisk"
)

// modelDB is the database next to a model, over restarts.
type modelDB struct {
	modelTime
	fs *memdisk.FS
	d  *DB // nil: closed
}

func newModelDB() modelDB { return modelDB{modelTime: newModelTime(), fs: memdisk.New()} }

func (m *modelDB) open(t *rapid.T) {
	o := tiny(m.fs, m.clock)
	o.Segment, o.CheckpointEvery = 8<<10, 4<<10
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	m.d = d
	m.resume(t, d)
}

// end ends the process: cleanly, by a kill, or by a power cut.
func (m *modelDB) end(t *rapid.T) {
	old := m.fs
	how := rapid.SampledFrom([]string{"close", "kill", "power cut"}).Draw(t, "how")
	m.modelTime.end(t, m.d, how == "close")
	switch how {
	case "kill":
		m.fs = old.Reopen()
	case "power cut":
		m.fs = old.Crash(old.Len(), rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "fate"), 0)))
	}
	// Whatever the old process still does does not affect the new one.
	m.close(t)
	if n := old.OpenHandles(); n > 0 {
		t.Fatalf("%d handles stay open", n)
	}
}

func (m *modelDB) close(t *rapid.T) {
	d := m.d
	m.d = nil
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
