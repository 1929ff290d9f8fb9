package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// stalledSync measures reads while the disk takes a second for a sync: the file
// system with the data is frozen for that time. It needs root and a loop device.
func stalledSync() *row {
	const conns, rate, ids = 32, 2000, 1000
	const frozen = time.Second
	figures := []figure{{"p50 µs", true}, {"p99 µs", true}}
	return &row{"kv get 64 B, 2,000/s, during a sync of 1 s", conns, figures, get.spoken(), func(ctx context.Context, b *bench, t *target) (_ measured, err error) {
		if t.name == empty || os.Geteuid() != 0 {
			return measured{}, errCannot
		}
		dir, unmount, err := mount(b.dir)
		if err != nil {
			fmt.Fprintf(os.Stderr, "no sync is stalled, for want of a file system to freeze: %v\n", err)
			return measured{}, errCannot
		}
		defer func() { err = errors.Join(err, unmount()) }()
		alone, remove, err := b.another(ctx, t, dir)
		if err != nil {
			return measured{}, err
		}
		defer func() { err = errors.Join(err, remove()) }()
		if err := fill(ctx, alone, ids); err != nil {
			return measured{}, err
		}
		root, err := os.Open(dir)
		if err != nil {
			return measured{}, err
		}
		thawed := make(chan error, 1)
		go func() {
			defer root.Close()
			err := unix.IoctlSetInt(int(root.Fd()), fiFreeze, 0)
			time.Sleep(frozen)
			thawed <- errors.Join(err, unix.IoctlSetInt(int(root.Fd()), fiThaw, 0))
		}()
		reads := &crowd{protocol: get[t.speak], conns: conns, id: anyOf(ids), rate: rate}
		writes := &crowd{protocol: set[t.speak], conns: 4, id: anyOf(ids)}
		_, _, err = load(ctx, alone, frozen, reads, writes)
		if err := errors.Join(err, <-thawed); err != nil {
			return measured{}, err
		}
		return measured{figures: []float64{micros(percentile(reads.took, 50)), micros(percentile(reads.took, 99))}}, nil
	}}
}

// The requests of ioctl_fsfreeze, as <linux/fs.h> has them.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// mount makes an ext4 of its own in a file under dir.
func mount(dir string) (string, func() error, error) {
	work, err := os.MkdirTemp(dir, "mount-")
	if err != nil {
		return "", nil, err
	}
	image, root := filepath.Join(work, "image"), filepath.Join(work, "root")
	err = errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 1<<30), os.Mkdir(root, 0o700))
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, root}} {
		if err == nil {
			err = runCommand(command...)
		}
	}
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(work))
	}
	return root, func() error { return errors.Join(runCommand("umount", root), os.RemoveAll(work)) }, nil
}

func runCommand(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, out)
	}
	return nil
}
