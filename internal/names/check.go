package names

import (
	"bytes"
	"errors"
	"fmt"
)

// Report says what Check has read.
type Report struct {
	Runs int
	Keys uint64 // entries of the runs; a removed key may have two
	Seq  uint64 // seq of the last Save
}

// Check reads every block of the index in o.Dir and changes nothing. With a zero o.ID it
// accepts the index of any data directory. The error wraps fs.ErrNotExist if no index was
// saved, and ErrDamaged if the index has damage that Open or Page could find.
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
			return c.damaged(fmt.Errorf("the key %q is not after %q", c.key, last))
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
