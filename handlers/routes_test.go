package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestNamesAreOneDecodedSegmentEach(t *testing.T) {
	r := newRig(t, nil)
	long := strings.Repeat("x", 255)
	// Each pair names a different thing, so the first POST of each answers 1.
	for _, target := range []string{
		"/db/1/sequence/a",
		"/db/2/sequence/a",
		"/db/1/sequence/A",
		"/db/1/sequence/a%2Fb",
		"/db/1/sequence/a%20b",
		"/db/1/sequence/a+b",
		"/db/1/sequence/a%252Fb",
		"/db/1/sequence/" + long,
		"/db/1/sequence/" + strings.Repeat("%FF", 255),
		"/db/" + strings.Repeat("y", 64) + "/sequence/a",
		"/db/a%2Fb/sequence/a",
		"/db/1/sequence/...",
		"/db/1/sequence/é%2Fb", // as bytes, next to an escaped slash
		"/db/1/sequence/%C3%A9",
		"/db/1/sequence/%0A%0D%01",
		"/db/1/sequence/a;b=c,d",
		"/db/1/sequence/\"<>",
		"/db/1/sequence/sequence",
		"/db/db/sequence/db",
	} {
		r.want(200, "1\n", "POST", target)
	}
	// The same names, written in other ways.
	for _, same := range [][2]string{
		{"/db/1/sequence/a%2Fb", "/db/1/sequence/%61%2f%62"},
		{"/db/1/sequence/é%2Fb", "/db/1/sequence/%C3%A9%2Fb"},
		{"/db/1/sequence/%C3%A9", "/db/1/sequence/é"},
		{"/db/a%2Fb/sequence/a", "/db/%61%2Fb/sequence/%61"},
		{"/db/1/sequence/\"<>", "/db/1/sequence/%22%3C%3E"},
	} {
		r.want(200, "2\n", "POST", same[1])
		r.want(200, "2\n", "GET", same[0])
	}
}

func TestSameIDOfAnotherAPIIsAnotherThing(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "1\n", "POST", "/db/1/sequence/a")
	r.want(200, "7\n", "POST", "/db/1/counter/a?add=7")
	r.want(200, "1\n", "GET", "/db/1/sequence/a")
	r.want(204, "", "DELETE", "/db/1/sequence/a")
	r.want(200, "7\n", "GET", "/db/1/counter/a")
	r.refused(404, `lock "a" of account "1" is not locked`, "GET", "/db/1/lock/a")
	r.refused(404, `"a"`, "GET", "/db/1/kv/a")
}

func TestBadNamesAreRefused(t *testing.T) {
	r := newRig(t, nil)
	for _, bad := range []struct{ target, part string }{
		{"/db/1/sequence/.", "id"},
		{"/db/1/sequence/..", "id"},
		{"/db/1/sequence/%2E", "id"},
		{"/db/1/sequence/%2e%2E", "id"},
		{"/db/1/sequence/.%2e", "id"},
		{"/db/./sequence/a", "account"},
		{"/db/../sequence/a", "account"},
		{"/db/%2E%2E/sequence/a", "account"},
		{"/db/1/sequence/a%00b", "id"},
		{"/db/%00/sequence/a", "account"},
		{"/db/1/sequence/" + strings.Repeat("x", 256), "id in the path has 256 bytes"},
		{"/db/1/sequence/" + strings.Repeat("%2F", 256), "id in the path has 256 bytes"},
		{"/db/" + strings.Repeat("y", 65) + "/sequence/a", "account in the path has 65 bytes"},
	} {
		for _, method := range []string{"POST", "GET", "DELETE"} {
			r.refused(400, bad.part, method, bad.target)
		}
	}
	if a := r.do("POST", "/db/1/sequence/%zz"); a.status != 400 {
		t.Errorf("a bad escape: got %v", a)
	}
	if a := r.do("POST", "/db/1/sequence/a%2"); a.status != 400 {
		t.Errorf("a cut escape: got %v", a)
	}
}

func TestWhatIsNotExactlyARouteIs404(t *testing.T) {
	r := newRig(t, nil)
	for _, target := range []string{
		"//", "/db/", "/db/1", "/db/1/", "/db/1/munlock", "/db/1/sequence/",
		"/db//sequence/a", "//db/1/sequence/a", "/db/1//sequence/a", "/db/1/sequence//a",
		"/db/1/sequence/a/", "/db/1/sequence/a/b", "/db/1/sequence/a//",
		"/db/1/Sequence/a", "/db/1/seq%75ence/a", "/DB/1/sequence/a", "/%64b/1/sequence/a",
		"/db/1/nothing/a", "/db/1/../sequence/a", "/x/../db/1/sequence/a",
		"/healthz/", "/healthz/x", "/%68ealthz", "/metrics/", "/metrics", "/db/1/healthz/a",
		"/db%2F1%2Fsequence%2Fa", "*", "http:", "http://localhost", "http:opaque",
	} {
		for _, method := range []string{"GET", "POST"} {
			a := r.refused(404, "no such route", method, target)
			if a.header.Get("Location") != "" {
				t.Errorf("%s %s is redirected: %v", method, target, a)
			}
		}
	}
	r.refused(404, "no such route", "CONNECT", "localhost:80")
	r.refused(404, "the id is empty", "POST", "/db/1/sequence/")
	r.refused(404, "the account is empty", "POST", "/db//lock/a")
	r.checkRefusal(r.raw("PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505, "HTTP/2 is not supported", "the preface of HTTP/2")
}

func TestAbsoluteFormIsServed(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "1\n", "POST", "http://localhost/db/1/sequence/a%2Fb")
	r.want(200, "1\n", "GET", "/db/1/sequence/a%2Fb")
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	one := request("POST", "/db/1/sequence/a", "")
	if _, err := io.WriteString(c, strings.Repeat(one, 5)); err != nil {
		t.Fatal(err)
	}
	b := bufio.NewReader(c)
	for i := 1; i <= 5; i++ {
		if a := r.read(b, "POST"); a.body != fmt.Sprintf("%d\n", i) {
			t.Fatalf("answer %d is %v", i, a)
		}
	}
}

func TestWrongMethodNamesTheRightOnes(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Metrics = http.NotFoundHandler() })
	for _, route := range []struct{ target, allow, wrong string }{
		{"/db/1/sequence/a", "GET, HEAD, POST, DELETE", "PUT PATCH OPTIONS TRACE get POSTS"},
		{"/db/1/counter/a", "GET, HEAD, POST, DELETE", "PUT PATCH OPTIONS"},
		{"/db/1/kv/a", "GET, HEAD, POST, PUT, PATCH, DELETE", "OPTIONS TRACE"},
		{"/db/1/mlock/a", "GET, HEAD, POST", "PUT DELETE"},
		{"/db/1/munlock/a", "POST", "GET PUT DELETE"},
		{"/db/1/lock/a", "GET, HEAD, POST, DELETE", "PUT PATCH"},
		{"/healthz", "GET, HEAD, OPTIONS", "POST PUT DELETE"},
		{"/metrics", "GET, HEAD", "POST PUT DELETE"},
	} {
		for _, method := range strings.Fields(route.wrong) {
			a := r.refused(405, "use "+route.allow, method, route.target)
			if got := a.header.Get("Allow"); got != route.allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, route.target, got, route.allow)
			}
		}
	}
	if a := r.do("HEAD", "/db/1/munlock/a"); a.status != 405 || a.header.Get("Allow") != "POST" {
		t.Errorf("HEAD of an unlock: %v", a)
	}
}

func TestHeadIsGetWithoutTheBody(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) {
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if _, err := io.WriteString(w, "up 1\n"); err != nil {
				t.Error(err)
			}
		})
	})
	r.want(200, "1\n", "POST", "/db/1/sequence/a")
	r.want(200, "1\n", "POST", "/db/1/counter/a")
	r.want(200, "*", "POST", "/db/1/lock/a")
	for _, target := range []string{"/db/1/sequence/a", "/db/1/sequence/b", "/db/1/counter/a", "/db/1/counter/b", "/db/1/lock/a", "/db/1/lock/b", "/healthz", "/metrics", "/nothing"} {
		get, head := r.do("GET", target), r.do("HEAD", target)
		if get.status != head.status || get.header.Get("Content-Type") != head.header.Get("Content-Type") || head.body != "" {
			t.Errorf("%s: HEAD is %v, GET %v", target, head, get)
		}
	}
}

// Load balancers send health checks of all kinds.
func TestHealthTakesWhateverBalancersSend(t *testing.T) {
	r := newRig(t, nil)
	for _, target := range []string{"/healthz?", "/healthz?x", "/healthz?x=1&x=1&%zz", "/healthz?now=12;3"} {
		for _, method := range []string{"GET", "OPTIONS"} {
			r.want(200, "ok\n", method, target)
		}
		r.want(200, "", "HEAD", target)
	}
	if a := r.do("OPTIONS", "/healthz"); a.header.Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("OPTIONS: %v", a)
	}
}

// TestHealthTellsTheRole asks like a load balancer that sends writes to the primary.
func TestHealthTellsTheRole(t *testing.T) {
	role := Primary
	alone, pair := newRig(t, nil), newRig(t, func(o *Options, _ *http.Server) { o.Role = func() Role { return role } })
	for _, c := range []struct {
		r                *rig
		role             Role
		primary, standby int
	}{
		{alone, Primary, 200, 503}, {pair, Primary, 200, 503}, {pair, Standby, 503, 200}, {pair, Neither, 503, 503},
	} {
		role = c.role
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			for target, want := range map[string]int{"/healthz": 200, "/healthz?role=primary": c.primary, "/healthz?a;b&role=standby": c.standby} {
				if a := c.r.do(method, target); a.status != want {
					t.Errorf("role %d: %s %s: %v, want %d", c.role, method, target, a, want)
				}
			}
		}
	}
	pair.refused(503, "not the primary", "GET", "/healthz?role=primary")
	for _, query := range []string{"role=leader", "role=", "role=primary&role=primary", "role=%zz", "role=Primary"} {
		alone.refused(400, "role", "GET", "/healthz?"+query)
	}
	alone.checkRefusal(alone.send("GET", "/healthz", "role=x", "Content-Type: "+form), 400, "role must be", "a role in a body")
}

func TestRefusedCallsChangeNothing(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "1\n", "POST", "/db/1/sequence/a")
	r.want(200, "1\n", "POST", "/db/1/counter/a")
	for _, query := range []string{
		"n=0", "n=-1", "n=1000001", "n=+5", "n=%2B5", "n=%205", "n=5%20", "n=5.0", "n=0x5", "n=5e0", "n=1_0", "n=", "n",
		"n=1&n=1", "n=1&n=", "n=%zz", "n=9223372036854775808", "n=٥", "n=5&add=1", "m=5", "N=5", "=5", "%zz=5", "n=5;n=5", "n=-",
	} {
		r.refused(400, "", "POST", "/db/1/sequence/a?"+query)
	}
	for _, query := range []string{
		"add=+5", "add=", "add=5.0", "add=0x5", "add=5&add=5", "add=9223372036854775808", "add=-9223372036854775809",
		"min=", "min=x", "max=1.5", "n=1", "ad=5", "add=--5",
	} {
		r.refused(400, "", "POST", "/db/1/counter/a?"+query)
	}
	for _, call := range []struct{ method, target string }{
		{"DELETE", "/db/1/sequence/a?n=1"},
		{"GET", "/db/1/sequence/a?n=1"},
		{"DELETE", "/db/1/counter/a?add=1"},
		{"GET", "/db/1/counter/a?x"},
		{"HEAD", "/db/1/counter/a?x"},
		{"GET", "/db/1/lock/a?id=x"},
	} {
		if a := r.do(call.method, call.target); a.status != 400 {
			t.Errorf("%v: got %v", call, a)
		}
	}
	r.want(200, "1\n", "GET", "/db/1/sequence/a")
	r.want(200, "1\n", "GET", "/db/1/counter/a")
}

func TestRefusalsNameTheParameter(t *testing.T) {
	r := newRig(t, nil)
	for _, call := range []struct{ method, target, part string }{
		{"POST", "/db/1/sequence/a?n=0", "n must be a whole number from 1 to 1000000"},
		{"POST", "/db/1/sequence/a?n=", "n is empty"},
		{"POST", "/db/1/sequence/a?n=1&n=2", "n is given twice"},
		{"POST", "/db/1/sequence/a?nn=1", `unknown parameter "nn"`},
		{"POST", "/db/1/sequence/a?%0a=1", `unknown parameter "\n"`},
		{"GET", "/db/1/sequence/a?n=1", `unknown parameter "n"`},
		{"POST", "/db/1/counter/a?min=x", "min must"},
		{"POST", "/db/1/counter/a?max=x", "max must"},
		{"POST", "/db/1/counter/a?min=5&max=3", "min=5 is over max=3"},
		{"POST", "/db/1/counter/a?add=x", "add must"},
		{"POST", "/db/1/counter/a?add=%zz", "add has a bad percent escape"},
		{"POST", "/db/1/lock/a?dru=5", `unknown parameter "dru"`},
		{"POST", "/db/1/lock/a?dur=25h", "dur must be a duration such as 0.5, 500ms, 30s, 15m or 24h, more than 0 and at most 24h, not"},
		{"POST", "/db/1/lock/a?wait=601", "wait must be a duration such as 0.5, 500ms, 30s, 15m or 24h, at least 0 and at most 10m, not"},
		{"POST", "/db/1/lock/a?token=0", "token must"},
		{"POST", "/db/1/lock/a?token=-1", "token must"},
		{"POST", "/db/1/lock/a?id=" + strings.Repeat("x", 129), "id has 129 bytes"},
		{"DELETE", "/db/1/lock/a?force=yes", "force must be true or false"},
		{"POST", "/db/1/mlock/a?force=true", `unknown parameter "force"`},
		{"POST", "/db/1/mlock/a?limit=0", "limit must be a whole number from 1 to 1000000, not"},
		{"POST", "/db/1/mlock/a?limit=1000001", "limit must be a whole number from 1 to 1000000, not"},
		{"POST", "/db/1/mlock/a?limit=2&shared=true", "limit and shared=true exclude each other"},
		{"POST", "/db/1/mlock/a?shared=yes", "shared must be true or false"},
		{"POST", "/db/1/mlock/a?least=25h", "least must be a duration such as 0.5, 500ms, 30s, 15m or 24h, at least 0 and at most 24h, not"},
		{"GET", "/db/1/mlock/a?token=0", "token must"},
		{"GET", "/db/1/mlock/a?id=b", `unknown parameter "id"`},
		{"POST", "/db/1/munlock/a?force=yes", "force must be true or false"},
		{"POST", "/db/1/munlock/a?token=x", "token must"},
		{"POST", "/db/1/kv/a?ver=-1", "ver must"},
		{"POST", "/db/1/kv/a?ttl=0", "ttl must"},
		{"PUT", "/db/1/kv/a?ttl=0.0", "ttl must"},
		{"POST", "/db/1/kv/a?ttl=876001h", "ttl must"},
		{"DELETE", "/db/1/kv/a?ver=0", "ver must be a whole number from 1"},
		{"DELETE", "/db/1/kv/a?ttl=1", `unknown parameter "ttl"`},
	} {
		r.refused(400, call.part, call.method, call.target)
	}
	// The part of the request that an error line repeats is printable and short.
	a := r.refused(400, "…", "POST", "/db/1/sequence/a?"+strings.Repeat("%1b%0a", 1000)+"=1")
	if len(a.body) > 500 {
		t.Errorf("%d bytes of error line", len(a.body))
	}
}

func TestBoundsOfTheLimitsAreAllowed(t *testing.T) {
	r := newRig(t, nil)
	r.want(200, "1000000\n", "POST", "/db/1/sequence/a?n=1000000")
	r.want(200, "1000007\n", "POST", "/db/1/sequence/a?n=007")
	r.want(200, "9223372036854775807\n", "POST", "/db/1/counter/a?add=9223372036854775807")
	r.want(200, "-1\n", "POST", "/db/1/counter/a?add=-9223372036854775808")
	r.want(200, "-1\n", "POST", "/db/1/counter/a?add=0")
	r.want(200, "0\n", "POST", "/db/1/counter/a?")
	r.want(200, "2\n", "POST", "/db/1/counter/a?&%61dd=2&")
	r.want(200, "*", "POST", "/db/1/lock/a?dur=24h&wait=10m&id="+strings.Repeat("x", 128))
}

func TestSequence(t *testing.T) {
	r := newRig(t, nil)
	r.refused(404, `sequence "a" of account "shop"`, "GET", "/db/shop/sequence/a")
	r.want(200, "1\n", "POST", "/db/shop/sequence/a")
	r.want(200, "101\n", "POST", "/db/shop/sequence/a?n=100")
	r.want(200, "101\n", "GET", "/db/shop/sequence/a")
	r.want(204, "", "DELETE", "/db/shop/sequence/a")
	r.want(204, "", "DELETE", "/db/shop/sequence/a")
	r.refused(404, `sequence "a"`, "GET", "/db/shop/sequence/a")
	r.want(200, "1\n", "POST", "/db/shop/sequence/a")
}

func TestCounter(t *testing.T) {
	r := newRig(t, nil)
	r.refused(404, `counter "a" of account "shop"`, "GET", "/db/shop/counter/a")
	r.want(200, "1\n", "POST", "/db/shop/counter/a")
	r.want(200, "6\n", "POST", "/db/shop/counter/a?add=5")
	r.want(200, "0\n", "POST", "/db/shop/counter/a?add=-6&min=0")
	a := r.refused(409, "min=0", "POST", "/db/shop/counter/a?add=-1&min=0")
	if a.header.Get("Retry-After") != "" {
		t.Errorf("a bound asks to be tried again: %v", a)
	}
	r.refused(409, "max=100", "POST", "/db/shop/counter/a?add=101&max=100")
	r.want(200, "100\n", "POST", "/db/shop/counter/a?add=100&min=-5&max=100")
	r.refused(409, "overflow", "POST", "/db/shop/counter/a?add=9223372036854775807")
	r.want(200, "100\n", "GET", "/db/shop/counter/a")
	r.want(204, "", "DELETE", "/db/shop/counter/a")
	r.refused(404, "counter", "GET", "/db/shop/counter/a")
}
