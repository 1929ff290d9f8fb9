package handlers

import (
	"bytes"
	"clouddragon/db"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// batch sends a batch as text, or as JSON if it begins as JSON does.
func (r *rig) batch(query, body string, headers ...string) reply {
	r.t.Helper()
	if strings.HasPrefix(body, "[") {
		headers = append(headers, "Content-Type: application/json")
	}
	return r.put("/db/1/batch"+query, body, headers...)
}

func (r *rig) wantBatch(query, body, want string, headers ...string) {
	r.t.Helper()
	if a := r.batch(query, body, headers...); a.status != 200 || a.body != want {
		r.t.Errorf("batch%s %q: got %v, want 200 %q", query, body, a, want)
	}
}

func TestBatchAnswersEachCallAsASingleOne(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "7\n", "POST", "/db/1/counter/stock?add=7")
	r.wantBatch("", "# an order\nPOST counter/stock?add=-1&min=0\n\nPOST sequence/order\r\nPUT kv/last?ttl=1h the value is the rest\nGET kv/last\nGET kv/none\nDELETE kv/last\n",
		"200 6\n200 1\n200 1\n200 the value is the rest\n404 there is no kv \"none\" of account \"1\"\n204\n")
	r.want(200, "6\n", "GET", "/db/1/counter/stock")
	r.want(404, "*", "GET", "/db/1/kv/last")
	r.wantBatch("", "POST lock/door?id=me&dur=30\nGET lock/none\nGET counter/stock\nGET sequence/order\nDELETE lock/door?id=me", "200 1\n404 lock \"none\" of account \"1\" is not locked\n200 6\n200 1\n204\n")
	r.wantBatch("?atomic=false", "POST rate/r?limit=1&per=1h\nGET rate/r?limit=1&per=1h\nDELETE rate/r\nGET rate/r?limit=1&per=1h\nPATCH kv/none?ttl=1h",
		"200 0\n200 0\n204\n200 1\n404 there is no kv \"none\" of account \"1\"\n")
	r.checkRefusal(r.batch("", "POST counter/stock\nPATCH kv/none?ttl=1h"), 404, "line 2: there is no kv", "a PATCH of nothing")
	// The same name in another account is another thing.
	r.want(404, "*", "GET", "/db/2/counter/stock")
}

func TestBatchAsJSON(t *testing.T) {
	r := newRig(t, nil)
	r.wantBatch("", `[{"method":"PUT","path":"kv/a%2Fb","body":"te\nxt","type":"text/plain"},{"method":"GET","path":"kv/a%2Fb?ver=1"},
		{"method":"PUT","path":"kv/bin","body64":"/w=="},{"method":"GET","path":"kv/bin"},{"method":"POST","path":"counter/c?add=9007199254740993"},
		{"method":"GET","path":"kv/none"},{"method":"DELETE","path":"counter/c"},{"path":"kv\/\u0061?ver=0","method":"P\u0055T","body":"a\"b\\"},{"method":"GET","path":"kv/a"}]`,
		`[{"status":200,"value":1},{"status":200,"body":"te\nxt","version":1,"type":"text/plain"},{"status":200,"value":2},`+
			`{"status":200,"body64":"/w==","version":2,"type":"application/octet-stream"},{"status":200,"value":9007199254740993,"text":"9007199254740993"},`+
			`{"status":404,"error":"there is no kv \"none\" of account \"1\""},{"status":204},{"status":200,"value":3},{"status":200,"body":"a\"b\\","version":3,"type":"application/octet-stream"}]`+"\n")
	if a := r.do("GET", "/db/1/kv/a%2Fb"); a.body != "te\nxt" || a.header.Get("Content-Type") != "text/plain" {
		t.Errorf("the value is %v", a)
	}
	// Accept asks for another form than that of the request.
	r.wantBatch("", `[{"method":"POST","path":"sequence/s"}]`, "200 1\n", "Accept: text/plain")
	r.wantBatch("", "POST sequence/s", `[{"status":200,"value":2}]`+"\n", "Accept: application/json")
	a := r.batch("", `[{"method":"POST","path":"lock/l?id=x"},{"method":"GET","path":"lock/l"}]`)
	var got []map[string]any
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || len(got) != 2 || got[1]["id"] != "x" || got[1]["status"] != 200.0 || got[1]["token"] != got[0]["value"] {
		t.Errorf("a lock in a batch: %v, %v", a, err)
	}
}

func TestABatchIsDoneOrNot(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "5\n", "POST", "/db/1/counter/c?add=5")
	a := r.batch("", "POST counter/c?add=1\nPUT kv/k v\nPOST lock/l?id=a\n# here it ends\nPOST counter/c?add=-100&min=0\nPOST sequence/s")
	r.checkRefusal(a, 409, "line 5: counter", "a batch")
	a = r.batch("", `[{"method":"POST","path":"counter/c"},{"method":"PUT","path":"kv/k?ver=9","body":"v"}]`)
	if a.status != 409 || !strings.HasPrefix(a.body, `{"error":"index 1: value`) {
		t.Errorf("a batch as JSON: %v", a)
	}
	for _, target := range []string{"/db/1/kv/k", "/db/1/lock/l", "/db/1/sequence/s"} {
		r.want(404, "*", "GET", target)
	}
	r.want(200, "5\n", "GET", "/db/1/counter/c")
	a = r.batch("", "POST lock/l?id=a\nPOST lock/l?id=b")
	if r.checkRefusal(a, 409, "line 2: lock", "a batch"); a.header.Get("Lock-Id") != "a" {
		t.Errorf("a held lock: %v", a)
	}
	// With atomic=false each call stands alone.
	r.wantBatch("?atomic=false", "POST counter/c?add=1\nPOST counter/c?add=-100&min=0\nPOST counter/c?add=1",
		"200 6\n409 counter \"c\" is at 6: adding -100 gives -94, under min=0\n200 7\n")
	r.want(200, "7\n", "GET", "/db/1/counter/c")
	// A failed condition of a read makes the batch fail; a read that finds nothing does not.
	r.checkRefusal(r.batch("", "POST counter/c\nGET kv/none?ver=3"), 409, "line 2: value", "a batch")
	r.checkRefusal(r.batch("", "POST counter/c\nGET lock/none?token=3"), 409, "line 2: token 3", "a batch")
	r.wantBatch("", "GET kv/none?ver=0\nPOST counter/c", "404 there is no kv \"none\" of account \"1\"\n200 8\n")
}

func TestMalformedBatchDoesNothing(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Limits.Batch, o.Limits.Value = 5, 1000 })
	for _, c := range []struct {
		body   string
		status int
		part   string
	}{
		{"", 400, "no calls"},
		{"# nothing\n\n", 400, "no calls"},
		{"POST", 400, "line 1: want METHOD API/ID"},
		{"POST counter", 400, "line 1: want"},
		{"POST counter/a/b", 400, "line 1: want"},
		{"POST /db/1/counter/a", 400, "line 1: want"},
		{"post counter/a", 400, "line 1: method \"post\" is not allowed on counter"},
		{"PUT counter/a", 400, "line 1: method"},
		{"HEAD kv/a", 400, "line 1: method"},
		{"POST mlock/a", 400, "line 1: \"mlock\" is not one"},
		{"POST batch/a", 400, "line 1: \"batch\" is not one"},
		{"GET healthz/a", 400, "line 1: \"healthz\" is not one"},
		{"POST counter/a?by=1", 400, "line 1: unknown parameter \"by\""},
		{"POST counter/a?add=x", 400, "line 1: add must be"},
		{"POST counter/a?min=2&max=1", 400, "line 1: min=2 is over max=1"},
		{"POST lock/a?wait=1", 400, "line 1: wait is not allowed"},
		{"GET kv/a?not=1", 400, "line 1: not is not allowed"},
		{"POST rate/a?limit=1", 400, "line 1: per is missing"},
		{"GET kv/a value", 400, "line 1: GET kv takes no value"},
		{"POST counter/a 5", 400, "line 1: POST counter takes no value"},
		{"POST counter/%zz", 400, "line 1: the id"},
		{"POST counter/..", 400, "line 1: the id"},
		{"POST counter/a\nPOST counter/a?", 200, ""},
		{strings.Repeat("POST counter/b\n", 6), 413, "line 6: a batch has at most 5 calls"},
		{"PUT kv/a " + strings.Repeat("x", 1000), 413, "limits.value"},
		{"[]", 400, "no calls"},
		{"[{}]", 400, "index 0: want METHOD"},
		{`[{"method":"POST","path":"counter/c"}`, 400, "ends too early"},
		{`[{"method":"POST","path":"counter/c"}] x`, 400, "more after the JSON"},
		{`[{"method":"POST","path":"counter/c","n":1}]`, 400, `index 0: unknown field "n"`},
		{`[{"method":"POST","method":"POST","path":"counter/c"}]`, 400, "index 0: method is given twice"},
		{`[{"method":"POST","path":5}]`, 400, "index 0: path must be a string"},
		{`[{"method":"PUT","path":"kv/a","body":"x","body64":"eA=="}]`, 400, "exclude each other"},
		{`[{"method":"PUT","path":"kv/a","body64":"e"}]`, 400, "not base64"},
		{`[{"method":"POST","path":"counter/c","type":"a/b"}]`, 400, "takes no type"},
		{`[{"method":"PUT","path":"kv/a","body":"x","type":"a/b\r\nX: y"}]`, 400, "index 0: the type has a control character"},
		{`[{"method":"PUT","path":"kv/a","body":"x","type":"a\u0000b"}]`, 400, "index 0: the type has a control character"},
		{`[{"method":"PUT","path":"kv/a","body":"x","type":"a\u007fb"}]`, 400, "index 0: the type has a control character"},
		{`["POST counter/c"]`, 400, "index 0: a call must be an object"},
		{"[{\"method\":\"PUT\",\"path\":\"kv/a\",\"body\":\"\xff\"}]", 400, "UTF-8"},
		{`[{"method":"PUT","path":"kv/a","body":"\ud800"}]`, 400, "surrogate"},
	} {
		for _, query := range []string{"", "?atomic=false"} {
			a := r.batch(query, c.body, "Accept: text/plain")
			if a.status != c.status || !strings.Contains(a.body, c.part) {
				t.Errorf("%.60q: got %v, want %d with %q", c.body, a, c.status, c.part)
			}
		}
	}
	r.refused(400, "atomic must be", "POST", "/db/1/batch?atomic=yes")
	r.refused(405, "not allowed on batch", "GET", "/db/1/batch")
	if a := r.put("/db/1/batch", "POST counter/c", "Content-Type: multipart/form-data"); a.status != 400 {
		t.Errorf("a batch as a multipart form: %v", a)
	}
	r.want(404, "*", "GET", "/db/1/counter/c")
	r.want(404, "*", "GET", "/db/1/kv/a")
}

// A type that is given in a batch is stored as if it had come in a header.
func TestTypeInABatchIsThatOfAHeader(t *testing.T) {
	r := newRig(t, nil)
	for typ, want := range map[string]string{" a/b\t": "a/b", "  ": "application/octet-stream", "a/b;\tc=d": "a/b;\tc=d", "a/é": "a/é"} {
		body, err := json.Marshal([]map[string]string{{"method": "PUT", "path": "kv/a", "type": typ}, {"method": "GET", "path": "kv/a"}})
		if err != nil {
			t.Fatal(err)
		}
		a := r.batch("", string(body))
		var items []itemJSON
		if err := json.Unmarshal([]byte(a.body), &items); err != nil || len(items) != 2 || items[1].Type != want {
			t.Errorf("%q: got %v, want the type %q", typ, a, want)
		}
	}
}

func TestValueThatDoesNotFitATextBatchIsRefused(t *testing.T) {
	r := newRig(t, nil)
	for _, value := range []string{"a\nb", "a\rb", "\xff"} {
		r.put("/db/1/kv/v", value)
		for _, query := range []string{"", "?atomic=false"} {
			r.checkRefusal(r.batch(query, "POST counter/c\nGET kv/v"), 406, "line 2: the value has a line break", "a batch")
		}
	}
	r.want(404, "*", "GET", "/db/1/counter/c")
}

func TestBatchesOfTokens(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) {
		o.Tokens = NewTokens(Token{Token: "all"}, Token{Token: "reads", ReadOnly: true}, Token{Token: "other", Accounts: []string{"2"}})
	})
	bearer := func(token string) string { return "Authorization: Bearer " + token }
	r.wantBatch("", "POST counter/c", "200 1\n", bearer("all"))
	r.wantBatch("", "GET counter/c\nGET kv/none", "200 1\n404 there is no kv \"none\" of account \"1\"\n", bearer("reads"))
	r.checkRefusal(r.batch("", "GET counter/c\nPOST counter/c", bearer("reads")), 403, "line 2: this token is for reading only", "a write")
	r.checkRefusal(r.batch("", "GET counter/c", bearer("other")), 403, "not for account", "another account")
	r.checkRefusal(r.batch("", "GET counter/c"), 401, "token", "no token")
}

// A read sees the changes of the calls before it, and others see only the whole batch.
func TestMoneyIsNeitherMadeNorLost(t *testing.T) {
	r := newRig(t, nil)
	r.wantBatch("", "POST counter/a?add=1000\nPOST counter/b?add=1000", "200 1000\n200 1000\n")
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := range 25 {
				amount := (n+1)*7 + i
				a := r.batch("", fmt.Sprintf("POST counter/a?add=%d&min=0\nPOST counter/b?add=%d&min=0", -amount, amount))
				if a.status != 200 && a.status != 409 {
					t.Errorf("a transfer: %v", a)
				}
			}
		})
		wg.Go(func() {
			for range 25 {
				var a, b int
				got := r.batch("", "GET counter/a\nGET counter/b")
				if _, err := fmt.Sscanf(got.body, "200 %d\n200 %d\n", &a, &b); err != nil || a+b != 2000 {
					t.Errorf("%q: the sum is %d, %v", got.body, a+b, err)
				}
			}
		})
	}
	wg.Wait()
}

// What a batch releases goes to the first waiter, not to the next call of the batch.
func TestAWaiterIsServedBeforeTheRestOfABatch(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "*", "POST", "/db/1/lock/l?id=a&dur=1h")
	waiter := make(chan reply, 1)
	go func() { waiter <- r.do("POST", "/db/1/lock/l?id=b&dur=1h&wait=1m") }()
	r.queued("/db/1/lock/l", 1)
	r.checkRefusal(r.batch("", "DELETE lock/l?id=a\nPOST lock/l?id=c"), 409, "line 2: lock", "a batch that wants it back")
	// The batch was undone as a whole, so the waiter keeps waiting.
	if h := r.holder("/db/1/lock/l"); h.ID == nil || *h.ID != "a" || h.Waiters != 1 {
		t.Errorf("the lock is %+v", h)
	}
	r.wantBatch("?atomic=false", "DELETE lock/l?id=a\nPOST lock/l?id=c&dur=1h", "204\n409 lock \"l\" is held; the holder is \"b\"\n")
	if a := <-waiter; a.status != 200 {
		t.Errorf("the waiter: %v", a)
	}
}

// The largest batch is one commit, on one thing and on many.
func TestALargeBatchIsOneCommit(t *testing.T) {
	r := newRig(t, nil)
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, "POST counter/%d\n", i)
	}
	for _, body := range []string{strings.Repeat("POST sequence/s\n", 10_000), many.String()} {
		before := r.db.Stats().Commits
		a := r.batch("", body)
		if a.status != 200 || strings.Count(a.body, "\n") != 10_000 {
			t.Fatalf("%d %.100s", a.status, a.body)
		}
		if n := r.db.Stats().Commits - before; n > 3 { // perhaps a durability mark, or an attempt that found no slot
			t.Errorf("%d commits", n)
		}
	}
	r.want(200, "10000\n", "GET", "/db/1/sequence/s")
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte("POST counter/a?add=1\nPUT kv/b value\n#\n\nGET kv/b\r\n"), false)
	f.Add([]byte(`[{"method":"PUT","path":"kv/a?ver=3","body":"text","type":"a/b"},{"method":"GET","path":"kv/a"}]`), true)
	f.Add([]byte(`[[[[[[[[[`), true)
	f.Add([]byte(`[{"method":1e999999}]`), true)
	f.Add([]byte(` [ { "path" : "kv\/\u0061\ud83d\ude00" ,"body64":"AP8=", "method":"P\u0055T"} , {"method":"POST","path":"counter/b?add=2","type":""}]`), true)
	f.Fuzz(func(t *testing.T, body []byte, asJSON bool) {
		s := New(Options{}).(*server)
		b := &batch{s: s, c: new(call)}
		b.c.key.Acc = "1"
		parse := b.parseText
		if asJSON {
			parse = b.parseJSON
		}
		if parse(body) != nil {
			return
		}
		if asJSON {
			sameAsJSON(t, b, body)
		}
		for i := range b.items {
			it := &b.items[i]
			if it.key.ID == "" || it.steps == nil || it.key.Acc != "1" {
				t.Errorf("%q has a call without a thing: %+v", body, it)
			}
			if take, ok := it.op.(*db.LockTake); ok && take.Wait != 0 {
				t.Errorf("%q has a call that waits", body)
			}
		}
	})
}

// sameAsJSON checks that the calls of a batch are those that encoding/json reads.
func sameAsJSON(t *testing.T, b *batch, body []byte) {
	var calls []struct {
		Method, Path, Type string
		Body               *string
		Body64             []byte
	}
	if err := json.Unmarshal(body, &calls); err != nil || len(calls) != len(b.items) {
		t.Fatalf("%q has %d calls; encoding/json reads %d, %v", body, len(b.items), len(calls), err)
	}
	for i, c := range calls {
		it := &b.items[i]
		path, _, _ := strings.Cut(c.Path, "?")
		id, err := url.PathUnescape(strings.TrimPrefix(path, it.api.String()+"/"))
		if it.method != c.Method || it.key.ID != id || err != nil {
			t.Errorf("%q: call %d is %s %s/%s, %v", body, i, it.method, it.api, it.key.ID, err)
		}
		set, ok := it.op.(*db.ValueSet)
		if !ok {
			continue
		}
		want := c.Body64
		if c.Body != nil {
			want = []byte(*c.Body)
		}
		if !bytes.Equal(set.Data, want) {
			t.Errorf("%q: call %d stores %q", body, i, set.Data)
		}
	}
}
