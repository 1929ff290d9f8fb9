package crashtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// moment is what a server is doing when the power is cut.
type moment struct {
	name string
	// come waits for the moment, at most for patience; nil: any moment.
	come func(s *server) error
}

// The moments under load. A test sees from outside what the server is doing: from the system
// calls of its threads, or for compaction, which is rarely seen in one, from its metrics.
var moments = []moment{
	{"at any moment", nil},
	{"during a checkpoint", inCall(func(call int, name string) bool {
		return call == unix.SYS_MSYNC || call == unix.SYS_FDATASYNC && (name == "CHECKPOINT" || name == "index.tmp")
	})},
	{"during a rotation", inCall(func(call int, name string) bool {
		// The directory of the log is synced after a segment was made or removed.
		return call == unix.SYS_FALLOCATE && strings.HasSuffix(name, ".seg") || call == unix.SYS_FSYNC && name == "log"
	})},
	{"during compaction", func(s *server) error {
		c := &client{addr: s.addr}
		defer c.close()
		last := -1
		return s.until("compaction", func() bool {
			n, err := gauge(c, "clouddragon_compaction_moved_bytes_total")
			grew := err == nil && last >= 0 && n > last
			last = n
			return grew
		})
	}},
}

// inCall waits until a thread is in a wanted system call on a wanted file.
func inCall(wanted func(call int, name string) bool) func(*server) error {
	return func(s *server) error {
		process := fmt.Sprintf("/proc/%d", s.cmd.Process.Pid)
		return s.until("call", func() bool {
			// A thread or a file that no longer exists is no match.
			threads, _ := filepath.Glob(process + "/task/*/syscall")
			for _, t := range threads {
				b, _ := os.ReadFile(t)
				var call, fd int
				if n, _ := fmt.Sscanf(string(b), "%d 0x%x", &call, &fd); n < 2 {
					continue // it runs
				}
				name, _ := os.Readlink(process + "/fd/" + strconv.Itoa(fd))
				if wanted(call, filepath.Base(name)) {
					return true
				}
			}
			return false
		})
	}
}

// until polls as fast as it can, because moments are short.
func (s *server) until(what string, now func() bool) error {
	for began := time.Now(); !now(); {
		select {
		case <-s.exited:
			return fmt.Errorf("the server ended by itself before the %s that was waited for", what)
		default:
		}
		if time.Since(began) > patience {
			return fmt.Errorf("no such %s in %v", what, patience)
		}
	}
	return nil
}
