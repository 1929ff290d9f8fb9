package crashtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// memoryGroup is a control group with limited memory and no swap. The kernel kills a
// process in it that needs more.
type memoryGroup struct {
	dir    string
	events string // the file that counts its kills
}

// newMemoryGroup makes a group with the given limit in MiB. The end of the test removes it.
func newMemoryGroup(t testing.TB, mib int64) *memoryGroup {
	t.Helper()
	// clearStale knows it by this name.
	base, err := os.MkdirTemp("", volumePrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(base, "mounted")
	g := &memoryGroup{dir: filepath.Join(root, filepath.Base(base))}
	t.Cleanup(func() {
		// A process that was killed may still be in the group for a moment.
		err := eventually("remove "+g.dir, func() bool {
			err := os.Remove(g.dir)
			return err == nil || errors.Is(err, fs.ErrNotExist)
		})
		if err := errors.Join(err, unmountAll(root), os.RemoveAll(base)); err != nil {
			t.Error(err)
		}
	})
	err = g.make(root, mib<<20)
	if err != nil && os.Getenv(requiredVariable) != "" {
		t.Fatalf("%s is set, and no memory control group can be made: %v", requiredVariable, err)
	} else if err != nil {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: it needs root and a memory control group: %v", err)
	}
	return g
}

// make mounts the hierarchy of the memory controller and makes the group. The hierarchy may be
// mounted elsewhere too, perhaps read-only.
func (g *memoryGroup) make(root string, limit int64) error {
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	second := unix.Mount("none", root, "cgroup2", 0, "")
	if second == nil {
		has, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		if err != nil {
			return err
		}
		if bytes.Contains(has, []byte("memory")) {
			return g.second(root, limit)
		}
		second = errors.New("version 2 has no memory controller")
		// A process that another test has just forked may still have the file open.
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", root, err)
		}
	}
	if err := unix.Mount("none", root, "cgroup", 0, "memory"); err != nil {
		return fmt.Errorf("mount a cgroup hierarchy: %w; %w", second, err)
	}
	return g.first(limit)
}

func (g *memoryGroup) second(root string, limit int64) error {
	if err := write(filepath.Join(root, "cgroup.subtree_control"), "+memory"); err != nil {
		return err
	}
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		return err
	}
	g.events = filepath.Join(g.dir, "memory.events")
	return errors.Join(write(filepath.Join(g.dir, "memory.max"), strconv.FormatInt(limit, 10)),
		ifThere(write(filepath.Join(g.dir, "memory.swap.max"), "0")))
}

func (g *memoryGroup) first(limit int64) error {
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		return err
	}
	g.events = filepath.Join(g.dir, "memory.oom_control")
	most := strconv.FormatInt(limit, 10)
	return errors.Join(write(filepath.Join(g.dir, "memory.limit_in_bytes"), most),
		ifThere(write(filepath.Join(g.dir, "memory.memsw.limit_in_bytes"), most)))
}

var killsPattern = regexp.MustCompile(`(?m)^oom_kill (\d+)$`)

// kills returns how many processes of the group the kernel has killed for lack of memory.
func (g *memoryGroup) kills() (int, error) {
	b, err := os.ReadFile(g.events)
	if err != nil {
		return 0, err
	}
	m := killsPattern.FindSubmatch(b)
	if m == nil {
		return 0, fmt.Errorf("%s does not count kills:\n%s", g.events, b)
	}
	return strconv.Atoi(string(m[1]))
}

func write(name, text string) error { return os.WriteFile(name, []byte(text), 0) }

// ifThere ignores a missing file: a kernel that does not count swap has none for it.
func ifThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
