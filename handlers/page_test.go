package handlers

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestPageIsOpenSinceItHasNoData asks for the page like a browser that has no token and
// follows a link of another site.
func TestPageIsOpenSinceItHasNoData(t *testing.T) {
	for name, set := range map[string]func(*Options, *http.Server){"with tokens": guarded, "without": nil} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, set)
			for _, header := range []string{"X-Nothing: 1", "Accept: application/json", "Sec-Fetch-Site: cross-site", bear("wrong")} {
				a := r.want(200, string(page), "GET", "/", header)
				for name, want := range map[string]string{
					"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
					"X-Content-Type-Options": "nosniff",
				} {
					if got := a.header.Get(name); got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
			}
			r.want(200, "", "HEAD", "/")
			for range 5 {
				if o := r.observe(); o.api != Page || o.code != 200 {
					t.Errorf("it was observed as %+v", o)
				}
			}
		})
	}
}

func TestPageHasNoOtherMethodsAndParameters(t *testing.T) {
	r := newRig(t, nil)
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if a := r.refused(405, "use GET, HEAD", method, "/"); a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow is %q", method, a.header.Get("Allow"))
		}
		r.refused(403, "only pages of this server", method, "/", "Sec-Fetch-Site: cross-site")
	}
	r.refused(400, "unknown parameter", "GET", "/?next=evil")
	for _, path := range []string{"//", "/.", "/%2F", "/index.html", "/page", "/db/"} {
		r.refused(404, "no such route", "GET", path)
	}
}

// TestPagePolicyAllowsNothingButThePage checks the Content-Security-Policy against the page.
func TestPagePolicyAllowsNothingButThePage(t *testing.T) {
	r := newRig(t, nil)
	a := r.want(200, "*", "GET", "/")
	policy := map[string]string{}
	for _, d := range strings.Split(a.header.Get("Content-Security-Policy"), "; ") {
		name, value, _ := strings.Cut(d, " ")
		policy[name] = value
	}
	for name, want := range map[string]string{
		"default-src": "'none'", "connect-src": "'self'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'",
		"frame-ancestors": "'none'", "require-trusted-types-for": "'script'", "trusted-types": "'none'",
	} {
		if policy[name] != want {
			t.Errorf("%s is %q, want %q", name, policy[name], want)
		}
	}
	for name, tag := range map[string]string{"style-src": `(?s)<style>(.*?)</style>`, "script-src": `(?s)<script type="module">(.*?)</script>`} {
		found := regexp.MustCompile(tag).FindAllStringSubmatch(a.body, -1)
		if len(found) != 1 {
			t.Fatalf("%d matches of %s, want 1", len(found), tag)
		}
		sum := sha256.Sum256([]byte(found[0][1]))
		if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; policy[name] != want {
			t.Errorf("%s is %q, want %q", name, policy[name], want)
		}
	}
	// The page contains nothing that the policy would refuse.
	for _, bad := range []string{`\son[a-z]+="`, `\sstyle="`, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage`, `(src|href)="(http|//)`} {
		if at := regexp.MustCompile(bad).FindString(a.body); at != "" {
			t.Errorf("the page has %q", at)
		}
	}
}
