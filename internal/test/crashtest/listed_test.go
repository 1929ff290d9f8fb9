package crashtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// lists reports whether etcd lists a server as one that has every acknowledged write. Only such a
// server can be elected.
func (e *etcds) lists(name string) (bool, error) {
	q, err := json.Marshal(map[string][]byte{"key": []byte("clouddragon/default/config")})
	if err != nil {
		return false, err
	}
	res, err := http.Post(e.urls[len(e.urls)-1]+"/v3/kv/range", "application/json", bytes.NewReader(q))
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	var a struct{ Kvs []struct{ Value []byte } }
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return false, err
	}
	if len(a.Kvs) != 1 {
		return false, fmt.Errorf("etcd has %d configurations of the cluster, want one", len(a.Kvs))
	}
	var c struct{ InSync []string }
	err = json.Unmarshal(a.Kvs[0].Value, &c)
	return slices.ContainsFunc(c.InSync, func(s string) bool { return strings.HasPrefix(s, name+"@") }), err
}

// pauseInSync pauses a primary at a moment at which its standby can be elected. On a busy machine a
// standby is taken out, and comes back, at any time.
func (e *etcds) pauseInSync(t *testing.T, primary *server, standby string) {
	t.Helper()
	err := eventually("the primary is paused while its standby has every write", func() bool {
		if err := primary.pause(); err != nil {
			t.Fatal(err)
		}
		if listed, err := e.lists(standby); err == nil && listed {
			return true
		}
		if err := primary.goOn(); err != nil {
			t.Fatal(err)
		}
		return false
	})
	if err != nil {
		t.Fatalf("%v:\n%s", err, primary.output())
	}
}
