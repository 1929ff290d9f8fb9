package names

import (
	"errors"
	"slices"
)

// Save makes the index durable as it is now. seq is kept for the next Open: the
// caller's mark of what it has told the index so far, at least. With 0 the last one
// stays. After an error the index is as before, and the next Save tries again.
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

// writeRun writes a run of what a source gives; nil if that is nothing. Where no
// older run lies behind it, keys that are gone need not be kept.
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

// writeManifest names the runs of now.
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

// Merge makes one run of the newest ones, if they are many for their size. It
// returns whether it did, and there may be more to do.
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
		// While the manifest on disk names them, a start needs the files.
		r.dropped.Store(err == nil)
		err = errors.Join(err, r.release())
	}
	return true, err
}

// mergeable returns how many of the newest runs to merge: none, or at least
// mergeRuns, with each run that is not much larger than all before it.
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
