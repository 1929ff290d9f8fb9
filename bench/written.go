package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// amplification is what was written to disk for the values that were set.
type amplification struct {
	row         *row
	conns       int
	values      int64 // bytes of them
	written     int64 // bytes
	compactions float64
	redisValues int64
	redis       int64
}

// writtenTo is how many bytes were ever written to the disk that holds a
// directory. What /proc/PID/io tells is of no use: it counts a whole 2 MiB of page
// cache for each sync of a page in it.
func writtenTo(dir string) (int64, error) {
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	text, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return 0, err
	}
	return parseDiskstats(text, unix.Major(stat.Dev), unix.Minor(stat.Dev))
}

// errNoDisk is returned when a file system is on no disk of its own.
var errNoDisk = errors.New("/proc/diskstats has no such disk")

// parseDiskstats reads the sectors written to a disk, the 10th field, which are
// of 512 bytes on any disk.
func parseDiskstats(text []byte, major, minor uint32) (int64, error) {
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[0] == fmt.Sprint(major) && f[1] == fmt.Sprint(minor) {
			sectors, err := strconv.ParseInt(f[9], 10, 64)
			return sectors * 512, err
		}
	}
	return 0, fmt.Errorf("%w: %d:%d", errNoDisk, major, minor)
}

// warmUp is the least time for which values are overwritten before the bytes are
// counted, and countFor that in which they are, in measurements.
const warmUp, countFor = 10, 30

// compactMost is how long the first compaction may take to come.
const compactMost = 2 * time.Minute

// bytesWritten counts them while the log is compacted at the pace at which it
// grows. Small values get small segments, so that this comes soon.
func (l *long) bytesWritten(ctx context.Context, dir string) error {
	if _, err := writtenTo(dir); errors.Is(err, errNoDisk) {
		fmt.Fprintf(os.Stderr, "bytes written are not counted: %v\n", err)
		return nil
	}
	const small = "limits: {value: 1MiB}\nlog: {segment: 4MiB}\n"
	for _, w := range []struct {
		size, ids, conns int
		config           string
	}{{64, 50_000, 64, small}, {1 << 10, 16_000, 64, small}, {8 << 20, 16, 4, ""}} {
		fmt.Fprintf(os.Stderr, "bytes written: %s\n", bytesShort(float64(w.size)))
		r := &row{name: "values of " + bytesShort(float64(w.size)), method: "POST", acc: "written", api: "kv", ids: w.ids, value: w.size}
		at := filepath.Join(dir, strconv.Itoa(w.size))
		if err := os.Mkdir(at, 0o700); err != nil {
			return err
		}
		a := amplification{row: r, conns: w.conns}
		if err := l.ourBytes(ctx, at, w.config, &a); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		if err := l.redisBytes(ctx, at, &a); err != nil {
			return fmt.Errorf("%s: Redis: %w", r.name, err)
		}
		l.written = append(l.written, a)
		if err := os.RemoveAll(at); err != nil { // the next one needs the room
			return err
		}
	}
	return nil
}

func (l *long) ourBytes(ctx context.Context, dir, config string, a *amplification) error {
	s, err := newServer(ctx, l.server, dir, config)
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	mine, err := ourRow(ctx, s, a.row)
	if err != nil {
		return err
	}
	set := func(d time.Duration) (int64, error) {
		got, err := loadWith(ctx, s.addr, a.conns, mine.proto, pace{d: d}, a.row.anyID)
		mine.ledger.acknowledged += int64(got.answers)
		return int64(got.answers) * int64(a.row.value), err
	}
	for began := time.Now(); ; {
		if _, err := set(warmUp * l.seconds); err != nil {
			return err
		}
		compactions, err := s.metric("clouddragon_compactions_total")
		if err != nil {
			return err
		}
		if compactions > 0 {
			break
		}
		if time.Since(began) > compactMost {
			return errors.New("no compaction comes")
		}
	}
	count := func() (written int64, compactions float64, err error) {
		if written, err = writtenTo(dir); err != nil {
			return 0, 0, err
		}
		compactions, err = s.metric("clouddragon_compactions_total")
		return written, compactions, err
	}
	before, runs, err := count()
	if err != nil {
		return err
	}
	if a.values, err = set(countFor * l.seconds); err != nil {
		return err
	}
	if a.written, a.compactions, err = count(); err != nil {
		return err
	}
	a.written -= before
	a.compactions -= runs
	return l.check(ctx, s, a.row)
}

func (l *long) redisBytes(ctx context.Context, dir string, a *amplification) error {
	p, err := startRedis(ctx, dir)
	if err != nil || p == nil {
		return err
	}
	defer p.kill()
	before, err := writtenTo(dir)
	if err != nil {
		return err
	}
	got, err := loadWith(ctx, p.addr, a.conns, overRedis(a.row), pace{d: warmUp * l.seconds}, a.row.anyID)
	if err != nil {
		return err
	}
	after, err := writtenTo(dir)
	a.redisValues, a.redis = int64(got.answers)*int64(a.row.value), after-before
	return err
}

func (l *long) writtenTable(b *strings.Builder) {
	if len(l.written) == 0 {
		return
	}
	line := table(b, "Bytes written to disk for each byte of value", "values", "ids", "connections", ours, "values set", "written", "compactions", redis)
	for _, a := range l.written {
		of := func(written, values int64) string {
			if values == 0 {
				return none
			}
			return fmt.Sprintf("%.2f", float64(written)/float64(values))
		}
		line(bytesShort(float64(a.row.value)), thousands(float64(a.row.ids)), strconv.Itoa(a.conns), of(a.written, a.values),
			mib(a.values), mib(a.written), strconv.FormatFloat(a.compactions, 'f', -1, 64), of(a.redis, a.redisValues))
	}
	b.WriteString("\nAs /proc/diskstats counts for the whole disk, with what the file system and other programs write. A batch is written in\n" +
		"whole pages. The zeros that segments are filled with and what compaction moves are in it; small values have segments of\n" +
		"4 MiB. Redis does not rewrite its log meanwhile, which grows without end.\n")
}
