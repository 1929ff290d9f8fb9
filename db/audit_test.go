package db

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"clouddragon/internal/test/memdisk"
)

// auditOf are the messages of an audit, with account, name, holder and token.
func auditOf(log string) (all []string) {
	line := regexp.MustCompile(`msg="([^"]*)" audit=true account=(\S+) name=(\S+) holder=(\S+) token=(\d+) at=(\S+)\n`)
	for _, m := range line.FindAllStringSubmatch(log, -1) {
		all = append(all, strings.Join(m[1:6], " "))
	}
	return all
}

func TestAuditTellsWhoWasGrantedForcedAndExpired(t *testing.T) {
	fs, clock := memdisk.New(), newTestClock()
	var log bytes.Buffer // written to before the calls are answered
	o := tiny(fs, clock)
	o.Audit = slog.New(slog.NewTextHandler(&log, nil))
	d := mustOpen(t, o)
	a := mustTake(t, d, LockRequest{Owner: "a", Dur: time.Minute, Least: 2 * time.Minute})
	if _, err := takeDoor(t, d, LockRequest{Owner: "a", Dur: time.Minute}); err != nil { // a renewal
		t.Fatal(err)
	}
	wantNotTaken(t, d, LockRequest{Owner: "b"})
	clock.pass(time.Minute)
	wantTokens(t, d, a) // it rests
	clock.pass(time.Minute)
	b := mustTake(t, d, LockRequest{Owner: "b"})
	wantDone(t, "by force", d.Unlock(UnlockRequest{Key: door, Force: true}))
	c := mustTake(t, d, LockRequest{Owner: "c"})
	unlock(t, d, c)
	// A change that is undone is not reported.
	err := d.Do(&Batch{Atomic: true, Ops: []Operation{&LockTake{LockRequest: LockRequest{Key: door, Owner: "undone", Dur: time.Hour}},
		&CounterAdd{Key: Key{"a", "c"}, Add: 1, Max: 0}}})
	if err == nil {
		t.Fatal("a batch with a bad end is done")
	}
	m, err := d.LockMutex(context.Background(), LockRequest{Key: door, Owner: "m", Dur: time.Hour})
	wantDone(t, "a mutex", err)
	wantDone(t, "by force", d.UnlockMutex(UnlockRequest{Key: door, Force: true}))
	mustClose(t, d)
	want := []string{
		fmt.Sprint("lock granted a door a ", a), fmt.Sprint("lock expired a door a ", a),
		fmt.Sprint("lock granted a door b ", b), fmt.Sprint("lock unlocked by force a door b ", b),
		fmt.Sprint("lock granted a door c ", c),
		fmt.Sprint("mutex granted a door m ", m), fmt.Sprint("mutex unlocked by force a door m ", m),
	}
	if got := auditOf(log.String()); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the audit is\n%s\nwant\n%s\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), log.String())
	}
	if !strings.Contains(log.String(), "at="+time.Unix(0, epoch).UTC().Format("2006-01-02T15:04:05.000Z")) {
		t.Errorf("the audit does not tell the time: %s", log.String())
	}
}
