package replica

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"clouddragon/db"
	"clouddragon/internal/disk"
)

// open opens the database where it agrees with the primary's.
func (s *Standby) open(ctx context.Context) error {
	dir := s.o.Open.Dir
	if !exists(filepath.Join(dir, "CHECKPOINT")) {
		if exists(filepath.Join(dir, aside, "CHECKPOINT")) && !exists(filepath.Join(dir, fetched)) {
			if err := s.moveAside(); err != nil { // what a crash has left to move
				return err
			}
		}
		if err := s.fetch(ctx); err != nil {
			return err
		}
	}
	h, err := s.hello(ctx)
	if isGone(err) {
		s.o.Log.Warn("this server's data cannot be continued from the primary's log: it is put aside, and a new copy is fetched", "err", err)
		if err := s.putAside(); err != nil {
			return err
		}
		if err := s.fetch(ctx); err != nil {
			return err
		}
		h, err = s.hello(ctx)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	if err = s.takeEpoch(h.Epoch, ""); err == nil {
		err = s.setState(s.state)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := db.Cut(dir, h.At, h.Size); err != nil {
		return err
	}
	f, err := db.OpenFollower(s.o.Open)
	if err != nil {
		return err
	}
	s.reading.Lock()
	s.db = f.DB
	s.reading.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f, s.times = f, clocks{} // its database time starts anew
	return nil
}

// hello asks the primary where the logs agree.
func (s *Standby) hello(ctx context.Context) (h helloAnswer, err error) {
	id, ends, err := db.Ends(s.o.Open.Dir, endsSent)
	if err != nil {
		return h, err
	}
	c, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	err = s.call.post(c, "/replica/hello", helloRequest{Name: s.o.Name, ID: hex.EncodeToString(id[:]), Ends: ends, Epoch: s.epoch()}, &h)
	return h, err
}

// What a standby has in its data directory in addition to the data.
const (
	aside   = "aside"   // data that has diverged from the primary's
	fetched = "fetched" // a copy being fetched; the data that it replaces is already gone
)

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// fetch makes the data directory from a backup of the primary. It can be repeated after a
// crash.
func (s *Standby) fetch(ctx context.Context) error {
	dir := s.o.Open.Dir
	began := time.Now()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	copied := filepath.Join(dir, fetched+".tar")
	if err := s.download(ctx, copied); err != nil {
		return errors.Join(fmt.Errorf("fetch a copy: %w", err), remove(copied))
	}
	// A restore needs an empty directory.
	into := filepath.Join(dir, fetched)
	if err := os.RemoveAll(into); err != nil {
		return err
	}
	_, err := db.Restore(ctx, db.RestoreOptions{Dir: into, Keep: true, Extent: s.o.Open.Extent, Open: func() (io.ReadCloser, error) { return os.Open(copied) }})
	if err = errors.Join(err, remove(copied)); err != nil {
		return errors.Join(fmt.Errorf("the fetched copy: %w", err), os.RemoveAll(into))
	}
	// CHECKPOINT comes last: without it no server starts here.
	entries, err := os.ReadDir(into)
	if err != nil {
		return err
	}
	for _, last := range []bool{false, true} {
		for _, e := range entries {
			if (e.Name() == "CHECKPOINT") == last && e.Name() != "LOCK" {
				to := filepath.Join(dir, e.Name())
				if err := os.RemoveAll(to); err != nil { // left by an earlier copy and a crash
					return err
				}
				if err := os.Rename(filepath.Join(into, e.Name()), to); err != nil {
					return err
				}
			}
		}
		if err := (disk.OS{}).SyncDir(filepath.ToSlash(dir)); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(into); err != nil {
		return err
	}
	s.o.Log.Info("the copy is complete", "took", time.Since(began).Round(time.Millisecond))
	return nil
}

func (s *Standby) download(ctx context.Context, name string) error {
	res, err := s.call.do(ctx, http.MethodGet, "/backup", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	s.o.Log.Info("fetching a copy of the primary's data", "from", s.o.Of)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Close())
}

func remove(name string) error {
	if err := os.Remove(name); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// begin records that the standby starts over and lacks acknowledged writes.
func (s *Standby) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.state
	next.InSync, next.Partial = false, true
	if next == s.state {
		return nil
	}
	return s.setState(next)
}

// putAside moves the data out of the way of a new copy, and removes what was put aside
// before. After a crash, open finishes it.
func (s *Standby) putAside() error {
	if err := s.begin(); err != nil {
		return err
	}
	dir := s.o.Open.Dir
	for _, name := range []string{aside, fetched} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, aside), 0o700); err != nil {
		return err
	}
	return s.moveAside()
}

func (s *Standby) moveAside() error {
	dir := s.o.Open.Dir
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		switch n := e.Name(); {
		case n == "CHECKPOINT": // goes first: without it no server starts here
			names = slices.Insert(names, 0, n)
		case n == aside, n == "LOCK", n == "lost+found", strings.HasPrefix(n, StateFile), strings.HasPrefix(n, fetched):
		default:
			names = append(names, n)
		}
	}
	for _, n := range names {
		if err := os.Rename(filepath.Join(dir, n), filepath.Join(dir, aside, n)); err != nil {
			return err
		}
		if err := (disk.OS{}).SyncDir(filepath.ToSlash(dir)); err != nil {
			return err
		}
	}
	return nil
}
