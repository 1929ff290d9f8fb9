package handlers

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"clouddragon/db"
)

const (
	infoA = `{"ID":"a-1","Operation":"OperationTypeApply","Info":"","Who":"root@host","Version":"1.9.0","Created":"2026-11-26T02:19:24Z","Path":""}`
	infoB = `{"ID":"b-2","Operation":"OperationTypePlan","Info":"","Who":"bob@host","Version":"1.9.0","Created":"2026-11-26T02:19:25Z","Path":""}`
	// OpenTofu's force-unlock knows the ID alone.
	onlyID = `{"ID":"a-1","Operation":"","Info":"","Who":"","Version":"","Created":"0001-01-01T00:00:00Z","Path":""}`
)

// tf sends a request with a body, as the HTTP backend does.
func (r *rig) tf(method, target, body string, status int, want string) reply {
	r.t.Helper()
	a := r.raw(method, request(method, target, body, "Content-Type: application/json"))
	if a.status != status || want != "*" && a.body != want {
		r.t.Errorf("%s %s %.40s: got %v, want %d %q", method, target, body, a, status, want)
	}
	return a
}

func TestAccountOfAStateAloneIsListed(t *testing.T) {
	r := newRig(t, nil)
	r.tf("POST", "/db/1/tfstate/web", `{"serial":1}`, 200, "*")
	r.tf("LOCK", "/db/2/tfstate/web", infoA, 200, "*")
	r.want(200, "1\n2\n", "GET", "/db")
	r.want(200, "", "GET", "/db/1/kv")
	r.tf("DELETE", "/db/1/tfstate/web", "", 200, "*")
	r.tf("UNLOCK", "/db/2/tfstate/web", infoA, 200, "*")
	r.want(200, "", "GET", "/db")
}

func TestTFStateProtocol(t *testing.T) {
	r := newRig(t, nil)
	const state = "/db/1/tfstate/web"
	r.tf("GET", state, "", 404, "*")
	r.tf("LOCK", state, infoA, 200, "locked\n")
	r.tf("LOCK", state, infoA, 200, "locked\n") // sent again
	if a := r.tf("LOCK", state, infoB, 423, infoA); a.header.Get("Content-Type") != "application/json" {
		t.Errorf("got %v", a)
	}
	r.tf("POST", state, `{"serial":0}`, 423, infoA)
	r.tf("POST", state+"?ID=b-2", `{"serial":0}`, 423, infoA)
	r.tf("GET", state, "", 404, "*")
	r.tf("POST", state+"?ID=a-1", `{"serial":1}`, 200, "*")
	if a := r.tf("GET", state, "", 200, `{"serial":1}`); a.header.Get("Content-Type") != "application/json" {
		t.Errorf("got %v", a)
	}
	r.tf("DELETE", state, "", 423, infoA)
	r.tf("DELETE", state+"?ID=b-2", "", 423, infoA)
	r.tf("UNLOCK", state, infoB, 423, infoA)
	r.tf("UNLOCK", state, infoA, 200, "*")
	r.tf("UNLOCK", state, infoA, 200, "*") // sent again
	r.tf("POST", state+"?ID=a-1", `{"serial":2}`, 409, "*")
	r.tf("POST", state, `{"serial":2}`, 200, "*")
	for _, force := range []string{"", onlyID, `{"ID":"other"}`} {
		r.tf("LOCK", state, infoA, 200, "*")
		r.tf("UNLOCK", state, force, 200, "*")
		r.tf("LOCK", state, infoB, 200, "*")
		r.tf("UNLOCK", state, infoB, 200, "*")
	}
	r.tf("GET", state, "", 200, `{"serial":2}`)
	r.tf("HEAD", state, "", 200, "")
	r.tf("DELETE", state, "", 200, "*")
	r.tf("DELETE", state, "", 200, "*")
	r.tf("GET", state, "", 404, "*")

	for _, bad := range []string{"x", "{}", `{"ID":7}`, `{"ID":""}`} {
		r.tf("LOCK", state, bad, 400, "*")
		r.tf("UNLOCK", state, bad, 400, "*")
	}
	r.tf("LOCK", state, "", 400, "*")
	r.refused(405, "not allowed", "PUT", state)
	r.refused(400, "unknown parameter", "GET", state+"?ver=1")
	r.checkRefusal(r.raw("POST", request("POST", state, "x", "Idempotency-Key: k")), 400, "Terraform", "a key")
	// None of this is listed as a value or a lock of the account.
	r.want(404, "*", "GET", "/db/1/kv/web")
	r.want(404, "*", "GET", "/db/1/lock/web")
}

func TestTFStateKeepsTheLastTen(t *testing.T) {
	r := newRig(t, nil)
	var versions []string
	for i := range 14 {
		a := r.tf("POST", "/db/1/tfstate/s", fmt.Sprintf(`{"serial":%d}`, i), 200, "*")
		versions = append(versions, strings.TrimSpace(a.body))
	}
	for i, v := range versions {
		if i < 4 {
			r.tf("GET", "/db/1/tfstate/s?version="+v, "", 404, "*")
			continue
		}
		if a := r.tf("GET", "/db/1/tfstate/s?version="+v, "", 200, fmt.Sprintf(`{"serial":%d}`, i)); a.header.Get("Version") != v {
			t.Errorf("got %v", a)
		}
	}
	r.tf("GET", "/db/1/tfstate/s", "", 200, `{"serial":13}`)
	// None of this is listed among the values.
	r.put("/db/1/kv/mine", "x")
	for target, want := range map[string]string{
		"/db/1/kv": "mine\n", "/db/1/kv?prefix=%00": "", "/db/1/kv?prefix=%00tf": "", "/db/1/kv?limit=1": "mine\n", "/db/1/kv?after=%00": "mine\n",
	} {
		r.want(200, want, "GET", target)
	}
	// A long id, and one that differs from it in the last byte.
	long := strings.Repeat("x", 254)
	r.tf("POST", "/db/1/tfstate/"+long+"a", "1", 200, "*")
	r.tf("POST", "/db/1/tfstate/"+long+"b", "2", 200, "*")
	r.tf("GET", "/db/1/tfstate/"+long+"a", "", 200, "1")
	r.tf("GET", "/db/1/tfstate/"+long+"b", "", 200, "2")
	// A large one is read whole.
	large := strings.Repeat("state", 300<<10)
	r.tf("POST", "/db/2/tfstate/s", large, 200, "*")
	r.tf("GET", "/db/2/tfstate/s", "", 200, large)
	r.tf("GET", "/db/1/tfstate/s", "", 200, `{"serial":13}`)
}

// TestTFStateHasOneHolder lets many clients lock one state at once. The one that holds it
// writes.
func TestTFStateHasOneHolder(t *testing.T) {
	r := newRig(t, nil)
	var all sync.WaitGroup
	var mu sync.Mutex
	held := 0
	for i := range 8 {
		all.Go(func() {
			id := fmt.Sprintf("id-%d", i)
			info := fmt.Sprintf(`{"ID":%q,"Who":"w"}`, id)
			for range 20 {
				if a := r.raw("LOCK", request("LOCK", "/db/1/tfstate/s", info)); a.status == 423 {
					continue
				} else if a.status != 200 {
					t.Error(a)
				}
				mu.Lock()
				if held++; held != 1 {
					t.Error("two hold the state")
				}
				mu.Unlock()
				if a := r.raw("POST", request("POST", "/db/1/tfstate/s?ID="+id, id)); a.status != 200 {
					t.Error(a)
				}
				mu.Lock()
				held--
				mu.Unlock()
				if a := r.raw("UNLOCK", request("UNLOCK", "/db/1/tfstate/s", info)); a.status != 200 {
					t.Error(a)
				}
			}
		})
	}
	all.Wait()
}

// TestTFStateIsNotWrittenBehindALostLock forces a lock away after a write was allowed and
// before it is committed.
func TestTFStateIsNotWrittenBehindALostLock(t *testing.T) {
	r := newRig(t, nil)
	const state = "/db/1/tfstate/s"
	r.tf("POST", state, "first", 200, "*")
	r.tf("LOCK", state, infoA, 200, "*")
	c := &call{w: httptest.NewRecorder(), r: httptest.NewRequest("POST", state, nil)}
	c.api, c.method, c.key = TFState, "POST", db.Key{Acc: "1", ID: "s"}
	tries := 0
	done, err := r.server.changeTF(c, "a-1", func(all [tfVersions]tfVersion) []db.Operation {
		if tries++; tries == 1 {
			r.tf("UNLOCK", state, "", 200, "*")
			r.tf("LOCK", state, infoB, 200, "*")
		}
		oldest := all[tfVersions-1]
		return []db.Operation{&db.ValueSet{Key: oldest.key, Data: []byte("late"), Conditions: db.Conditions{Check: oldest.version}}}
	})
	if done || err != nil || tries != 1 || c.status != 423 || string(c.body) != infoB {
		t.Errorf("%t, %v after %d tries, %d %s", done, err, tries, c.status, c.body)
	}
	r.tf("GET", state, "", 200, "first")
}
