package crashtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// requiredVariable is the environment variable that makes a test that cannot run fail
// instead of being skipped.
const requiredVariable = "CLOUDDRAGON_CRASH_REQUIRED"

// ioctls on a mounted file system.
const (
	ioctlShutdown = 0x8004587D // EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
	noLogFlush    = 2          // everything in memory is lost, including the journal's
	ioctlFreeze   = 0xC0045877 // FIFREEZE
	ioctlThaw     = 0xC0045878 // FITHAW
)

// volumePrefix is followed by the process that made the volume.
const volumePrefix = "clouddragon-volume-"

// fileSystem is a kind of file system that the tests run on.
type fileSystem struct {
	name string
	make []string // the command that makes it; the name of the file is added
	mib  int64    // the least size that it can have
	cut  bool     // the power can be cut
	with string   // options for mounting it
}

var (
	ext4 = fileSystem{name: "ext4", make: []string{"mkfs.ext4", "-q", "-F"}, mib: 16, cut: true}
	// XFS can share the blocks of a copy, and btrfs never overwrites existing blocks.
	xfs = fileSystem{name: "xfs", make: []string{"mkfs.xfs", "-q", "-f"}, mib: 300, cut: true,
		// A process that was forked meanwhile may still have the mount before the cut, in a mount
		// namespace of its own. XFS would refuse a second one, although the first is shut down.
		with: "nouuid"}
	btrfs = fileSystem{name: "btrfs", make: []string{"mkfs.btrfs", "-q", "-f"}, mib: 128}

	fileSystems = []fileSystem{ext4, xfs, btrfs}
)

// onEach runs a test on every file system.
func onEach(t *testing.T, test func(t *testing.T, fs fileSystem)) {
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			test(t, fs)
		})
	}
}

// volume is a file system in a file, mounted through a loop device.
type volume struct {
	fs    fileSystem
	image string
	dir   string // where it is mounted
}

// newVolume makes and mounts a file system of the given number of MiB, or of the least size
// that it can have. The end of the test removes it.
func newVolume(t testing.TB, fs fileSystem, mib int64) *volume {
	t.Helper()
	v, err := makeVolume(fs, max(mib, fs.mib))
	if err != nil && os.Getenv(requiredVariable) != "" {
		t.Fatalf("%s is set, and no file system can be mounted: %v", requiredVariable, err)
	} else if err != nil {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: it needs root, a loop device and %s: %v", fs.make[0], err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unmountAll(v.dir), os.RemoveAll(filepath.Dir(v.dir))); err != nil {
			t.Error(err)
		}
	})
	return v
}

func makeVolume(fs fileSystem, mib int64) (_ *volume, err error) {
	base, err := os.MkdirTemp(home(mib), volumePrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, err
	}
	v := &volume{fs: fs, image: filepath.Join(base, "image"), dir: filepath.Join(base, "mounted")}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(base))
		}
	}()
	if err := os.Mkdir(v.dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(v.image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(v.image, mib<<20); err != nil {
		return nil, err
	}
	if out, err := exec.Command(fs.make[0], append(fs.make[1:], v.image)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", fs.make[0], err, out)
	}
	return v, v.mount()
}

// home returns where an image is kept: in memory if there is plenty. This only saves time: a
// power cut in these tests does not affect the loop device.
func home(mib int64) string {
	const memory = "/dev/shm"
	var s unix.Statfs_t
	if err := unix.Statfs(memory, &s); err == nil && int64(s.Bavail)*s.Bsize > 2*mib<<20 {
		return memory
	}
	return ""
}

// mount mounts the file system. Unmounting it detaches the loop device, whoever
// unmounts.
func (v *volume) mount() error {
	image, err := os.OpenFile(v.image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer image.Close()
	for {
		loop, err := attach(image)
		if errors.Is(err, unix.EBUSY) {
			continue // another process has taken it
		}
		if err != nil {
			return err
		}
		err = unix.Mount(loop.Name(), v.dir, v.fs.name, 0, v.fs.with)
		return errors.Join(err, loop.Close())
	}
}

// attach attaches a file to a free loop device.
func attach(image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a free loop device: %w", err)
	}
	loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		return nil, errors.Join(fmt.Errorf("set up %s: %w", loop.Name(), err), loop.Close())
	}
	return loop, nil
}

// unmount unmounts it. Nothing may use it any more.
func (v *volume) unmount() error {
	var last error
	err := eventually("unmount "+v.dir, func() bool {
		last = unix.Unmount(v.dir, 0)
		return !errors.Is(last, unix.EBUSY)
	})
	if err != nil {
		return err
	}
	return last
}

// cut cuts the power: data that is not on the disk by now never will be, and every write and
// sync fails from now on.
func (v *volume) cut() error {
	return v.control(func(fd int) error { return unix.IoctlSetPointerInt(fd, ioctlShutdown, noLogFlush) })
}

// freeze stalls every write until thaw.
func (v *volume) freeze() error {
	return v.control(func(fd int) error { return unix.IoctlSetInt(fd, ioctlFreeze, 0) })
}

func (v *volume) thaw() error {
	return v.control(func(fd int) error { return unix.IoctlSetInt(fd, ioctlThaw, 0) })
}

func (v *volume) control(f func(fd int) error) error {
	d, err := os.Open(v.dir)
	if err != nil {
		return err
	}
	return errors.Join(f(int(d.Fd())), d.Close())
}

// unmountAll detaches everything that is mounted at dir.
func unmountAll(dir string) error {
	for {
		// A frozen file system cannot be unmounted.
		_ = (&volume{dir: dir}).thaw()
		err := unix.Unmount(dir, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil // nothing is mounted there
		}
		if err != nil {
			return err
		}
	}
}

// clearStale removes what killed tests have left behind.
func clearStale() {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		base := filepath.Dir(fields[4])
		rest, ok := strings.CutPrefix(filepath.Base(base), volumePrefix)
		pid, _, _ := strings.Cut(rest, "-")
		n, err := strconv.Atoi(pid)
		if !ok || err != nil || unix.Kill(n, 0) == nil {
			continue
		}
		fmt.Fprintln(os.Stderr, "removing what a killed test has left:", base)
		// A control group there would outlive its mount.
		group := os.Remove(filepath.Join(fields[4], filepath.Base(base)))
		if err := errors.Join(ifThere(group), unmountAll(fields[4]), os.RemoveAll(base)); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}
