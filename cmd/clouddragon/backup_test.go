package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"clouddragon/internal/archive"
)

// call runs the program with arguments and returns what it printed and its exit code.
func call(t *testing.T, server string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "no_proxy=*", "CLOUDDRAGON_TOKEN=", "CLOUDDRAGON_SERVER="+server)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// names returns the names of the files in a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestBackupIsRestored(t *testing.T) {
	dir := t.TempDir()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	want(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a?n=41", 200, "41\n")
	file := filepath.Join(dir, "copy.tar")
	if out, errs, code := call(t, "http://"+p.addr, "backup", "-o", file); code != 0 || errs != "" || !strings.Contains(out, file+": everything as it was at 20") {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	out, errs, code := call(t, "http://"+p.addr, "backup", "-o", "-")
	if _, err := archive.Read(strings.NewReader(out), nil); code != 0 || errs != "" || err != nil {
		t.Errorf("to stdout: exit %d, %s, %v", code, errs, err)
	}
	p.stop()

	data := filepath.Join(dir, "new")
	out, errs, code = call(t, "", "restore", "-data", data, file)
	if code != 0 || errs != "" || !strings.Contains(out, "restored everything as it was at 20") || !strings.Contains(out, "1 slot in use, 0 values") || !strings.Contains(out, "raised: the next version is above 1") {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	if out, errs, code := call(t, "", "verify", data); code != 0 {
		t.Errorf("verify: exit %d, %s%s", code, out, errs)
	}
	if _, errs, code := call(t, "", "restore", "-data", data, file); code != 1 || !strings.Contains(errs, "is not empty") {
		t.Errorf("a second time: exit %d, %s", code, errs)
	}
	out, errs, code = call(t, "", "restore", "-skip", "100", "-keep", "-data", data+"2", file)
	if code != 0 || !strings.Contains(out, "1 sequence advanced by 100") || !strings.Contains(out, "as in the backup") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	for i, want := range []string{"42\n", "142\n"} {
		p := start(t, "data: "+data+strings.Repeat("2", i)+"\nlisten: 127.0.0.1:0\n")
		if _, got := ask(t, http.DefaultClient, "POST", "http://"+p.addr+"/db/1/sequence/a"); got != want {
			t.Errorf("the sequence continues with %q, want %q", got, want)
		}
		p.stop()
	}
	if err := os.Truncate(file, 1<<20+7); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := call(t, "", "restore", "-data", data+"3", file); code != 1 || !strings.Contains(errs, "the backup is cut off") {
		t.Errorf("a backup that is cut: exit %d, %s", code, errs)
	}
	if got := names(t, dir); len(got) != 3 {
		t.Errorf("there are %q", got)
	}
}

// TestBackupThatFailsLeavesWhatWasThere makes the server, or a stand-in for it, fail in each
// way. Yesterday's backup stays, and no other file is left.
func TestBackupThatFailsLeavesWhatWasThere(t *testing.T) {
	p := start(t, small(t, "listen: 127.0.0.1:0\ntokens: [{token: abc}, {token: reader, readonly: true}]\n"))
	whole, errs, code := call(t, "http://"+p.addr, "backup", "-o", "-", "-token-file", tokenFile(t, "abc"))
	if code != 0 {
		t.Fatal(errs)
	}
	answer := func(typ, body string, abort bool) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", typ)
			_, _ = io.WriteString(w, body) // the client may be gone
			if abort {
				panic(http.ErrAbortHandler)
			}
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	nobody := "http://" + ownAddr(t)
	flipped := []byte(whole)
	flipped[len(flipped)/2] ^= 1
	for _, c := range []struct {
		what, server string
		args         []string
		code         int
		part         string
	}{
		{"no server", nobody, nil, 69, "connection refused"},
		{"not Cloud Dragon", answer("text/html", "hello", false), nil, 69, "is it a Cloud Dragon server"},
		{"no token", "http://" + p.addr, nil, 77, "token"},
		{"a token for reading", "http://" + p.addr, []string{"-token-file", tokenFile(t, "reader")}, 77, "a backup holds everything"},
		{"the server ends in the middle", answer("application/x-tar", whole[:len(whole)/2], true), nil, 69, "ended early"},
		{"the copy is cut", answer("application/x-tar", whole[:len(whole)/2], false), nil, 1, "cut off"},
		{"a byte is changed", answer("application/x-tar", string(flipped), false), nil, 1, "damaged"},
		{"no file is named", nobody, []string{"-o", ""}, 64, "-o FILE"},
		{"an argument too many", nobody, []string{"x"}, 64, "unknown argument"},
		{"a bad flag", nobody, []string{"-x"}, 64, "-x"},
		{"no directory", answer("application/x-tar", whole, false), []string{"-o", "/nowhere/x.tar"}, 1, "/nowhere"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "b.tar")
		if err := os.WriteFile(file, []byte("yesterday's"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs, code := call(t, c.server, append([]string{"backup", "-o", file}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.part) {
			t.Errorf("%s: exit %d, %q; want %d with %q", c.what, code, errs, c.code, c.part)
		}
		if b, err := os.ReadFile(file); string(b) != "yesterday's" || len(names(t, dir)) != 1 {
			t.Errorf("%s: there are %q; %.20q, %v", c.what, names(t, dir), b, err)
		}
	}
}

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestKeepDeletesNothingElse keeps the newest backups and leaves other files alone.
func TestKeepDeletesNothingElse(t *testing.T) {
	dir := t.TempDir()
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	for _, name := range []string{"n-1.txt", "n-0.tar", "other-1.tar"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("no backup"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"m-1.tar", "n-#.tar", "n-1.tar", "n-2.tar", "n-10.tar", "n-3.tar"} {
		if _, errs, code := call(t, "http://"+p.addr, "backup", "-keep", "2", "-o", filepath.Join(dir, name)); code != 0 {
			t.Fatal(errs)
		}
	}
	if got := strings.Join(names(t, dir), " "); got != "m-1.tar n-#.tar n-0.tar n-1.txt n-10.tar n-3.tar other-1.tar" {
		t.Errorf("left are %s", got)
	}
}

// Several backups with -keep at the same time remove the same files. One backup is left, except on a
// file system without locks.
func TestOldBackupsAreRemovedTwiceAtOnce(t *testing.T) {
	for _, locks := range []bool{true, false} {
		dir := t.TempDir()
		for i := range 500 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("n-%d.tar", i)), []byte(archive.First+"\x00"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				if err := removeTestBackups(dir, fmt.Sprintf("n-%d.tar", i), locks); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if left := names(t, dir); locks && len(left) != 1 {
			t.Errorf("left are %q, want one", left)
		}
	}
}

// removeTestBackups removes all backups but one, as on a file system with or without locks.
func removeTestBackups(dir, base string, locks bool) error {
	if locks {
		_, err := removeOld(filepath.Join(dir, base), 1)
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_, err = removeOldFrom(d, dir+"/", base, 1)
	return errors.Join(err, d.Close())
}

// A backup that is killed leaves its temporary file. The next one removes it, but not that of a
// backup that is under way, nor another file.
func TestBackupRemovesWhatAKilledOneHasLeft(t *testing.T) {
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	dir := t.TempDir()
	for _, name := range []string{".n-1.tar.123.part", ".n-.tar.123.part", ".m-1.tar.123.part", ".n-1.tar.part"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := createPart(dir, "n-2.tar")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, errs, code := call(t, "http://"+p.addr, "backup", "-o", filepath.Join(dir, "n-3.tar")); code != 0 {
		t.Fatal(errs)
	}
	if got, want := strings.Join(names(t, dir), " "), strings.Join([]string{".m-1.tar.123.part", ".n-.tar.123.part", ".n-1.tar.part", filepath.Base(f.Name()), "n-3.tar"}, " "); got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
	p.stop()
}

// A temporary file may be found before its backup has locked it.
func TestPartOfABackupThatBeginsIsNotRemoved(t *testing.T) {
	dir := t.TempDir()
	end := make(chan struct{})
	var removing sync.WaitGroup
	removing.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}
			if err := removeParts(dir, "n"); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 300 {
		f, err := createPart(dir, "n")
		if err != nil {
			t.Error(err)
			break
		}
		if err := errors.Join(os.Rename(f.Name(), filepath.Join(dir, "n")), f.Close()); err != nil {
			t.Error(err)
			break
		}
	}
	close(end)
	removing.Wait()
}

func TestRestoreRefusesBadArguments(t *testing.T) {
	for _, args := range [][]string{{"x"}, {"-data", "x"}, {"-data", "x", "a", "b"}, {"-data", "x", "-skip", "-1", "a"}, {"-data", "x", "-skip", "a", "a"}} {
		if _, errs, code := call(t, "", append([]string{"restore"}, args...)...); code != 64 || !strings.HasPrefix(errs, "clouddragon restore: ") {
			t.Errorf("%q: exit %d, %s", args, code, errs)
		}
	}
	if _, errs, code := call(t, "", "restore", "-data", t.TempDir(), "/nowhere"); code != 1 || strings.Count(errs, "\n") != 1 {
		t.Errorf("no such file: exit %d, %s", code, errs)
	}
	// A pipe cannot be read twice.
	data := filepath.Join(t.TempDir(), "data")
	if _, errs, code := call(t, "", "restore", "-data", data, "/dev/null"); code != 1 || !strings.Contains(errs, "not a regular file") {
		t.Errorf("a file that cannot be read twice: exit %d, %s", code, errs)
	}
}

// TestInterruptedBackupSaysSo interrupts a backup that is half there.
func TestInterruptedBackupSaysSo(t *testing.T) {
	half := make(chan bool, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-tar")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		half <- true
		<-r.Context().Done()
	}))
	defer s.Close()
	dir := t.TempDir()
	cmd := exec.Command(binary, "backup", "-server", s.URL, "-o", filepath.Join(dir, "b.tar"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-half
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "interrupt") || strings.Contains(errs.String(), "no answer") {
		t.Errorf("%v, %s", err, errs.String())
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("%q are left", got)
	}
}

// TestBackupReplacesOnlyAFile has root write a backup to a device, a pipe, a link or a
// directory by mistake. `-o /dev/null` must not turn /dev/null into a file.
func TestBackupReplacesOnlyAFile(t *testing.T) {
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	dir := t.TempDir()
	for name, create := range map[string]func(name string) error{
		"a named pipe":     func(name string) error { return unix.Mkfifo(name, 0o600) },
		"a directory":      func(name string) error { return os.Mkdir(name, 0o700) },
		"a symbolic link":  func(name string) error { return os.Symlink("/dev/null", name) },
		"a link to a file": func(name string) error { return os.Symlink(os.Args[0], name) },
	} {
		file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := create(file); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(file)
		if err != nil {
			t.Fatal(err)
		}
		out, errs, code := call(t, "http://"+p.addr, "backup", "-o", file)
		if code != 1 || !strings.Contains(errs, "not a regular file") {
			t.Errorf("%s: exit %d, %s%s", name, code, out, errs)
		}
		if after, err := os.Lstat(file); err != nil || after.Mode() != before.Mode() {
			t.Errorf("%s is %v now, was %v, %v", name, after.Mode(), before.Mode(), err)
		}
	}
	if got := names(t, dir); len(got) != 4 {
		t.Errorf("the directory holds %q", got)
	}
	p.stop()
}
