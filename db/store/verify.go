package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"clouddragon/internal/disk"
	"clouddragon/internal/names"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
)

// Report is what Verify read.
type Report struct {
	Slots    uint64 // in use
	Values   int    // including expired ones
	Segments int
	Torn     string // what of an unacknowledged write the next start cuts off the log's end; empty: nothing
	Copy     error  // what is wrong with one of CHECKPOINT's two copies, as after a crash between them; nil: nothing

	// Names is what the index of names holds; nil: there is none, or it is damaged.
	Names *names.Report
	// Stale says why the next start rebuilds an index of names without damage; nil: it uses it.
	Stale error
}

// Verify reads every slot and every record of a data directory, and the index of names,
// and reports all damage. It changes nothing. The error is a *disk.LockedError where a server
// has the directory, or says why it could not be read.
// progress may be nil.
func Verify(fsys disk.FS, dir string, report func(*Damage), progress Progress) (Report, error) {
	// The segments that are there may be larger.
	return VerifyWith(Options{FS: fsys, Dir: dir, Segment: wal.MinSegment, Progress: progress}, report)
}

// VerifyWith is Verify for a directory that was made with an Extent of its own.
func VerifyWith(o Options, report func(*Damage)) (Report, error) {
	o.defaults()
	lock, err := lockDir(&o)
	if err != nil && !isNotExist(err) {
		return Report{}, err
	}
	var rep Report
	err = verify(&o, &rep, report)
	if lock != nil {
		err = errors.Join(err, lock.Close())
	}
	return rep, err
}

func verify(o *Options, rep *Report, report func(*Damage)) error {
	o.meter = newMeter(o.Progress)
	ckpt, state, err := openCheckpoint(o.FS, o.Dir)
	var damage *Damage
	switch {
	case isNotExist(err):
		if err := neverUsed(o); !errors.As(err, &damage) {
			return errors.Join(fmt.Errorf("%s is no data directory: it has no %s", o.Dir, checkpointName), err)
		}
		report(damage)
		return verifyNames(o, [16]byte{}, nil, rep, report)
	case errors.As(err, &damage):
		report(damage)
		return verifyNames(o, [16]byte{}, nil, rep, report)
	case err != nil:
		return err
	}
	if err := ckpt.f.Close(); err != nil {
		return err
	}
	rep.Copy = ckpt.fault
	// The log is read as a whole, then as a start reads it, and last its values.
	o.meter.expect(2*segmentBytes(o) + state.tableBytes())
	o.meter.fixed = true
	defer o.meter.end()
	bad := 0
	tail, err := wal.Verify(logOptions(o, state.ID), state.Log, state.Segments, func(d *Damage) {
		bad++
		report(d)
	})
	if err != nil {
		return err
	}
	rep.Segments, rep.Torn = len(state.Segments), tail.Torn
	return verifyTables(o, rep, bad > 0, report)
}

// verifyTables checks the tables as a start would find them. If the log is damaged,
// its images are not known, and only the files' own faults count.
func verifyTables(o *Options, rep *Report, badLog bool, report func(*Damage)) (err error) {
	r, err := read(o)
	defer func() { err = errors.Join(err, r.close()) }()
	if err != nil {
		var damage *Damage
		if !errors.As(err, &damage) {
			damage = &Damage{File: "log", What: err.Error()}
		}
		if !badLog || !strings.HasPrefix(damage.File, "log") { // that of the log was reported
			report(damage)
		}
		return verifyNames(o, r.last.ID, nil, rep, report)
	}
	r.state.Tables.Load(r.last.Used, r.state.Images, report)
	for _, c := range r.state.Tables.Stats().Classes {
		rep.Slots += c.Used
	}
	if err := r.snapshot.none; errors.Is(err, kvlog.ErrSnapshot) {
		report(&Damage{File: "index", What: err.Error(), Lost: "nothing, since the next start makes it anew"})
	}
	rep.Values = r.state.Values.Check(func(d *Damage) { report(d) }, o.meter.add)
	return verifyNames(o, r.last.ID, r.staleNames, rep, report)
}

// verifyNames checks the index of names of the directory with an ID; a zero ID is that of any
// directory. stale says why a start would not use an index with that seq; it is nil if the log
// is damaged, so that there is no start.
func verifyNames(o *Options, id [16]byte, stale func(seq uint64) error, rep *Report, report func(*Damage)) error {
	n, err := names.Check(names.Options{FS: o.FS, Dir: path.Join(o.Dir, "names"), ID: id})
	switch {
	case err == nil:
		rep.Names = &n
		if stale != nil {
			rep.Stale = stale(n.Seq)
		}
	case errors.Is(err, fs.ErrNotExist) && !errors.Is(err, names.ErrDamaged):
	case disk.IsNoDescriptor(err):
		return err
	default:
		report(&Damage{File: "names", What: err.Error(), Lost: "nothing, since the next start rebuilds it"})
	}
	return nil
}
