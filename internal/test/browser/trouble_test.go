package browser

import (
	"strings"
	"testing"
)

func TestPageAsksForTheTokenOnce(t *testing.T) {
	s := startServer(t, "token: s3cret-ü\n")
	s.token = "s3cret-ü"
	s.want("POST", "/db/shop/lock/nightly?id=host-1&dur=1h", "")
	profile := newProfile(t)
	p := open(t, profile, s.url("/"))
	asks := `document.querySelector("#ask-token").open`
	p.wait(asks)
	p.wait(text("#health") + ` === "healthy"`)
	enter := func(p *tab, token string) {
		p.write("#token-text", token)
		p.click("#ask-token .main")
	}
	enter(p, "wrong")
	p.wait(asks + ` && ` + text("#ask-token-note") + ` === "the token is not known here"`)
	p.key("Escape", "", 27)
	p.wait("!" + asks + ` && ` + text("#trouble") + `.includes("asks for a token")`)
	p.click("#token")
	p.wait(asks)
	enter(p, s.token)
	p.wait("!" + asks + " && " + row("#locks", "nightly"))
	p.wait(`document.querySelector("#trouble").hidden`)
	p.wait(text("#events-note") + `.startsWith("of shop")`)
	s.want("POST", "/db/shop/counter/visits", "")
	p.wait(text("#log") + `.includes("visits")`)

	// The tab keeps it over a reload, and nobody else has it.
	p.loads(func() { p.do("Page.reload", nil, nil) })
	p.wait("!" + asks + " && " + row("#locks", "nightly"))
	p.wait(`localStorage.length === 0 && document.cookie === "" && !location.href.includes("s3cret") && !document.documentElement.outerHTML.includes("s3cret")`)
	open(t, profile, s.url("/")).wait(asks)

	p.loads(func() { p.click("#token") })
	p.wait(asks + ` && sessionStorage.length === 0`)
}

func TestTokensWithLimitsAreToldWhy(t *testing.T) {
	s := startServer(t, "tokens: [{token: all}, {token: shop, accounts: [shop]}, {token: read, readonly: true}]\n")
	s.token = "all"
	s.want("POST", "/db/shop/lock/nightly?id=host-1&dur=1h", "")
	s.want("POST", "/db/billing/lock/report?id=host-1&dur=1h", "")
	enter := func(token, hash string) *tab {
		p := open(t, newProfile(t), s.url("/"+hash))
		p.wait(`document.querySelector("#ask-token").open`)
		p.write("#token-text", token)
		p.click("#ask-token .main")
		return p
	}
	p := enter("shop", "")
	p.wait(text("#locks-note") + `.includes("not for all accounts")`)
	p.write("#account", "shop")
	p.wait(row("#locks", "nightly"))
	p.wait(text("#events-note") + `.startsWith("of shop")`)
	p.write("#account", "billing")
	p.wait(text("#list-note") + ` === "this token is not for account \"billing\""`)
	p.wait(text("#locks-note") + ` === "this token is not for account \"billing\""`)

	p = enter("read", "")
	p.wait(row("#locks", "nightly"))
	p.eval(row("#locks", "nightly")+`.querySelector("button").click()`, nil)
	p.click("#ask-force .danger")
	p.wait(text("#ask-force-note") + ` === "this token is for reading only"`)
	s.want("GET", "/db/shop/lock/nightly", "")
}

func TestPageSaysThatTheServerIsGoneAndRecovers(t *testing.T) {
	s := startServer(t, "")
	s.want("POST", "/db/shop/lock/nightly?id=host-1&dur=1h", "")
	p := open(t, newProfile(t), s.url("/"))
	p.wait(row("#locks", "nightly"))
	p.wait(text("#events-note") + `.startsWith("of shop")`)
	s.stop()
	p.wait(text("#trouble") + `.startsWith("The server has not answered since ")`)
	p.wait(text("#health") + ` === "not reachable" && document.title === "✕ Cloud Dragon"`)
	p.wait(text("#log") + `.includes("The server shuts down.")`)
	s.start()
	p.wait(`document.querySelector("#trouble").hidden && document.title === "Cloud Dragon"`)
	p.wait(text("#health") + ` === "healthy"`)
	p.wait(row("#locks", "nightly"))
	p.wait(text("#events-note") + `.startsWith("of shop")`)
	s.want("POST", "/db/shop/counter/visits", "")
	p.wait(text("#log") + `.includes("visits")`)
}

func TestPageFitsAPhone(t *testing.T) {
	s := startServer(t, "")
	s.want("POST", "/db/shop/lock/a-rather-long-name-of-a-lock-that-does-not-break-anywhere-by-itself?id=host-1.of.a.long.domain.example.org&dur=1h", "")
	s.want("POST", "/db/shop/kv/a-rather-long-name-of-a-value-that-does-not-break-anywhere-by-itself", "x")
	p := open(t, newProfile(t), s.url("/"))
	p.do("Emulation.setDeviceMetricsOverride", object{"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": true}, nil)
	p.wait(row("#locks", "host-1"))
	p.wait(row("#list", "rather"))
	p.wait(`document.documentElement.scrollWidth <= 360`)
	p.wait(`[...document.querySelectorAll("button, input, select")].every(e => e.offsetParent === null || e.getBoundingClientRect().right <= 360)`)
	// Each field has a name for who does not see it.
	p.wait(`[...document.querySelectorAll("input, select")].every(e => e.labels.length === 1)`)
	p.wait(`[...document.querySelectorAll("button")].every(e => e.innerText !== "" || e.hidden || !e.checkVisibility())`)
}

// TestLongNamesLeaveShortColumnsWhole has names that take all the width there is.
func TestLongNamesLeaveShortColumnsWhole(t *testing.T) {
	s := startServer(t, "")
	s.want("POST", "/db/shop/lock/"+strings.Repeat("long-", 50)+"?dur=1h&id="+strings.Repeat("owner", 25), "")
	p := open(t, newProfile(t), s.url("/"))
	p.do("Emulation.setDeviceMetricsOverride", object{"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": false}, nil)
	p.wait(row("#locks", "ownerowner"))
	p.wait(`innerWidth === 1280 && document.documentElement.scrollWidth <= 1280`)
	p.wait(`["Kind", "Token"].every(l => document.querySelector("#locks td[data-label=" + l + "] div").getBoundingClientRect().height < 30)`)
}

// TestNamesCannotReorderThePage has names with characters that are not seen, or that turn
// the text behind them around.
func TestNamesCannotReorderThePage(t *testing.T) {
	s := startServer(t, "")
	s.want("POST", "/db/shop/lock/a%E2%80%AEb%E2%80%8Bc%C2%85d?dur=1h&id=o%EF%BB%BFp", "")
	s.want("POST", "/db/shop/kv/a%E2%81%A6b", "x")
	p := open(t, newProfile(t), s.url("/"))
	p.wait(row("#locks", "a[U+202E]b[U+200B]c[U+0085]d"))
	p.wait(row("#locks", "o[U+FEFF]p"))
	p.wait(row("#list", "a[U+2066]b"))
}
