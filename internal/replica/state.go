package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"clouddragon/db"
	"clouddragon/internal/disk"
	"clouddragon/internal/format"
)

// StateFile is the name of the file in the data directory that holds the server's role. A
// server that was never part of a pair has no such file.
const StateFile = "REPLICA"

// stateVersion is the version of the file's format. A changed format gets a new version.
const stateVersion = 1

// State is a server's role as it is stored on disk.
type State struct {
	Version int
	// Epoch is the newest epoch that the server knows. It never decreases.
	Epoch uint64
	// Primary is whether the server is the primary of that epoch.
	Primary bool
	// Before is the address of the primary in whose place the server was promoted.
	Before string `json:",omitempty"`
	// Raise is whether the server was promoted and has yet to raise its versions, its tokens
	// and the ends of its locks.
	Raise bool `json:",omitempty"`
	// Now is the address of the primary if that is another server, as far as it is known.
	Now string `json:",omitempty"`
	// Standby names the standby that the primary waits for with every write; empty: none.
	Standby string `json:",omitempty"`
	// InSync is whether this standby has every write that was answered.
	InSync bool `json:",omitempty"`
	// Partial is whether the data is a copy that was begun, and that the primary has not
	// called complete since.
	Partial bool `json:",omitempty"`
	// Elected is whether etcd decides which server is the primary.
	Elected bool `json:",omitempty"`
}

// ReadState reads the state of a data directory. Without a state file the server is a primary
// in its first epoch.
func ReadState(fsys disk.FS, dir string) (State, error) {
	name := path.Join(dir, StateFile)
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return State{Version: stateVersion, Epoch: 1, Primary: true}, nil
	}
	if err != nil {
		return State{}, err
	}
	defer f.Close() // only read from
	size, err := f.Size()
	if err != nil {
		return State{}, err
	}
	p := make([]byte, min(size, 64<<10))
	if _, err := f.ReadAt(p, 0); err != nil {
		return State{}, fmt.Errorf("read %s: %w", name, err)
	}
	s, err := decodeState(p)
	if d := (*disk.Damage)(nil); err != nil && !errors.As(err, &d) {
		return State{}, fmt.Errorf("read %s: %w", name, err)
	}
	return s, err
}

// decodeState is the inverse of encode. For damaged bytes the error is a *disk.Damage.
func decodeState(p []byte) (State, error) {
	text, sum, _ := strings.Cut(string(p), "\n")
	if sum != checksum(text)+"\n" {
		return State{}, &disk.Damage{File: StateFile, What: "the checksum does not match", Lost: "which server is the primary"}
	}
	s := State{}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return State{}, &disk.Damage{File: StateFile, What: err.Error(), Lost: "which server is the primary"}
	}
	if s.Version != stateVersion {
		return State{}, fmt.Errorf("the format has version %d, this program reads version %d", s.Version, stateVersion)
	}
	return s, nil
}

// encode returns the bytes of the file: a line of JSON, and one with its CRC-32C in hex.
func (s State) encode() ([]byte, error) {
	s.Version = stateVersion
	text, err := json.Marshal(s)
	return []byte(string(text) + "\n" + checksum(string(text)) + "\n"), err
}

// write stores the state on disk. It replaces the whole file.
func (s State) write(fsys disk.FS, dir string) error {
	p, err := s.encode()
	if err != nil {
		return err
	}
	name := path.Join(dir, StateFile)
	if err := writeNew(fsys, name+".new", p); err != nil {
		return err
	}
	if err := fsys.Rename(name+".new", name); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// writeNew writes and syncs a file, and replaces one that a crash may have left behind.
func writeNew(fsys disk.FS, name string, p []byte) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p, 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Probe returns an error if a data directory's disk does not accept writes. A server with such
// a disk must not become the only one that has every write.
func Probe(fsys disk.FS, dir string) error {
	name := path.Join(dir, StateFile+".probe")
	if err := writeNew(fsys, name, []byte("x")); err != nil {
		return fmt.Errorf("the disk does not accept writes: %w", err)
	}
	return fsys.Remove(name)
}

// Fit returns an error unless a server may be elected: its disk takes writes, and it has all
// of the data. A cluster that is new has none.
func Fit(fsys disk.FS, dir string, isNew bool) error {
	if err := Probe(fsys, dir); err != nil || isNew {
		return err
	}
	s, err := ReadState(fsys, dir)
	switch {
	case err != nil:
		return err
	case s.Partial:
		return errors.New("its copy of the primary's data is not complete yet")
	case !exists(filepath.Join(dir, "CHECKPOINT")):
		return fmt.Errorf("the servers have data, and %s has none: start the server that has it; or, to begin anew without it, delete the cluster's keys in etcd", dir)
	}
	return nil
}

func checksum(text string) string {
	return fmt.Sprintf("%08x", crc32.Checksum([]byte(text), format.Castagnoli))
}

// promoted returns the state of a standby that becomes the primary in place of the server at
// the address before.
func (s State) promoted(dir, before string, force bool) (State, error) {
	if _, err := os.Stat(filepath.Join(dir, "CHECKPOINT")); err != nil {
		return s, &refused{http.StatusConflict, "the standby has no complete copy of the primary's data yet: there is nothing that it could serve"}
	}
	if !s.InSync && !force {
		return s, &refused{http.StatusConflict, "this standby may lack writes that were acknowledged: the primary did not wait for it; promote it with force to give those up"}
	}
	s.Epoch++
	s.Partial, s.Elected = false, false
	s.Primary, s.Raise, s.Before, s.Now, s.Standby, s.InSync = true, true, before, "", "", false
	return s, nil
}

// IsRefused reports whether err is the refusal to promote a standby without force.
func IsRefused(err error) bool {
	r := (*refused)(nil)
	return errors.As(err, &r) && r.status == http.StatusConflict
}

// PromoteStopped promotes the standby whose data directory this is. No server may have it open.
func PromoteStopped(fsys disk.FS, dir string, force bool) (epoch uint64, err error) {
	s, err := ReadState(fsys, dir)
	if err != nil {
		return 0, err
	}
	if s.Primary {
		return 0, fmt.Errorf("%s does not belong to a standby: its server is the primary of epoch %d", dir, s.Epoch)
	}
	if s.Elected && !force {
		return 0, errElected
	}
	if s, err = s.promoted(dir, s.Now, force); err != nil {
		return 0, err
	}
	return s.Epoch, s.write(fsys, dir)
}

// TakeOver prepares the data of a promoted server before it serves. It raises versions and
// tokens above everything that the old primary can have used. It also extends locks by a
// grace period, because clocks differ. state is the one on disk.
func TakeOver(fsys disk.FS, o db.Options, state *State, grace time.Duration) error {
	if !state.Raise {
		return nil
	}
	if err := db.TakeOver(o, grace); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	next := *state
	next.Raise = false
	if err := next.write(fsys, o.Dir); err != nil {
		return err
	}
	*state = next
	return nil
}
