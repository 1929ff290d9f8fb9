package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnitStartsAgainAfterWhateverMayMendItself reads the systemd unit.
func TestUnitStartsAgainAfterWhateverMayMendItself(t *testing.T) {
	b, err := os.ReadFile("clouddragon.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"Restart=always", "StartLimitIntervalSec=0", "ExecReload=/bin/kill -HUP $MAINPID",
		fmt.Sprintf("RestartPreventExitStatus=%d %d", exitUsage, exitConfig),
	} {
		if !strings.Contains(string(b), "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
}

// TestSystemdFindsNoFaultInTheUnit needs systemd-analyze, which Debian has in its package systemd.
func TestSystemdFindsNoFaultInTheUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"clouddragon.service", "clouddragon-backup.service", "clouddragon-backup.timer"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// As where the program is installed, and with what is commented out.
		text := strings.NewReplacer("/usr/local/bin/clouddragon", binary, "\n#LoadCredential", "\nLoadCredential").Replace(string(b))
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		units = append(units, file)
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, units...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "clouddragon") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
