package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes of a command that could not be started, as a shell's.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

// startError is returned when a command could not be started.
type startError struct {
	code int
	line string
}

func (e *startError) Error() string { return e.line }

// start starts a command with our stdin, stdout, stderr and all other files that we have
// inherited.
func start(argv, env []string, sys *syscall.SysProcAttr) (pid int, err error) {
	path, err := lookUp(argv[0], env)
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: sys}
	pid, err = syscall.ForkExec(path, argv, attr)
	if errors.Is(err, syscall.ENOEXEC) { // a script without #!, which shells run too
		pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh", path}, argv[1:]...), attr)
	}
	if err != nil {
		return 0, cannotStart(argv[0], err)
	}
	return pid, nil
}

// cannotStart returns a startError for a command that was not started.
func cannotStart(name string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return &startError{exitNotFound, fmt.Sprintf("%s: not found", name)}
	case errors.Is(err, syscall.ENOTDIR):
		return &startError{exitNotFound, fmt.Sprintf("%s: %v", name, err)}
	}
	return &startError{exitCannotRun, fmt.Sprintf("%s: %v", name, err)}
}

// lookUp finds a command as a shell does. A name with a slash is a path.
func lookUp(name string, env []string) (string, error) {
	if name == "" {
		return "", &startError{exitNotFound, "the command is empty"}
	}
	if strings.Contains(name, "/") {
		return name, runnable(name)
	}
	fault := error(&startError{exitNotFound, fmt.Sprintf("%s: command not found", name)})
	for _, dir := range filepath.SplitList(lookEnv(env, "PATH")) {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		err := runnable(path)
		if err == nil {
			return path, nil
		}
		var e *startError
		if errors.As(err, &e) && e.code == exitCannotRun {
			fault = err
		}
	}
	return "", fault
}

// runnable returns nil if a path is a file that may be executed.
func runnable(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return &startError{exitCannotRun, fmt.Sprintf("%s: is a directory", path)}
	}
	if err == nil {
		err = unix.Access(path, unix.X_OK)
	}
	if err != nil {
		return cannotStart(path, underlying(err))
	}
	return nil
}

// underlying returns the system's error without the operation and the path.
func underlying(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

func lookEnv(env []string, name string) string {
	value := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// withEnv returns env with a variable set to a value.
func withEnv(env []string, name, value string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			out = append(out, e)
		}
	}
	return append(out, name+"="+value)
}
