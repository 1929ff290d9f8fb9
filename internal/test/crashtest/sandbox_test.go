package crashtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sandboxVariable is set in the process that runs in namespaces of its own.
const sandboxVariable = "CLOUDDRAGON_CRASH_SANDBOX"

// sandboxed reports whether this process has a network of its own. If not, it runs the
// test in one that has, and the caller returns.
func sandboxed(t *testing.T) bool {
	t.Helper()
	if os.Getenv(sandboxVariable) != "" {
		if err := makeNetwork(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	for program, from := range map[string]string{"ip": "iproute2", "nsenter": "util-linux", "etcd": "etcd-server"} {
		if _, err := exec.LookPath(program); err != nil {
			cannotRun(t, fmt.Errorf("%w: apt-get install %s", err, from))
		}
	}
	program, mode := *binary, "as it is"
	if built {
		program, mode = buildSteppable(t), steppable
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.timeout=0", "-test.run", "^"+t.Name()+"$", "-binary", program,
		"-seed", fmt.Sprint(*seed), "-rounds", fmt.Sprint(*rounds), "-fault", *only, fmt.Sprintf("-front=%v", withFront))
	// What it keeps in files ends with it, too.
	cmd.Env = append(os.Environ(), sandboxVariable+"="+mode, "TMPDIR=/dev/shm")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	out := &lineLog{t: t}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); errors.Is(err, unix.EPERM) {
		cannotRun(t, err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the test in its own network: %v", err)
	}
	return false
}

// cannotRun skips a test, or ends it with a failure where it has to run.
func cannotRun(t *testing.T, why error) {
	t.Helper()
	if os.Getenv(requiredVariable) != "" {
		t.Fatalf("%s is set, and there is no network namespace: %v", requiredVariable, why)
	}
	t.Skipf("SKIPPED, NOTHING WAS TESTED: it needs root, network namespaces and etcd: %v", why)
}

// lineLog logs what another run of the test says.
type lineLog struct {
	t    *testing.T
	rest string
}

func (l *lineLog) Write(p []byte) (int, error) {
	lines := strings.Split(l.rest+string(p), "\n")
	l.rest = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		l.t.Log(line)
	}
	return len(p), nil
}
