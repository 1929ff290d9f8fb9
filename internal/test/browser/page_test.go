package browser

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// text is what stands in a part of the page, as an expression.
func text(selector string) string {
	return fmt.Sprintf("document.querySelector(%q).innerText", selector)
}

// row is the row of a table that has a text, as an expression.
func row(table, has string) string {
	return fmt.Sprintf(`Array.from(document.querySelectorAll("%s tbody tr")).find(r => r.innerText.includes(%q))`, table, has)
}

func TestPageShowsALockItsWaiterAndItsEnd(t *testing.T) {
	s := startServer(t, "")
	p := open(t, newProfile(t), s.url("/"))
	p.wait(text("#health") + ` === "healthy"`)
	p.wait(text("#room") + `.includes("primary of epoch 1, no standby")`)
	p.wait(text("#locks-note") + ` === "Nothing is held."`)
	token := s.want("POST", "/db/shop/lock/nightly?id=host-1&dur=60", "")
	nightly := row("#locks", "nightly")
	p.wait(nightly)
	p.wait(fmt.Sprintf(`[...%s.cells].map(c => c.innerText).slice(0, 5).join() === "shop,nightly,lock,host-1,%s"`, nightly, token))
	p.wait(`/^[1-5]?\d\.\d s$/.test(` + nightly + `.cells[5].innerText)`)

	// What is left is counted down though no answer comes meanwhile.
	s.signal(syscall.SIGSTOP)
	p.eval(`new Promise(done => {
		const cell = `+nightly+`.cells[5], seen = new Set();
		const note = () => { if (seen.add(parseFloat(cell.innerText)).size > 5) done(); };
		new MutationObserver(note).observe(cell, {subtree: true, childList: true, characterData: true});
	})`, nil)
	s.signal(syscall.SIGCONT)

	done := make(chan string)
	go func() {
		_, body, _ := s.try("POST", "/db/shop/lock/nightly?id=host-2&dur=60&wait=60", "") // the token tells whether it was granted
		done <- strings.TrimSpace(body)
	}()
	p.wait(`/^host-2 for \d+\.\d s$/.test(` + nightly + `.cells[6].innerText)`)
	s.want("DELETE", "/db/shop/lock/nightly?id=host-1", "")
	second := <-done
	if second == "" || second == token {
		t.Fatalf("the waiter got %q", second)
	}
	p.wait(nightly + `?.cells[3].innerText === "host-2"`)
	s.want("POST", "/db/shop/lock/nightly?dur=0.5&token="+second, "")
	p.wait("!" + nightly) // its hold has ended by itself
}

func TestPageShowsMutexesOfSeveralHolders(t *testing.T) {
	s := startServer(t, "")
	p := open(t, newProfile(t), s.url("/"))
	for i := range 3 {
		s.want("POST", fmt.Sprintf("/db/a%%2Fb/mlock/render%%0A?id=worker-%d&dur=1h&limit=3", i), "")
	}
	render := row("#locks", "render␊")
	p.wait(render + `?.cells[3].innerText === "worker-0\nworker-1\nworker-2"`)
	p.wait(render + `.cells[0].innerText === "a/b" && ` + render + `.cells[2].innerText === "mutex"`)
}

func TestForceAsksFirst(t *testing.T) {
	s := startServer(t, "")
	p := open(t, newProfile(t), s.url("/"))
	s.want("POST", "/db/shop/lock/nightly?id=host-1&dur=1h", "")
	s.want("POST", "/db/shop/mlock/till?id=host-1&dur=1h", "")
	for _, l := range []struct{ name, path string }{{"nightly", "/db/shop/lock/nightly"}, {"till", "/db/shop/mlock/till"}} {
		p.wait(row("#locks", l.name))
		p.eval(row("#locks", l.name)+`.querySelector("button").focus()`, nil)
		p.key("Enter", "\r", 13)
		p.wait(`document.querySelector("#ask-force").open`)
		p.wait(text("#ask-force-title") + fmt.Sprintf(` === "Force %s of shop open?"`, l.name))
		p.wait(text("#ask-force-holder") + `.includes("host-1, with token")`)

		// Enter alone forces nothing: Cancel has the focus.
		p.wait(`document.activeElement.innerText === "Cancel"`)
		p.key("Enter", "\r", 13)
		p.wait(`!document.querySelector("#ask-force").open`)
		s.want("GET", l.path, "")

		p.eval(row("#locks", l.name)+`.querySelector("button").click()`, nil)
		p.wait(`document.querySelector("#ask-force").open`)
		s.want("GET", l.path, "")
		p.key("Tab", "", 9)
		p.wait(`document.activeElement.innerText === "Force open"`)
		p.key("Enter", "\r", 13)
		p.wait(text("#locks-note") + fmt.Sprintf(`.includes("%s was forced open.")`, l.name))
		p.wait("!" + row("#locks", l.name))
		if status, _ := s.ask("GET", l.path, ""); status != 404 {
			t.Errorf("GET %s answers %d, want 404", l.path, status)
		}
	}
}

// TestForceAsksAgainForAnotherHolder changes the holder while the page asks.
func TestForceAsksAgainForAnotherHolder(t *testing.T) {
	s := startServer(t, "")
	p := open(t, newProfile(t), s.url("/"))
	s.want("POST", "/db/shop/lock/nightly?id=host-1&dur=1h", "")
	p.wait(row("#locks", "nightly"))
	p.click("#locks button")
	s.want("DELETE", "/db/shop/lock/nightly?id=host-1", "")
	s.want("POST", "/db/shop/lock/nightly?id=host-2&dur=1h", "")
	p.click("#ask-force .danger")
	p.wait(text("#ask-force-note") + `.includes("another holder")`)
	p.wait(text("#ask-force-holder") + `.includes("host-2")`)
	s.want("GET", "/db/shop/lock/nightly", "")
	p.click("#ask-force .danger")
	p.wait(text("#locks-note") + `.includes("was forced open")`)
	if status, _ := s.ask("GET", "/db/shop/lock/nightly", ""); status != 404 {
		t.Errorf("it is still held: %d", status)
	}
}

func TestBrowsesByPrefixAndInPages(t *testing.T) {
	s := startServer(t, "")
	var lines []string
	for i := range 45 {
		lines = append(lines, fmt.Sprintf("POST counter/n%%20%02d?set=%d", i, i))
	}
	s.want("POST", "/db/zoo/batch", strings.Join(append(lines, "POST counter/other?set=9007199254740993", "POST sequence/ticket?n=7", "POST rate/mail?limit=1&per=60"), "\n"))
	s.want("POST", "/db/aviary/kv/gull", "x")
	p := open(t, newProfile(t), s.url("/#"+"acc=zoo&api=counter"))
	ids := `[...document.querySelectorAll("#list tbody tr")].map(r => r.cells[0].innerText)`
	shows := func(first, last string, n int) {
		t.Helper()
		p.wait(fmt.Sprintf(`(ids => ids.length === %d && ids[0] === %q && ids.at(-1) === %q)(%s)`, n, first, last, ids))
	}
	shows("n 00", "n 19", 20)
	p.click("#next")
	shows("n 20", "n 39", 20)
	p.click("#next")
	shows("n 40", "other", 6)
	p.wait(`document.querySelector("#next").disabled`)
	p.wait(row("#list", "other") + `.cells[1].innerText === "9007199254740993"`)
	p.click("#previous")
	shows("n 20", "n 39", 20)
	p.write("#prefix", "n 1")
	shows("n 10", "n 19", 10)
	p.wait(`document.querySelector("#next").disabled && document.querySelector("#previous").disabled`)

	// It shows what changes meanwhile.
	s.want("POST", "/db/zoo/counter/n%2015?set=77", "")
	p.wait(row("#list", "n 15") + `.cells[1].innerText === "77"`)

	p.write("#prefix", "")
	p.write("#api", "sequence")
	shows("ticket", "ticket", 1)
	p.write("#api", "rate")
	shows("mail", "mail", 1)
	p.write("#account", "aviary")
	p.write("#api", "kv")
	shows("gull", "gull", 1)
	var options string
	p.eval(`[...document.querySelectorAll("#accounts option")].map(o => o.value).join()`, &options)
	if options != "aviary,zoo" {
		t.Errorf("the accounts to choose from are %s", options)
	}
}

// TestLocksOfEveryAccountCanBeReached has more accounts than are shown at a time, and more
// than are offered at first.
func TestLocksOfEveryAccountCanBeReached(t *testing.T) {
	s := startServer(t, "")
	for i := range 150 {
		s.want("POST", fmt.Sprintf("/db/team-%03d/counter/visits", i), "")
	}
	for _, acc := range []string{"team-000", "team-020", "team-149"} {
		s.want("POST", "/db/"+acc+"/lock/nightly?id=host-of-"+acc+"&dur=1h", "")
	}
	s.want("POST", "/db/team-020/mlock/%ff?id=x&dur=1h", "")
	s.want("POST", "/db/zoo%ff/counter/visits", "")
	p := open(t, newProfile(t), s.url("/"))
	accounts := `[...document.querySelectorAll("#locks tbody tr")].map(r => r.cells[0].innerText).join()`
	pages := text("#locks-pages .note")
	p.wait(accounts + ` === "team-000" && ` + pages + ` === "Accounts team-000 to team-019. Held on this server: 4."`)
	p.click("#locks-next")
	p.wait(accounts + ` === "team-020,team-020" && ` + pages + `.startsWith("Accounts team-020 to team-039.")`)
	p.click("#locks-next")
	p.wait(text("#locks-note") + ` === "Nothing is held in these accounts."`)
	p.click("#locks-previous")
	p.click("#locks-previous")
	p.wait(accounts + ` === "team-000" && document.querySelector("#locks-previous").disabled`)

	p.write("#locks-account", "team-1")
	p.wait(text("#locks-note") + ` === "Nothing is held in these accounts."`)
	p.wait(pages + `.startsWith("Accounts team-1 to team-119.")`)
	p.write("#locks-account", "team-14")
	p.wait(accounts + ` === "team-149" && document.querySelector("#locks-pages").hidden`)
	p.write("#locks-account", "team-149")
	p.wait(accounts + ` === "team-149"`)
	p.write("#locks-account", "")
	p.wait(accounts + ` === "team-000"`)
	for range 7 {
		p.wait(`!document.querySelector("#locks-next").disabled`)
		before := ""
		p.eval(pages, &before)
		p.click("#locks-next")
		p.wait(pages + fmt.Sprintf(" !== %q", before))
	}
	p.wait(text("#locks-note") + ` === "1 account whose name is not UTF-8 is left out."`)
	p.wait(accounts + ` === "team-149" && document.querySelector("#locks-next").disabled`)

	// What is typed is completed by accounts that are not among the first.
	offered := `[...document.querySelectorAll("#accounts option")].some(o => o.value === "team-149")`
	p.wait("!" + offered)
	p.eval(`document.querySelector("#account").focus()`, nil)
	p.write("#account", "team-14")
	p.wait(offered)
}

// TestBrowseReachesEveryLockOfAnAccount has more of them than are shown as locks.
func TestBrowseReachesEveryLockOfAnAccount(t *testing.T) {
	s := startServer(t, "")
	var lines []string
	for i := range 201 {
		lines = append(lines, fmt.Sprintf("POST lock/n%03d?id=host-1&dur=1h", i))
	}
	s.want("POST", "/db/shop/batch", strings.Join(lines, "\n"))
	s.want("POST", "/db/shop/mlock/m?dur=1h&limit=2&id=one", "")
	s.want("POST", "/db/shop/mlock/m?dur=1h&limit=2&id=two", "")
	p := open(t, newProfile(t), s.url("/#acc=shop&api=lock"))
	p.wait(`document.querySelectorAll("#locks tbody tr").length === 200`)
	p.wait(text("#locks-note") + ` === "The first 200 of these accounts are shown. Browse shows all locks of an account, page by page."`)
	p.write("#prefix", "n2")
	p.wait(row("#list", "n200"))
	p.eval(row("#list", "n200")+`.querySelector("button.danger").click()`, nil)
	p.wait(text("#ask-force-title") + ` === "Force n200 of shop open?"`)
	s.want("GET", "/db/shop/lock/n200", "")
	p.click("#ask-force .danger")
	p.wait(text("#list-note") + ` === "Nothing begins with this prefix."`)
	if status, _ := s.ask("GET", "/db/shop/lock/n200", ""); status != 404 {
		t.Errorf("it is still held: %d", status)
	}
	p.write("#prefix", "")
	p.write("#api", "mlock")
	p.wait(row("#list", "one"))
	p.eval(row("#list", "one")+`.querySelector("button.danger").click()`, nil)
	p.wait(text("#ask-force-holder") + `.startsWith("2 holders have it, the oldest being one, ")`)
}

func TestValuesAreShownAsTextAndNeverRun(t *testing.T) {
	s := startServer(t, "")
	const script = `<img src=x onerror="alert(1)"><script>alert(2)</script><b>bold</b>`
	s.want("POST", "/db/shop/kv/script", script, "Content-Type", "text/html")
	s.want("POST", "/db/shop/kv/%3Cimg%20src=x%20onerror=alert(3)%3E", "id with markup")
	s.want("POST", "/db/shop/kv/binary", "\x89PNG\r\n\x1a\n\x00\x00", "Content-Type", "image/png")
	s.want("POST", "/db/shop/kv/large", strings.Repeat("ä", 50<<10), "Content-Type", "text/plain")
	s.want("POST", "/db/shop/kv/packed", "not gzip at all", "Content-Encoding", "gzip")
	s.want("POST", "/db/shop/kv/empty", "")
	s.want("POST", "/db/shop/kv/%ff?ttl=600", "its id is not UTF-8")
	s.want("POST", "/db/shop/lock/%3Cimg%20src=x%20onerror=alert(4)%3E?dur=1h&id=%3Cimg%20src=x%20onerror=alert(5)%3E", "")
	p := open(t, newProfile(t), s.url("/"))
	p.wait(`document.querySelectorAll("#list tbody tr").length === 7`)
	show := func(id string) {
		t.Helper()
		p.eval(row("#list", id)+`.querySelector("button").click()`, nil)
		p.wait(fmt.Sprintf(`%s.includes(%q) && %s.includes("version")`, text("#value-title"), id, text("#value-note")))
	}
	show("script")
	p.wait(fmt.Sprintf(`document.querySelector("#value-text").textContent === %q`, script))
	p.wait(text("#value-note") + fmt.Sprintf(`.startsWith("%d bytes, text/html, version")`, len(script)))
	show("onerror")
	p.wait(`document.querySelector("#value-text").textContent === "id with markup"`)
	show("binary")
	p.wait(text("#value-note") + `.startsWith("10 bytes, image/png") && document.querySelector("#value-text").hidden`)
	show("large")
	p.wait(text("#value-note") + `.endsWith("the first 64 KiB are shown") && document.querySelector("#value-text").textContent === "ä".repeat(32 << 10)`)
	show("packed")
	p.wait(text("#value-note") + `.includes("gzip") && document.querySelector("#value-text").hidden`)
	show("empty")
	p.wait(text("#value-note") + `.endsWith("empty")`)
	show("\ufffd")
	p.wait(`document.querySelector("#value-text").textContent === "its id is not UTF-8"`)
	p.key("Escape", "", 27)
	p.wait(`!document.querySelector("#value").open`)
	p.wait(row("#locks", "onerror=alert(4)"))
	p.wait(`document.querySelectorAll("img, b, main script").length === 0`)
}

func TestEventsAreShownAsTheyCome(t *testing.T) {
	s := startServer(t, "")
	s.want("POST", "/db/shop/counter/visits", "")
	p := open(t, newProfile(t), s.url("/"))
	p.wait(text("#events-note") + `.startsWith("of shop")`)
	for i := range 120 {
		s.want("POST", "/db/shop/counter/visits", "")
		if i == 118 {
			s.want("POST", "/db/shop/kv/%3Cb%3E", "x")
		}
	}
	s.want("DELETE", "/db/shop/kv/%3Cb%3E", "")
	lines := `[...document.querySelectorAll("#log li")].map(l => [...l.children].slice(1).map(e => e.innerText).join(" ").trim())`
	p.wait(fmt.Sprintf(`(l => l.length === 100 && l[0].startsWith("kv delete <b>") && l[1] === "counter set visits 121" && l[2].startsWith("kv set <b> version") && l[3] === "counter set visits 120")(%s)`, lines))
}

func TestChartsAndFiguresAreOfTheMetrics(t *testing.T) {
	s := startServer(t, "")
	p := open(t, newProfile(t), s.url("/"))
	p.wait(text("#about") + `.startsWith("version 1.2.3-test, up for ")`)
	p.wait(text("#room") + `.includes("free of")`)
	s.want("POST", "/db/shop/lock/nightly?dur=1h", "")
	ctx := t.Context()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if _, _, err := s.try("POST", "/db/shop/counter/visits", ""); err != nil {
				return // the test has ended
			}
		}
	}()
	figures := func(i int) string {
		return fmt.Sprintf(`document.querySelectorAll("#charts .figures")[%d].innerText`, i)
	}
	p.wait(`parseFloat(` + figures(0) + `.replace(",", "")) > 1`)
	p.wait(`/^p50 [\d.,]+ (µs|ms) p99 [\d.,]+ (µs|ms|s)$/.test(` + figures(1) + `)`)
	p.wait(text("#room") + `.includes("1 held by 1 holder\n")`)
	p.wait(`document.querySelector("#charts path").getAttribute("d").includes("L")`)
	p.wait(`/^Writes a second: \d/.test(document.querySelector("#charts svg").getAttribute("aria-label"))`)
}

// TestFocusStaysWhileTheTableChanges has a lock come and go above the one whose button has
// the focus.
func TestFocusStaysWhileTheTableChanges(t *testing.T) {
	s := startServer(t, "")
	s.want("POST", "/db/shop/lock/b?id=host-1&dur=1h", "")
	p := open(t, newProfile(t), s.url("/"))
	p.wait(row("#locks", "b"))
	p.eval(`document.querySelector("#locks button").focus()`, nil)
	p.key("Enter", "\r", 13)
	p.wait(`document.querySelector("#ask-force").open`)
	p.key("Escape", "", 27)
	focused := `document.activeElement.closest("tr")?.cells[1].innerText === "b"`
	p.wait(focused) // the dialog gives it back
	s.want("POST", "/db/shop/lock/a?id=host-1&dur=1h", "")
	p.wait(`document.querySelectorAll("#locks tbody tr").length === 2`)
	p.wait(focused)
	s.want("DELETE", "/db/shop/lock/a?id=host-1", "")
	p.wait(`document.querySelectorAll("#locks tbody tr").length === 1`)
	p.wait(focused)
}
