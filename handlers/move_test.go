package handlers

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"clouddragon/db"
)

// moveStep takes a step of a move and returns what it answers.
func (r *rig) moveStep(query string) (m moveAnswer) {
	r.t.Helper()
	a := r.want(200, "*", "POST", "/move?account=shop&"+query)
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		r.t.Fatal(err)
	}
	return m
}

// TestMovingAccountIs503AndThen421 uses an account on the server that it is moved away from.
func TestMovingAccountIs503AndThen421(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "1\n", "POST", "/db/shop/sequence/s")
	lock := r.granted(r.do("POST", "/db/shop/lock/l?id=a&dur=600"))
	r.granted(r.do("POST", "/db/shop/mlock/m?id=a&dur=600"))
	events := r.stream("/db/shop/events")
	watch := r.ask("GET", "/db/shop/sequence/s?not=1&wait=600")
	r.watching(2)
	waits := []<-chan reply{r.ask("POST", "/db/shop/lock/l?id=b&wait=600"), r.ask("POST", "/db/shop/mlock/m?id=b&wait=600")}
	r.queued("/db/shop/lock/l", 1)
	r.queued("/db/shop/mlock/m", 1)

	start := r.moveStep("step=freeze&peer=http://there")
	if start.State != db.Frozen || start.ID == "" || start.Version < 0 || start.Token <= lock {
		t.Errorf("it begins with %+v", start)
	}
	const moving = `account "shop" is being moved to another server: try again shortly`
	for _, answer := range waits {
		a := <-answer
		r.checkRefusal(a, 503, moving, "a wait")
		if a.header.Get("Retry-After") == "" {
			t.Errorf("a wait: no Retry-After in %v", a)
		}
	}
	for _, c := range []struct{ method, target string }{
		{"POST", "/db/shop/sequence/s"}, {"GET", "/db/shop/sequence/s"}, {"GET", "/db/shop/kv/v"}, {"GET", "/db/shop/kv"}, {"POST", "/db/shop/batch"},
		{"POST", "/db/shop/mlock/m"}, {"GET", "/db/shop/events"}, {"GET", "/db/shop/tfstate/s"}, {"DELETE", "/db/shop/lock/l"},
	} {
		a := r.do(c.method, c.target)
		r.checkRefusal(a, 503, moving, c.method+" "+c.target)
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s %s: no Retry-After", c.method, c.target)
		}
	}
	r.want(200, "1\n", "POST", "/db/other/sequence/s")

	r.moveStep("step=depart&id=" + start.ID)
	const moved = `account "shop" has moved to http://there: ask that server`
	r.checkRefusal(<-watch, 421, moved, "a watch")
	if got := r.data(events, "event: moved"); got != "" {
		t.Errorf("the stream ends with %q", got)
	}
	if got := r.data(events, "data: "); !strings.Contains(got, `"status":421`) || !strings.Contains(got, "has moved to http://there") {
		t.Errorf("the stream ends with %q", got)
	}
	for events.Scan() {
		if events.Text() != "" {
			t.Errorf("the stream goes on with %q", events.Text())
		}
	}
	if a := r.refused(421, moved, "POST", "/db/shop/sequence/s"); a.header.Get("Location") != "http://there" {
		t.Errorf("Location: %q, want the other server", a.header.Get("Location"))
	}
	r.refused(421, moved, "GET", "/db/shop/events")
	r.want(200, "other\n", "GET", "/db")
	r.moveStep("step=forget&id=" + start.ID)
	r.refused(421, moved, "GET", "/db/shop/sequence/s")
}

func TestMoveTakesAFullTokenAndRefusesNonsense(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) {
		o.Tokens = NewTokens(Token{Token: "all"}, Token{Token: "shop", Accounts: []string{"shop"}}, Token{Token: "reads", ReadOnly: true})
	})
	all := "Authorization: Bearer all"
	for _, c := range []struct{ method, target string }{
		{"GET", "/move?account=shop"}, {"POST", "/move?account=shop&step=freeze&peer=x"}, {"GET", "/movedata?account=shop&id=x"}, {"POST", "/movedata?account=shop&id=x&attempt=y"},
	} {
		r.refused(401, "a token is needed", c.method, c.target)
		for _, token := range []string{"shop", "reads"} {
			r.refused(403, "full access", c.method, c.target, "Authorization: Bearer "+token)
		}
	}
	r.want(200, `{"state":""}`+"\n", "GET", "/move?account=shop", all)
	for _, c := range []struct {
		status               int
		part, method, target string
	}{
		{400, "account is missing", "GET", "/move"},
		{400, "must be the name of an account", "GET", "/move?account=.."},
		{400, "must be the name of an account", "GET", "/move?account=a%00"},
		{400, "must be the name of an account", "GET", "/move?account=" + strings.Repeat("a", 65)},
		{400, "step must be", "POST", "/move?account=shop&step=fly"},
		{400, "peer is missing", "POST", "/move?account=shop&step=freeze"},
		{400, "without a user", "POST", "/move?account=shop&step=freeze&peer=http://me:secret@there"},
		{400, "peer has 300 bytes", "POST", "/move?account=shop&step=freeze&peer=" + strings.Repeat("p", 300)},
		{400, "id is missing", "POST", "/move?account=shop&step=open"},
		{400, "version must be", "POST", "/move?account=shop&step=arrive&id=x&peer=y&version=-1"},
		{409, "was not copied here", "POST", "/move?account=shop&step=open&id=x"},
		{409, "is no longer in this move", "POST", "/move?account=shop&step=depart&id=x"},
		{409, "has not moved from here", "POST", "/move?account=shop&step=forget&id=x"},
		{409, "is not arriving in this attempt", "POST", "/move?account=shop&step=arrived&id=x&attempt=y"},
		{409, "is not frozen in this move", "GET", "/movedata?account=shop&id=x"},
		{405, "not allowed", "DELETE", "/move?account=shop"},
	} {
		r.refused(c.status, c.part, c.method, c.target, all)
	}
	r.refused(400, "not for moves", "POST", "/move?account=shop&step=unfreeze", all, "Idempotency-Key: k")

	record := db.AppendMoveRecord(nil, &db.MoveRecord{ID: "v", Version: 1, Payload: []byte("v")})
	target := "/movedata?account=shop&id=x&attempt=y"
	r.checkRefusal(r.send("POST", target, string(record), all), 409, "is not arriving in this attempt", "an import")
	for what, body := range map[string]string{
		"half a record": string(record[:20]), "half a head": string(record[:5]),
		"a changed one":  string(record[:len(record)-1]) + "x",
		"an unknown one": string(db.AppendMoveRecord(nil, &db.MoveRecord{Kind: 99, ID: "v"})),
		"no version":     string(db.AppendMoveRecord(nil, &db.MoveRecord{ID: "v"})),
		"a long id":      string(db.AppendMoveRecord(nil, &db.MoveRecord{ID: strings.Repeat("v", 256), Version: 1})),
		"a short lock":   string(db.AppendMoveRecord(nil, &db.MoveRecord{Kind: 3, ID: "l", Sub: 1, Payload: []byte("x")})),
	} {
		if a := r.send("POST", target, body, all); a.status != 400 {
			t.Errorf("%s: %v", what, a)
		}
	}
	r.want(200, "1\n", "POST", "/db/"+url.PathEscape("shop")+"/sequence/s", all)
}
