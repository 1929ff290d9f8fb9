package names

import (
	"bytes"
	"errors"
	"fmt"
)

// Report is what Check read.
type Report struct {
	Runs int
	Keys uint64 // entries of the runs; a key that was removed may have two
	Seq  uint64 // what the last Save was given
}

// Check reads every block of the index in o.Dir and changes nothing. Without o.ID it takes
// the index of any directory. The error wraps fs.ErrNotExist if no index was saved, and
// ErrDamaged if Open or a page could find damage in it.
func Check(o Options) (Report, error) {
	m, err := readManifest(&o)
	if err != nil {
		return Report{}, err
	}
	o.ID = m.id
	rep := Report{Runs: len(m.runs), Seq: m.seq}
	for _, ref := range m.runs {
		r, err := openRun(&o, ref)
		if err != nil {
			return rep, err
		}
		if err := errors.Join(r.check(), r.release()); err != nil {
			return rep, err
		}
		rep.Keys += r.keys
	}
	return rep, nil
}

// check reads every entry.
func (r *run) check() error {
	c, err := r.seek("")
	if err != nil {
		return err
	}
	n := uint64(0)
	var last []byte
	for c.ok {
		if n > 0 && bytes.Compare(c.key, last) <= 0 {
			return c.damaged(fmt.Errorf("the key %q is not behind %q", c.key, last))
		}
		last = append(last[:0], c.key...)
		n++
		if err := c.advance(); err != nil {
			return err
		}
	}
	if n != r.keys {
		return c.damaged(fmt.Errorf("it holds %d keys, want %d", n, r.keys))
	}
	return nil
}
