package crashtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBackupOnAFullDisk takes a backup of a server whose disk is full, which works. Then it
// stores and restores the backup on the full disk, which fails and leaves nothing behind.
func TestBackupOnAFullDisk(t *testing.T) {
	begin(t)
	t.Parallel()
	v := newVolume(t, ext4, 64)
	config := "log: {segment: 1MiB}\nlimits: {value: 256KiB}"
	s := serve(t, setup{binary: *binary, data: filepath.Join(v.dir, "data"), config: config})
	c := &client{addr: s.addr}
	defer c.close()
	older := filepath.Join(v.dir, "older.tar")
	if err := os.WriteFile(older, []byte("yesterday's"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustBe(t, c, 200, "POST", "/db/1/sequence/a?n=10", "")
	free := fill(t, v)
	stored := 0
	for value := strings.Repeat("v", 100<<10); ; stored++ {
		a, err := c.do("PUT", fmt.Sprintf("/db/1/kv/%d", stored), value)
		if err != nil || a.status != 200 && a.status != 507 {
			t.Fatalf("PUT on a full disk: %v, %v\n%s", a, err, s.output())
		}
		if a.status == 507 {
			break
		}
	}

	backup, err := readBackup(s.addr)
	if err != nil {
		t.Fatalf("a backup while the disk is full: %v\n%s", err, s.output())
	}
	run := func(args ...string) (string, int) {
		cmd := exec.Command(*binary, args...)
		cmd.Env = append(os.Environ(), "CLOUDDRAGON_SERVER=http://"+s.addr, "CLOUDDRAGON_TOKEN=")
		out, err := cmd.CombinedOutput()
		if err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := run("backup", "-o", older); code != 1 || !strings.Contains(out, "no space left") {
		t.Errorf("backup onto the full disk: exit code %d, %s", code, out)
	}
	if b, err := os.ReadFile(older); string(b) != "yesterday's" {
		t.Errorf("the older backup has %d bytes now, %v", len(b), err)
	}
	elsewhere := t.TempDir()
	file := filepath.Join(elsewhere, "backup.tar")
	if err := os.WriteFile(file, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := run("restore", "-data", filepath.Join(v.dir, "new"), file); code != 1 || !strings.Contains(out, "no space left") {
		t.Errorf("restore onto the full disk: exit code %d, %s", code, out)
	}
	names, err := os.ReadDir(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		switch e.Name() {
		case "data", "older.tar", "filler", "lost+found":
		default:
			t.Errorf("%s is left on the full disk", e.Name())
		}
	}

	data := filepath.Join(elsewhere, "data")
	if out, code := run("restore", "-data", data, file); code != 0 {
		t.Fatalf("restore: exit code %d, %s", code, out)
	}
	r := serve(t, setup{binary: *binary, data: data, config: config})
	restored := &client{addr: r.addr}
	defer restored.close()
	if a := mustBe(t, restored, 200, "GET", "/db/1/sequence/a", ""); a.body != "10\n" {
		t.Errorf("the sequence that was restored is %v", a)
	}
	for n := range stored {
		mustBe(t, restored, 200, "GET", fmt.Sprintf("/db/1/kv/%d", n), "")
	}
	mustBe(t, restored, 404, "GET", fmt.Sprintf("/db/1/kv/%d", stored), "")
	free()
	mustBe(t, c, 200, "PUT", "/db/1/kv/again", "value")
	c.close()
	restored.close()
	if err := errors.Join(s.stop(), s.trouble(), r.stop(), r.trouble()); err != nil {
		t.Error(err)
	}
}
