package db

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"clouddragon/internal/disk"
	"clouddragon/internal/lease"
	"clouddragon/kvlog"
	"clouddragon/kvlog/wal"
	"clouddragon/slots"
)

// The start, in short:
//
//	take the newest good CHECKPOINT; without one, make a new directory
//	read the log from there: the last image of each slot, the tail
//	check every slot of the tables, with those images in their places
//	only then write: the tail of the log anew, then the images, then a checkpoint
//
// Nothing is written before everything was found good, so a refused start
// changes nothing. What was accepted is written anew since after a failed sync
// the page cache can show what the disk does not have; the log goes first, as a
// table must never hold what the log does not.

// Damage is one thing found wrong in a data directory.
type Damage = disk.Damage

// advise adds to an error that is a *Damage what to do about it.
func advise(err error) error {
	if d := (*Damage)(nil); errors.As(err, &d) {
		return fmt.Errorf("damaged: %w; run `clouddragon verify` for all of it, and restore a copy of the data directory", err)
	}
	return err
}

// directory is what the files of a data directory say, read without changing them.
type directory struct {
	ckpt     *checkpointFile
	state    checkpoint
	log      *wal.Log
	values   *kvlog.Values
	snapshot snapshots
	tables   *slots.Tables
	images   map[slots.Ref][]byte // the last one that the log holds of each slot
	tail     wal.Tail
}

func open(o *Options) (*DB, error) {
	began := time.Now()
	if err := create(o); err != nil {
		return nil, advise(fmt.Errorf("make the data directory: %w", err))
	}
	r, err := read(o)
	if err != nil {
		return nil, errors.Join(advise(err), r.close())
	}
	last := r.state.Moment
	clock := resumeClock(o.Clock, last)
	r.state.Moment = clock.read()
	if back := time.Duration(last.wall - r.state.Moment.wall); back >= clockStep {
		o.Log.Warn("the wall clock is behind the last time it was read; what is held or stored lives on as if no time had passed", "behind", back.Round(time.Millisecond))
	}
	var damage []*Damage
	r.tables.Load(r.state.Used, r.images, func(d *Damage) { damage = append(damage, d) })
	if len(damage) > 0 {
		return nil, errors.Join(advise(damage[0]), r.close())
	}
	if err := syncDirs(o.FS, o.Dir); err != nil {
		return nil, errors.Join(fmt.Errorf("sync the directories: %w", err), r.close())
	}
	if err := r.settle(); err != nil {
		return nil, errors.Join(fmt.Errorf("write the recovered state: %w", err), r.close())
	}
	o.Log.Info("recovered", "replayed_slots", len(r.images), "torn", r.tail.Torn, "took", time.Since(began))
	d := &DB{
		logger:          o.Log,
		onCommit:        o.OnCommit,
		onLockWait:      o.OnLockWait,
		onLockHandOver:  o.OnLockHandOver,
		markAfter:       o.MarkAfter,
		extent:          o.Extent,
		tables:          r.tables,
		log:             r.log,
		values:          r.values,
		reads:           make(reads, min(maxReads, o.Files)),
		queue:           newQueue(),
		batch:           newPending(r.tables),
		marked:          true, // what was accepted was just written anew, and a checkpoint stands behind it
		timer:           time.NewTimer(0),
		clock:           clock,
		noted:           r.state.Moment,
		state:           r.state,
		ckpt:            r.ckpt,
		checkpointEvery: o.CheckpointEvery,
		segment:         o.Segment,
		fs:              o.FS,
		dir:             o.Dir,
		snapshot:        r.snapshot,
		compactRatio:    o.CompactRatio,
		compactWake:     make(chan struct{}, 1),
		growWake:        make(chan struct{}, 1),
		ckptWake:        make(chan struct{}, 1),
		closing:         make(chan struct{}),
		writerDone:      make(chan struct{}),
		failed:          make(chan struct{}),
	}
	d.ckptSegment.Store(r.state.Log.Segment)
	d.tokens.last.Store(int64(r.state.Tokens) - tokenBlock - 1)
	d.tokens.limit.Store(int64(r.state.Tokens))
	waiters := lease.NewLimit(o.Waiters)
	d.locks = lease.New(func() (int64, error) { return d.lockToken(), nil }, waiters)
	d.mutexes = newMutexes(mutexOptions{Clock: o.Clock, Token: d.mutexToken, Limit: waiters, OnWait: o.OnMutexWait, OnHandOver: o.OnMutexHandOver})
	d.moment = d.clock.read()
	d.batch.versions = r.state.Version
	if err := r.tables.Each(kindLock, func(acc, id string, payload []byte) error {
		return d.restoreLock(lease.Key{Acc: acc, ID: id}, payload)
	}); err != nil {
		return nil, errors.Join(err, r.close())
	}
	d.checkpointed.Store(r.log.Stats().Appended)
	d.ckptAt.Store(time.Now().UnixNano())
	return d, nil
}

// read opens everything and replays the log in memory. The directory it
// returns is to be closed, also after an error.
func read(o *Options) (*directory, error) {
	r := &directory{images: make(map[slots.Ref][]byte)}
	ckpt, state, err := openCheckpoint(o.FS, o.Dir)
	if err != nil {
		return r, err
	}
	r.ckpt, r.state = ckpt, *state
	if r.tables, err = slots.Open(slotOptions(o, state.ID), state.Sizes); err != nil {
		return r, err
	}
	if r.log, err = wal.Open(logOptions(o, state.ID), state.Log, state.Segments); err != nil {
		return r, err
	}
	r.values = kvlog.NewValues(r.log)
	if err := r.loadIndex(o); err != nil {
		return r, err
	}
	if r.tail, err = r.log.Replay(r.replay); err != nil {
		return r, err
	}
	r.state.Log = r.tail.End
	return r, nil
}

func slotOptions(o *Options, id [16]byte) slots.Options {
	return slots.Options{FS: o.FS, Dir: o.Dir, ID: id, Extent: o.Extent}
}

func logOptions(o *Options, id [16]byte) wal.Options {
	return wal.Options{FS: o.FS, Dir: path.Join(o.Dir, "log"), ID: id, Segment: o.Segment, Files: o.Files, Log: o.Log}
}

// replay takes the records of one batch.
func (r *directory) replay(seq uint64, recs wal.Records) error {
	for rec := range recs.All() {
		typ, body := rec.Type, rec.Body
		switch {
		case typ == recordSlot && len(body) > 8:
			ref := slots.Ref(le.Uint64(body))
			if len(body) != 8+ref.Size() {
				return fmt.Errorf("batch %d: an image of %d bytes for slot %d of %s", seq, len(body)-8, ref.Number(), slots.FileName(ref.Class()))
			}
			if _, err := r.tables.Decode(ref, body[8:]); err != nil {
				return fmt.Errorf("batch %d: image of slot %d of %s: %w", seq, ref.Number(), slots.FileName(ref.Class()), err)
			}
			r.images[ref] = bytes.Clone(body[8:])
		case typ == recordTokens && len(body) == 8:
			r.state.Tokens = max(r.state.Tokens, le.Uint64(body))
		case typ == recordMoment && len(body) == momentSize:
			r.state.Moment = r.state.Moment.later(decodeMoment(body))
		case typ == kvlog.TypeValue || typ == kvlog.TypeTombstone:
			if err := r.replayValue(recs, rec); err != nil {
				return err
			}
		default:
			return fmt.Errorf("batch %d: a record of unknown type %d with %d bytes: written by a newer version?", seq, typ, len(body))
		}
	}
	return nil
}

// replayValues takes the values of a batch that the tables hold already.
func (r *directory) replayValues(recs wal.Records) error {
	for rec := range recs.All() {
		if rec.Type == kvlog.TypeValue || rec.Type == kvlog.TypeTombstone {
			if err := r.replayValue(recs, rec); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *directory) replayValue(recs wal.Records, rec wal.Record) error {
	version, err := r.values.Replay(recs, rec)
	if err != nil {
		return fmt.Errorf("segment %d at offset %d: %w", recs.Segment, rec.Offset, err)
	}
	r.state.Version = max(r.state.Version, version)
	return nil
}

// settle writes what was accepted anew, and a checkpoint behind it.
func (r *directory) settle() error {
	if err := r.log.Repair(r.tail); err != nil {
		return err
	}
	if err := r.tables.Rewrite(r.images); err != nil {
		return err
	}
	if err := r.tables.Sync(); err != nil {
		return err
	}
	r.state.Number++
	r.state.Tokens += tokenBlock
	r.state.Sizes, r.state.Used = r.tables.Sizes(), r.tables.Used()
	r.state.Segments = needed(r.log, r.values, r.state.Log)
	if err := r.ckpt.write(&r.state); err != nil {
		return err
	}
	if err := r.log.Start(r.tail); err != nil {
		return err
	}
	return r.log.Free(r.state.Log.Segment, func(n uint64) bool { return slices.Contains(r.state.Segments, n) })
}

func (r *directory) close() error {
	var err error
	if r.ckpt != nil {
		err = r.ckpt.f.Close()
	}
	if r.tables != nil {
		err = errors.Join(err, r.tables.Close())
	}
	if r.log != nil {
		err = errors.Join(err, r.log.Close())
	}
	return err
}

// create makes a new data directory where there is none yet. CHECKPOINT comes
// last: without it nothing was ever acknowledged, and what is there is the rest
// of a creation that was cut off. Should there be more, somebody removed it.
func create(o *Options) error {
	f, err := o.FS.Open(path.Join(o.Dir, checkpointName))
	if err == nil {
		return f.Close()
	}
	if !isNotExist(err) {
		return err
	}
	if err := neverUsed(o); err != nil {
		return err
	}
	c := checkpoint{Room: o.CheckpointRoom, Number: 1, Tokens: 1}
	_, wall := o.Clock()
	c.Moment = moment{now: wall, wall: wall}
	if _, err := rand.Read(c.ID[:]); err != nil {
		return err
	}
	if err := slots.Create(slotOptions(o, c.ID)); err != nil {
		return err
	}
	if c.Log, err = wal.Create(logOptions(o, c.ID)); err != nil {
		return err
	}
	c.Segments = []uint64{c.Log.Segment}
	for i := range c.Sizes {
		c.Sizes[i] = slots.InitialSize(o.Extent)
	}
	if err := o.FS.SyncDir(o.Dir); err != nil {
		return err
	}
	return createCheckpoint(o.FS, o.Dir, &c)
}

// syncDirs makes the names in a directory durable, and its own name and those of
// the directories above it, each of which MkdirAll may have made. It is done at
// every start, as the one before may have failed right after making them.
func syncDirs(fsys disk.FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	for last := dir; ; last = dir {
		if dir = path.Dir(dir); dir == last {
			return nil
		}
		err := fsys.SyncDir(dir)
		if errors.Is(err, fs.ErrPermission) {
			return nil // not made by MkdirAll, which makes only what can be read, and so is what lies above
		}
		if err != nil {
			return err
		}
	}
}

// neverUsed makes sure that tables and log without a CHECKPOINT are empty.
func neverUsed(o *Options) error {
	var names []string
	for class := range slots.Classes {
		names = append(names, slots.FileName(class))
	}
	segments, err := o.FS.ReadDir(path.Join(o.Dir, "log"))
	if err != nil && !isNotExist(err) {
		return err
	}
	for _, s := range segments {
		if strings.HasSuffix(s, ".seg") {
			names = append(names, "log/"+s)
		}
	}
	for _, name := range names {
		used, err := holdsData(o.FS, path.Join(o.Dir, name))
		if err != nil {
			return err
		}
		if used {
			return &Damage{File: checkpointName, What: "the file is missing, but " + name + " holds data"}
		}
	}
	return nil
}

// holdsData says whether a file has anything behind its header page.
func holdsData(fsys disk.FS, name string) (used bool, err error) {
	f, err := fsys.Open(name)
	if isNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return false, err
	}
	const page = 4096
	buf := make([]byte, 1<<20)
	for off := int64(page); off < size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if err != nil && err != io.EOF {
			return false, err
		}
		if n == 0 {
			break
		}
		if len(bytes.TrimLeft(buf[:n], "\x00")) > 0 {
			return true, nil
		}
		off += int64(n)
	}
	return false, nil
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
