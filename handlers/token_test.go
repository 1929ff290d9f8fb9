package handlers

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

func guarded(o *Options, _ *http.Server) {
	o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	o.Tokens = NewTokens(
		Token{Token: "all"},
		Token{Token: "shop only", Accounts: []string{"shop", "a/b"}},
		Token{Token: "reader", ReadOnly: true},
		Token{Token: "shop reader", Accounts: []string{"shop"}, ReadOnly: true},
	)
}

func bear(token string) string { return "Authorization: Bearer " + token }

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestOnlyHealthAndThePageNeedNoToken(t *testing.T) {
	r := newRig(t, guarded)
	for _, auth := range []string{
		"X-Nothing: 1", bear("al"), bear("alll"), bear("ALL"), bear(""), "Authorization: Bearer", "Authorization: all",
		"Authorization: Digest all", basic("all", ""), basic("", "al"), "Authorization: Basic all", "Authorization: Basic %%%",
		bear("all, all"), bear("all all"), bear(strings.Repeat("x", 4000)),
	} {
		for _, call := range []struct{ method, target string }{
			{"GET", "/db/shop/sequence/a"}, {"POST", "/db/shop/sequence/a"}, {"PUT", "/db/shop/sequence/a"},
			{"GET", "/nothing"}, {"GET", "/metrics"}, {"GET", "*"}, {"GET", "/db/./sequence/a"}, {"POST", "/db/shop/sequence/a?x=1"},
		} {
			a := r.refused(401, "token", call.method, call.target, auth)
			if got := a.header["Www-Authenticate"]; len(got) != 2 || got[0] != "Bearer" || !strings.HasPrefix(got[1], `Basic realm="`) {
				t.Errorf("%s %s: WWW-Authenticate is %q", call.method, call.target, got)
			}
			if strings.Contains(a.body, "all") {
				t.Errorf("a token is repeated: %v", a)
			}
		}
		r.want(200, "ok\n", "GET", "/healthz", auth)
		r.want(200, string(page), "GET", "/", auth)
	}
	r.want(404, "*", "GET", "/db/shop/sequence/a", bear("all"))
}

// An empty token in the options lets nobody in.
func TestEmptyTokenLetsNobodyIn(t *testing.T) {
	r := newRig(t, func(o *Options, _ *http.Server) { o.Tokens = NewTokens(Token{Token: ""}) })
	for _, auth := range []string{"X-Nothing: 1", bear(""), basic("", "")} {
		r.refused(401, "a token is needed", "GET", "/db/1/sequence/a", auth)
	}
}

func TestTokenComesAsBearerOrAsPassword(t *testing.T) {
	r := newRig(t, guarded)
	for _, auth := range []string{
		bear("all"), "Authorization: bearer all", "authorization: BEARER   all", basic("", "all"), basic("whoever", "all"),
		strings.Replace(basic("", "all"), "Basic", "basic", 1),
	} {
		if a := r.do("POST", "/db/1/sequence/a", auth); a.status != 200 {
			t.Errorf("%s: %v", auth, a)
		}
		r.want(404, "*", "GET", "/nothing", auth)
		r.want(405, "*", "PUT", "/db/1/sequence/a", auth)
		r.want(200, "", "GET", "/metrics", auth)
	}
	r.want(200, "*", "POST", "/db/shop/sequence/a", bear("shop only"))
}

func TestTokenOfAnotherAccountIsForbidden(t *testing.T) {
	r := newRig(t, guarded)
	r.want(200, "1\n", "POST", "/db/shop/sequence/a", bear("shop only"))
	r.want(200, "1\n", "POST", "/db/a%2Fb/sequence/a", bear("shop only"))
	r.want(200, "2\n", "POST", "/db/sh%6Fp/sequence/a", bear("shop only"))
	for _, target := range []string{"/db/a/sequence/b", "/db/Shop/sequence/a", "/db/shop%20/sequence/a", "/db/billing/nothing/a", "/db/billing"} {
		for _, method := range []string{"GET", "POST", "DELETE", "PUT"} {
			r.refused(403, "account", method, target, bear("shop only"))
		}
	}
	r.want(200, "", "GET", "/metrics", bear("shop only"))
	r.want(404, "*", "GET", "/nothing", bear("shop only"))
	r.want(200, "1\n", "POST", "/db/billing/sequence/a", bear("all"))
}

func TestReadOnlyTokenDoesNotWrite(t *testing.T) {
	r := newRig(t, guarded)
	r.want(200, "1\n", "POST", "/db/shop/sequence/a", bear("all"))
	for _, token := range []string{"reader", "shop reader"} {
		r.want(200, "1\n", "GET", "/db/shop/sequence/a", bear(token))
		r.want(200, "", "HEAD", "/db/shop/sequence/a", bear(token))
		r.want(200, "", "GET", "/metrics", bear(token))
		for _, call := range []struct{ method, target string }{
			{"POST", "/db/shop/sequence/a"}, {"DELETE", "/db/shop/sequence/a"}, {"POST", "/db/shop/counter/a"}, {"PUT", "/db/shop/kv/a"},
			{"POST", "/db/shop/mlock/a"}, {"POST", "/db/shop/munlock/a"}, {"POST", "/db/shop/lock/a"}, {"DELETE", "/db/shop/lock/a"},
		} {
			r.refused(403, "reading only", call.method, call.target, bear(token))
		}
	}
	r.refused(403, "account", "GET", "/db/billing/sequence/a", bear("shop reader"))
	r.want(200, "1\n", "GET", "/db/shop/sequence/a", bear("reader"))
}

func TestErrorsNeverShowAToken(t *testing.T) {
	r := newRig(t, guarded)
	for _, a := range []reply{
		r.do("GET", "/db/1/sequence/a", bear("sesame")),
		r.do("GET", "/db/1/sequence/a", bear("shop only")),
		r.do("POST", "/db/shop/sequence/a", bear("shop reader")),
	} {
		for _, secret := range []string{"sesame", "shop only", "shop reader"} {
			if strings.Contains(a.String(), secret) {
				t.Errorf("%v holds the token %q", a, secret)
			}
		}
	}
	if log := r.log.String(); log != "" {
		t.Errorf("the log says %s", log)
	}
}

func TestReplacedTokensHoldForTheNextRequest(t *testing.T) {
	tokens := NewTokens(Token{Token: "old"})
	r := newRig(t, func(o *Options, _ *http.Server) { o.Tokens = tokens })
	r.want(200, "1\n", "POST", "/db/1/sequence/a", bear("old"))
	tokens.Set([]Token{{Token: "new"}})
	r.refused(401, "not known", "POST", "/db/1/sequence/a", bear("old"))
	r.want(200, "2\n", "POST", "/db/1/sequence/a", bear("new"))
}
