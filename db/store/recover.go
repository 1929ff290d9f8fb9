package store

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"clouddragon/db/commit"
	"clouddragon/internal/disk"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// A start:
//
//	take the newest good CHECKPOINT; without one, make a new directory
//	read the log from there: the last image of each slot, the values, the tail
//	check every slot of the tables, with those images in their places
//	only then write: the tail of the log again, then the images, then a checkpoint
//
// Nothing is written before everything is checked, so a refused start changes nothing. The
// accepted data is written again, because after a failed sync the page cache can show data
// that the disk does not have. The log goes first, because a table must never hold what the
// log does not.
//
// On a full disk there may be no room to write that if a copy shares the blocks:
//
//	the log      starts if a read of the disk shows the accepted data; see wal.Repair
//	the tables   keep images in memory, which the log has since the last checkpoint
//	CHECKPOINT   stays as it was if a read of the disk shows it, and the log continues
//	             after it; no segment is freed, and no token used, that it does not know

// Damage is one thing found wrong in a data directory.
type Damage = disk.Damage

// advise adds advice to an error that is a *Damage.
func advise(err error) error {
	if d := (*Damage)(nil); errors.As(err, &d) {
		return fmt.Errorf("damaged: %w; run `clouddragon verify` for all of it, and restore a copy of the data directory", err)
	}
	return err
}

// directory is the content of a data directory's files, read without changing them.
type directory struct {
	file     *checkpointFile
	last     checkpoint
	log      *wal.Log
	state    commit.State
	snapshot snapshots
	tail     wal.Tail
	durable  checkpoint // the newest that is on the disk
	from     uint64     // the batch with which CHECKPOINT ends
	seen     []string   // the names of the things in the log after it
	names    *nameIndex
}

func open(o *Options) (*Store, *Recovered, error) {
	began := time.Now()
	o.meter = newMeter(o.Progress)
	if err := create(o); err != nil {
		if disk.IsFull(err) {
			err = fmt.Errorf("%w; a new one takes more than the %d MiB of a log segment: free some room, or set log.segment lower", err, o.Segment>>20)
		}
		return nil, nil, advise(fmt.Errorf("make the data directory: %w", err))
	}
	d, err := read(o)
	if err != nil {
		return nil, nil, errors.Join(advise(err), d.close())
	}
	last := d.last.Moment
	clock := commit.ResumeClock(o.Clock, last)
	d.last.Moment = clock.Read()
	if back := time.Duration(last.Wall - d.last.Moment.Wall); back >= commit.ClockStep {
		o.Log.Warn("the wall clock is behind the last time it was read; what is held or stored lives on as if no time had passed", "behind", back.Round(time.Millisecond))
	}
	var damage []*Damage
	d.state.Tables.Load(d.last.Used, d.state.Images, func(x *Damage) { damage = append(damage, x) })
	if len(damage) > 0 {
		return nil, nil, errors.Join(advise(damage[0]), d.close())
	}
	if err := syncDirs(o.FS, o.Dir); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("sync the directories: %w", err), d.close())
	}
	d.names = d.openNames(o)
	end := d.last
	err = d.persistRecovered()
	if isPutOff(err) {
		d.durable.Number = d.last.Number // a copy with this number may be on the disk
		o.Log.Warn("disk full: the recovered state cannot be written anew, and the disk has it; writes that need more room will be refused", "err", err)
	} else if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("write the recovered state: %w", err), d.close())
	}
	recovery := RecoveryStats{Took: time.Since(began), Bytes: o.meter.read}
	o.Log.Info("recovered", "replayed_slots", len(d.state.Images), "torn", d.tail.Torn, "read_bytes", recovery.Bytes, "took", recovery.Took)
	o.meter.end()
	d.state.Images = nil // from here on the tables are changed
	s := &Store{
		o:      *o,
		Tables: d.state.Tables, Log: d.log, Values: d.state.Values,
		Clock: clock,
		file:  d.file, last: d.durable, snapshot: d.snapshot, names: d.names,
		checkpointWake: make(chan struct{}, 1),
		compactWake:    make(chan struct{}, 1),
		closing:        make(chan struct{}),
		recovery:       recovery,
	}
	s.room = newRoom(s)
	if isPutOff(err) {
		wake(s.checkpointWake)
	}
	s.checkpoints.segment.Store(d.durable.Log.Segment)
	s.checkpoints.appended.Store(d.log.Stats().Appended)
	s.checkpoints.at.Store(time.Now().UnixNano())
	return s, &Recovered{
		State:    &d.state,
		Position: end.Log,
		Tokens:   commit.NewTokens(int64(end.Tokens), int64(d.state.Tokens)),
	}, nil
}

// Abandon closes a store that was opened and not started.
func (s *Store) Abandon() error { return s.closeFiles() }

// read opens everything and replays the log in memory. The directory that it returns has to be
// closed, even after an error.
func read(o *Options) (*directory, error) {
	d := &directory{state: commit.State{Images: make(map[slots.Ref][]byte)}}
	file, last, err := openCheckpoint(o.FS, o.Dir)
	if err != nil {
		return d, err
	}
	d.file, d.last, d.durable = file, *last, *last
	d.state.Tokens, d.state.Version, d.state.Moment = last.Tokens, last.Version, last.Moment
	if d.state.Tables, err = slots.Open(slotOptions(o, last.ID), last.Sizes); err != nil {
		return d, err
	}
	if d.log, err = wal.Open(logOptions(o, last.ID), last.Log, last.Segments); err != nil {
		return d, err
	}
	o.meter.expect(last.tableBytes() + bytesBetween(d.log, last.Log, wal.Pos{}))
	d.state.Values = kvlog.NewValues(d.log)
	if err := d.loadIndex(o); err != nil {
		return d, err
	}
	d.from, d.state.Seen = last.Log.Seq, d.see
	d.tail, err = d.log.Replay(func(seq uint64, recs wal.Records) error {
		if err := d.state.Apply(recs, nil); err != nil {
			return fmt.Errorf("batch %d: %w", seq, err)
		}
		return nil
	})
	if err != nil {
		return d, err
	}
	o.meter.reach(last.tableBytes()) // after its end the log is empty
	d.state.Seen = nil
	d.last.Log, d.last.Tokens, d.last.Version, d.last.Moment = d.tail.End, d.state.Tokens, d.state.Version, d.state.Moment
	return d, nil
}

func slotOptions(o *Options, id [16]byte) slots.Options {
	return slots.Options{FS: o.FS, Dir: o.Dir, ID: id, Extent: o.Extent, Read: o.meter.add}
}

func logOptions(o *Options, id [16]byte) wal.Options {
	return wal.Options{FS: o.FS, Dir: path.Join(o.Dir, "log"), ID: id, Segment: o.Segment, Least: o.LeastSegment, Files: o.Files, Log: o.Log, Read: o.meter.add}
}

// persistRecovered writes the accepted data again, and then a checkpoint. The error is one
// that isPutOff recognises if the start can go on without the checkpoint.
func (d *directory) persistRecovered() error {
	if err := d.log.Repair(d.tail); err != nil {
		return err
	}
	if err := d.state.Tables.Rewrite(d.state.Images); err != nil {
		return err
	}
	putOff := d.checkpoint()
	if isPutOff(putOff) {
		if err := d.file.holds(&d.durable, &d.last); err != nil {
			return fmt.Errorf("%w, and there is no room for it: %v", err, putOff)
		}
	} else if putOff != nil {
		return putOff
	}
	if err := d.log.Start(d.tail); err != nil {
		return err
	}
	if putOff != nil {
		return putOff
	}
	return d.log.Free(d.last.Log.Segment, func(n uint64) bool { return slices.Contains(d.last.Segments, n) })
}

// checkpoint writes the first checkpoint of this process, which makes the first block of
// tokens and the moment durable.
func (d *directory) checkpoint() error {
	d.last.Number++
	if err := d.state.Tables.Sync(); err != nil {
		return err
	}
	d.last.Tokens += commit.TokenBlock
	d.last.Sizes, d.last.Used = d.state.Tables.Sizes(), d.state.Tables.Used()
	d.last.Segments = needed(d.log, d.state.Values, d.last.Log)
	if err := d.file.write(&d.last); err != nil {
		return err
	}
	d.state.Tokens, d.state.Moment = d.last.Tokens, d.last.Moment
	d.durable = d.last
	return nil
}

func (d *directory) close() error {
	var err error
	if d.file != nil {
		err = d.file.f.Close()
	}
	if d.state.Tables != nil {
		err = errors.Join(err, d.state.Tables.Close())
	}
	if d.log != nil {
		err = errors.Join(err, d.log.Close())
	}
	if d.names != nil {
		err = errors.Join(err, d.names.Close())
	}
	return err
}
