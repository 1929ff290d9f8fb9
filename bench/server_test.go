package main

import (
	"strings"
	"testing"
)

func TestLostAndDoubledWritesAreFound(t *testing.T) {
	sequence, kv := &row{name: "a row", api: "sequence"}, &row{name: "a row", api: "kv"}
	l := ledger{acknowledged: 100, unanswered: 10}
	for _, c := range []struct {
		row         *row
		sum, newest int64
		want        string // in the error; empty: all is well
	}{
		{sequence, 100, 0, ""},
		{sequence, 110, 0, ""},
		{sequence, 99, 0, "lost"},
		{sequence, 111, 0, "twice"},
		{kv, 0, 100, ""},
		{kv, 0, 5000, ""}, // versions of other keys come between
		{kv, 0, 99, "lost"},
	} {
		err := l.check(c.row, c.sum, c.newest)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s, sum %d, newest %d: %v", c.row.api, c.sum, c.newest, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s, sum %d, newest %d: got %v, want an error with %q", c.row.api, c.sum, c.newest, err, c.want)
		}
	}
}
