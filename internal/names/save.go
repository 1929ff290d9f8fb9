package names

import (
	"errors"
	"slices"
)

// Save makes the current index durable. It keeps seq for the next Open: a number of the
// caller's that says which changes the index has at least. 0 keeps the last seq. After
// an error the index is as before, and the next Save tries again.
func (x *Index) Save(seq uint64) error {
	x.saving.Lock()
	defer x.saving.Unlock()
	if seq == 0 {
		seq = x.seq
	}
	wrote, err := x.writeMemory()
	if err != nil {
		return err
	}
	if !x.complete || !wrote && seq == x.seq {
		return nil
	}
	return x.writeManifest(seq)
}

// writeMemory makes a run of the table in memory.
func (x *Index) writeMemory() (wrote bool, err error) {
	x.mu.Lock()
	if x.mem.n == 0 {
		x.mu.Unlock()
		return false, nil
	}
	x.frozen, x.mem = x.mem, new(table)
	frozen, oldest := x.frozen, len(x.runs) == 0
	x.mu.Unlock()
	var all []entry
	frozen.each(func(e entry) { all = append(all, e) })
	r, err := x.writeRun(newSlice(all), oldest)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.frozen = nil
	if err != nil {
		frozen.each(func(e entry) {
			if i := x.mem.from(e.key, e.key+"\x00", 1); len(i) == 0 {
				x.mem.put(e.key, e.gone)
			}
		})
		return false, err
	}
	if r != nil {
		x.runs = slices.Insert(slices.Clone(x.runs), 0, r)
	}
	return true, nil
}

// writeRun writes the entries of a source to a run. It returns nil if there are none. The
// oldest run needs no entries for removed keys.
func (x *Index) writeRun(s source, oldest bool) (*run, error) {
	w, err := createRun(&x.o, x.next)
	if err != nil {
		return nil, err
	}
	x.next++
	for {
		e, ok := s.entry()
		if !ok {
			break
		}
		if !e.gone || !oldest {
			if err := w.add(e); err != nil {
				return nil, errors.Join(err, w.abandon())
			}
		}
		if err := s.advance(); err != nil {
			return nil, errors.Join(err, w.abandon())
		}
	}
	if w.keys == 0 {
		return nil, w.abandon()
	}
	r, err := w.finish()
	if err != nil {
		return nil, errors.Join(err, w.abandon())
	}
	return r, nil
}

// writeManifest makes the manifest name the current runs.
func (x *Index) writeManifest(seq uint64) error {
	x.mu.RLock()
	m := manifest{seq: seq}
	for _, r := range x.runs {
		m.runs = append(m.runs, runRef{r.number, r.size})
	}
	x.mu.RUnlock()
	if err := m.write(&x.o); err != nil {
		return err
	}
	x.seq = seq
	return nil
}

// mergeRuns is how many runs of about the same size are merged at a time.
const mergeRuns = 4

// Merge merges the newest runs into one, if there are many of similar size. It reports
// whether it did; if so, there may be more to merge.
func (x *Index) Merge() (did bool, err error) {
	x.saving.Lock()
	defer x.saving.Unlock()
	x.mu.RLock()
	all := x.runs
	x.mu.RUnlock()
	n := mergeable(all)
	if n == 0 {
		return false, nil
	}
	var sources []source
	for _, r := range all[:n] {
		c, err := r.seek("")
		if err != nil {
			return false, err
		}
		sources = append(sources, c)
	}
	m, err := newMerge(sources)
	if err != nil {
		return false, err
	}
	defer m.close()
	merged, err := x.writeRun(m, n == len(all))
	if err != nil {
		return false, err
	}
	x.mu.Lock()
	now := slices.Clone(all[n:])
	if merged != nil {
		now = slices.Insert(now, 0, merged)
	}
	x.runs = now
	x.mu.Unlock()
	if x.complete {
		err = x.writeManifest(x.seq)
	}
	for _, r := range all[:n] {
		// A start needs the files as long as the manifest on disk names them.
		r.dropped.Store(err == nil)
		err = errors.Join(err, r.release())
	}
	return true, err
}

// mergeable returns how many of the newest runs to merge: 0, or at least mergeRuns. A
// run is included if it is not much larger than all newer ones together.
func mergeable(runs []*run) int {
	n, total := 0, int64(0)
	for _, r := range runs {
		if n > 0 && r.size > 2*total {
			break
		}
		total += r.size
		n++
	}
	if n < mergeRuns {
		return 0
	}
	return n
}
