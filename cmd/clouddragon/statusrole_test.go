package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"clouddragon/internal/replica"
)

func TestStatusTellsTheRole(t *testing.T) {
	t.Setenv("CLOUDDRAGON_TOKEN", "")
	p := start(t, small(t, "listen: 127.0.0.1:0\ntoken: full\ntokens: [{token: some, accounts: [a]}]\n"))
	if code, got, complaint := runStatus("http://"+p.addr, "-account", "a"); code != 77 {
		t.Fatalf("without a token: exit code %d, %s%s", code, got, complaint)
	}
	t.Setenv("CLOUDDRAGON_TOKEN", "full")
	if code, got, complaint := runStatus("http://" + p.addr); code != 0 || strings.Contains(got, "role") {
		t.Errorf("of a server that is alone: exit code %d, %s%s", code, got, complaint)
	}
	sb := start(t, small(t, "listen: 127.0.0.1:0\ntoken: full\nreplica: {of: \"http://"+p.addr+"\", sync: true}\n"))
	want(t, http.DefaultClient, "GET", "http://"+p.addr+"/healthz", 200, "ok\n")
	eventually(t, func() string {
		code, got, complaint := runStatus("http://" + sb.addr)
		if strings.Contains(got, "role    standby, epoch 1; the primary is http://"+p.addr+", and this standby is in sync\n\nask the primary who holds what\n") {
			return ""
		}
		return fmt.Sprintf("of the standby: exit code %d, %s%s", code, got, complaint)
	})
	code, got, complaint := runStatus("http://" + p.addr)
	if code != 0 || !strings.Contains(got, "role    primary, epoch 1; the standby ") || !strings.Contains(got, " is in sync\n\nnothing is held\n") {
		t.Errorf("of the primary: exit code %d, %s%s", code, got, complaint)
	}
	code, got, _ = runStatus("http://"+p.addr, "-json")
	var o overview
	if err := json.Unmarshal([]byte(got), &o); err != nil || code != 0 || o.Replica == nil || !o.Replica.InSync {
		t.Errorf("as JSON: exit code %d, %v: %s", code, err, got)
	}
	// A token for some accounts does not show the role.
	t.Setenv("CLOUDDRAGON_TOKEN", "some")
	if code, got, complaint := runStatus("http://"+p.addr, "-account", "a"); code != 0 || strings.Contains(got, "role") {
		t.Errorf("with a token for some accounts: exit code %d, %s%s", code, got, complaint)
	}
	sb.stop()
	p.stop()
}

func TestRoleLine(t *testing.T) {
	for want, s := range map[string]replica.Status{
		"primary, epoch 2; no standby":                                                                      {Role: "primary", Epoch: 2},
		"primary, epoch 1; the standby b is not in sync, and the link is down":                              {Role: "primary", Epoch: 1, Standby: "b"},
		"primary, epoch 1; the standby b is not in sync, 12 batches and 3.5s behind":                        {Role: "primary", Epoch: 1, Standby: "b", Live: true, Batches: 12, Seconds: 3.5},
		"standby, epoch 3; the primary is http://a, and this standby is in sync":                            {Role: "standby", Epoch: 3, Primary: "http://a", InSync: true, Live: true},
		"standby, epoch 3; the primary is http://a, and this standby is not in sync, and the link is down":  {Role: "standby", Epoch: 3, Primary: "http://a"},
		"standby, epoch 1; the primary is not known, and this standby is not in sync, and the link is down": {Role: "standby", Epoch: 1},
		"replaced, epoch 4; the primary is http://a":                                                        {Role: "replaced", Epoch: 4, Primary: "http://a"},
		"replaced, epoch 4": {Role: "replaced", Epoch: 4},
	} {
		if got := roleLine(&s); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}

// A full disk, for example.
func TestStatusThatCannotBePrintedIsAnError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for what, o := range map[string]*overview{
		"nothing is held": {Health: "ok"},
		"a lock is held":  {Health: "ok", Locks: []lockStatus{{ID: "l", Holders: []held{{Token: 1}}}}},
		"a standby":       {Health: "ok", Replica: &replica.Status{Role: "standby"}},
		"not known":       {Health: "ok", Unknown: "the standby is away"},
	} {
		if err := o.print(full); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// A primary that waits for its standby after a start does not answer calls about locks, but
// status still tells its role.
func TestStatusTellsTheRoleOfAServerThatDoesNotAnswer(t *testing.T) {
	t.Setenv("CLOUDDRAGON_TOKEN", "")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	sb := standbyOf(t, p, "sync: true")
	p.until("the standby is in sync", inSync)
	for _, server := range []*process{sb, p} {
		server.signal(syscall.SIGKILL)
		server.exit()
	}
	again := start(t, "data: "+p.dataOf()+"\nlisten: 127.0.0.1:0\nlimits: {value: 64KiB}\nlog: {segment: 1MiB}\n")
	code, got, complaint := runStatus("http://" + again.addr)
	if code != 69 || complaint != "" || !strings.Contains(got, "health  ok\nrole    primary, epoch 1; the standby ") || !strings.Contains(got, "\nlocks   not known now: ") {
		t.Errorf("exit code %d, %s%s", code, got, complaint)
	}
	code, got, _ = runStatus("http://"+again.addr, "-json")
	var o overview
	if err := json.Unmarshal([]byte(got), &o); err != nil || code != 69 || o.Replica == nil || o.Unknown == "" {
		t.Errorf("as JSON: exit code %d, %v: %s", code, err, got)
	}
	again.stop()
}
