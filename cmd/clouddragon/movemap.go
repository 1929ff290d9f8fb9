package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// shardMap is the map file of HAProxy that says where accounts live. Each line has an account
// and its backend. Comments say which servers a backend has:
//
//	# backend NAME ADDRESS…
//	ACCOUNT NAME
type shardMap struct {
	file     string // not a link
	lines    []string
	backends map[string]string // by address
	at       map[string]int    // the line of each account
}

// readShardMap reads a map file.
func readShardMap(file string) (*shardMap, error) {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m := &shardMap{file: file, backends: map[string]string{}, at: map[string]int{}}
	m.lines = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for i, line := range m.lines {
		fault := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s", file, i+1, fmt.Sprintf(format, args...))
		}
		words := strings.Fields(line)
		switch {
		case len(words) >= 3 && words[0] == "#" && words[1] == "backend":
			for _, address := range words[3:] {
				address = strings.TrimRight(address, "/")
				if other, again := m.backends[address]; again && other != words[2] {
					return nil, fault("%s already belongs to backend %s", address, other)
				}
				m.backends[address] = words[2]
			}
		case len(words) == 0, strings.HasPrefix(words[0], "#"):
		case len(words) != 2:
			return nil, fault("want an account and its backend, or a comment")
		default:
			acc, err := url.PathUnescape(words[0])
			if err != nil {
				return nil, fault("the account %s has a bad percent escape", words[0])
			}
			if first, again := m.at[acc]; again {
				return nil, fault("the account %s is listed twice, first on line %d", words[0], first+1)
			}
			m.at[acc] = i
		}
	}
	return m, nil
}

// backend returns the backend that a server belongs to.
func (m *shardMap) backend(address string) (string, error) {
	if name, ok := m.backends[strings.TrimRight(address, "/")]; ok {
		return name, nil
	}
	return "", fmt.Errorf("%s does not say which backend has the server %s: add a line such as \"# backend shard1 %s\"", m.file, address, address)
}

// put writes the file with an account on another backend. Readers of the file see all of the
// old or all of the new contents. It returns false if the file already says so.
func (m *shardMap) put(acc, backend string) (bool, error) {
	lines := slices.Clone(m.lines)
	line := strings.ReplaceAll(url.QueryEscape(acc), "+", "%20") + " " + backend
	i, listed := m.at[acc]
	switch {
	case listed && strings.Fields(lines[i])[1] == backend:
		return false, nil
	case listed:
		lines[i] = line
	default:
		lines = append(lines, line)
	}
	info, err := os.Stat(m.file)
	if err != nil {
		return false, err
	}
	return true, replaceFile(m.file, strings.Join(lines, "\n")+"\n", info)
}

// replaceFile replaces a file in one step, with the owner and the permissions of info.
func replaceFile(file, text string, info fs.FileInfo) (err error) {
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, "."+filepath.Base(file)+".*.part")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if err := f.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if is, ok := info.Sys().(*syscall.Stat_t); ok && (int(is.Uid) != os.Geteuid() || int(is.Gid) != os.Getegid()) {
		if err := f.Chown(int(is.Uid), int(is.Gid)); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	// The file has its final name, so it stays even after a later error.
	return errors.Join(f.Close(), syncDir(dir))
}
