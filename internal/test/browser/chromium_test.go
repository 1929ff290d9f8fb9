package browser

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// chromium is a running browser. It speaks the DevTools protocol over two pipes: JSON,
// each message followed by a NUL.
type chromium struct {
	cmd  *exec.Cmd
	in   *os.File
	said strings.Builder // on stderr; read it once the process has ended

	mu      sync.Mutex
	last    int                        // id of a command
	answers map[int]chan message       // by the command's id
	tabs    map[string]func(e message) // who hears the events of a session
	gone    error
}

// message is what the browser says: an answer, or an event, which has no id.
type message struct {
	ID      int
	Session string `json:"sessionId"`
	Method  string
	Params  json.RawMessage
	Result  json.RawMessage
	Error   *struct{ Message string }
}

// startChromium starts the browser with a profile in dir.
func startChromium(path, dir string) (*chromium, error) {
	commands, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, answers, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, commands.Close(), in.Close())
	}
	b := &chromium{in: in, answers: map[int]chan message{}, tabs: map[string]func(message){}}
	b.cmd = exec.Command(path, "--headless", "--remote-debugging-pipe", "--user-data-dir="+dir, "--no-sandbox", "--disable-gpu",
		"--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-sync",
		"--disable-component-update", "--no-proxy-server", "--hide-scrollbars", "about:blank")
	b.cmd.ExtraFiles = []*os.File{commands, answers} // 3 and 4
	b.cmd.Stderr = &b.said
	b.cmd.WaitDelay = patience // for a process of the browser that lives on with our stderr
	b.cmd.Env = append(os.Environ(), "HOME="+dir, "LANG=C.UTF-8", "TZ=UTC")
	err = b.cmd.Start()
	if err := errors.Join(err, commands.Close(), answers.Close()); err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	go b.listen(out)
	return b, nil
}

// stop ends the browser. Only the tests say whether the page is right: an error here is that of a
// browser which ended before, or did not end well.
func (b *chromium) stop() error {
	_, err := b.send("", "Browser.close", nil)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // it may end before it answers
	}
	if err != nil {
		_ = b.cmd.Process.Kill() // it may have ended just now
	}
	end := time.AfterFunc(patience, func() { _ = b.cmd.Process.Kill() }) // as above
	defer end.Stop()
	return errors.Join(err, b.cmd.Wait(), b.in.Close())
}

// listen passes on what the browser says, until it ends.
func (b *chromium) listen(from *os.File) {
	r := bufio.NewReaderSize(from, 1<<20)
	for {
		text, err := r.ReadBytes(0)
		var m message
		if err == nil {
			err = json.Unmarshal(text[:len(text)-1], &m)
		}
		if err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.gone = fmt.Errorf("the browser has ended: %w", err)
			for _, c := range b.answers {
				close(c)
			}
			b.answers = nil
			if err := from.Close(); err != nil {
				b.gone = errors.Join(b.gone, err)
			}
			return
		}
		b.mu.Lock()
		if hears := b.tabs[m.Session]; m.ID == 0 && hears != nil {
			hears(m)
		}
		if c := b.answers[m.ID]; c != nil {
			delete(b.answers, m.ID)
			c <- m
		}
		b.mu.Unlock()
	}
}

// send sends a command to the browser, or to the tab of a session, and waits for the answer.
func (b *chromium) send(session, method string, params any) (json.RawMessage, error) {
	c := make(chan message, 1)
	b.mu.Lock()
	if b.gone != nil {
		b.mu.Unlock()
		return nil, b.gone
	}
	b.last++
	m := object{"id": b.last, "method": method}
	if session != "" {
		m["sessionId"] = session
	}
	if params != nil {
		m["params"] = params
	}
	text, err := json.Marshal(m)
	if err == nil {
		b.answers[b.last] = c
		_, err = b.in.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case a, ok := <-c:
		switch {
		case !ok:
			return nil, io.ErrUnexpectedEOF
		case a.Error != nil:
			return nil, fmt.Errorf("%s: %s", method, a.Error.Message)
		}
		return a.Result, nil
	case <-time.After(patience + 10*time.Second):
		return nil, fmt.Errorf("%s: the browser does not answer", method)
	}
}

// tab is a tab of the browser.
type tab struct {
	t       *testing.T
	b       *chromium
	target  string
	session string
	loaded  chan struct{} // a page is loaded

	mu     sync.Mutex
	faults []string // what the page did wrong
}

type object = map[string]any

// newProfile returns a fresh profile: nothing is stored in it.
func newProfile(t *testing.T) string {
	t.Helper()
	var made struct {
		ID string `json:"browserContextId"`
	}
	command(t, "", "Target.createBrowserContext", nil, &made)
	t.Cleanup(func() { command(t, "", "Target.disposeBrowserContext", object{"browserContextId": made.ID}, nil) })
	return made.ID
}

// command sends a command and wants it to be done.
func command(t *testing.T, session, method string, params, result any) {
	t.Helper()
	answer, err := shared.send(session, method, params)
	if err == nil && result != nil {
		err = json.Unmarshal(answer, result)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// open opens the page in a new tab of a profile. Whatever the page does wrong fails the
// test at its end.
func open(t *testing.T, profile, url string) *tab {
	t.Helper()
	p := &tab{t: t, b: shared, loaded: make(chan struct{}, 10)}
	var made struct {
		ID string `json:"targetId"`
	}
	command(t, "", "Target.createTarget", object{"url": "about:blank", "browserContextId": profile, "newWindow": true}, &made)
	p.target = made.ID
	var attached struct {
		ID string `json:"sessionId"`
	}
	command(t, "", "Target.attachToTarget", object{"targetId": p.target, "flatten": true}, &attached)
	p.session = attached.ID
	p.b.mu.Lock()
	p.b.tabs[p.session] = p.hear
	p.b.mu.Unlock()
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, f := range p.faults {
			t.Errorf("the page did wrong: %s", f)
		}
	})
	p.wait(`document.readyState === "complete"`) // the empty page
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.do(domain+".enable", nil, nil)
	}
	p.loads(func() { p.do("Page.navigate", object{"url": url}, nil) })
	return p
}

// loads calls f, which loads a page, and waits until the page is there.
func (p *tab) loads(f func()) {
	p.t.Helper()
	f()
	select {
	case <-p.loaded:
	case <-time.After(patience):
		p.t.Fatal("the page does not load")
	}
}

// hear notes what the page does wrong. It is called with the browser's lock held.
func (p *tab) hear(e message) {
	var said struct {
		Type  string
		Args  []struct{ Value, Description any }
		Entry struct{ Source, Level, Text, URL string }
		Exc   struct {
			Text      string
			Exception struct{ Description string }
		} `json:"exceptionDetails"`
		Message string
	}
	if err := json.Unmarshal(e.Params, &said); err != nil {
		return // an event of another form, of which nothing is wanted
	}
	fault := ""
	switch e.Method {
	case "Page.loadEventFired":
		p.loaded <- struct{}{}
	case "Runtime.exceptionThrown":
		fault = "exception: " + said.Exc.Text + " " + said.Exc.Exception.Description
	case "Runtime.consoleAPICalled":
		fault = fmt.Sprintf("console.%s: %v", said.Type, said.Args)
	case "Page.javascriptDialogOpening":
		fault = "a dialog of a script: " + said.Message
	case "Log.entryAdded":
		// What the server refuses, or that it is gone, is for the page to show.
		if said.Entry.Source != "network" {
			fault = fmt.Sprintf("%s %s: %s", said.Entry.Source, said.Entry.Level, said.Entry.Text)
		}
	}
	if fault != "" {
		p.mu.Lock()
		p.faults = append(p.faults, fault)
		p.mu.Unlock()
	}
}

// do sends a command to the tab.
func (p *tab) do(method string, params, result any) {
	p.t.Helper()
	command(p.t, p.session, method, params, result)
}

// eval returns the value of an expression in the page; result may be nil.
func (p *tab) eval(expression string, result any) {
	p.t.Helper()
	var answer struct {
		Result struct{ Value json.RawMessage }
		Exc    *struct {
			Text      string
			Exception struct{ Description string }
		} `json:"exceptionDetails"`
	}
	p.do("Runtime.evaluate", object{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true}, &answer)
	if answer.Exc != nil {
		p.t.Fatalf("%s: %s %s", expression, answer.Exc.Text, answer.Exc.Exception.Description)
	}
	if result != nil {
		if err := json.Unmarshal(answer.Result.Value, result); err != nil {
			p.t.Fatalf("%s is %s: %v", expression, answer.Result.Value, err)
		}
	}
}

// wait waits until an expression is true in the page.
func (p *tab) wait(expression string) {
	p.t.Helper()
	var ok bool
	p.eval(fmt.Sprintf(`new Promise(done => {
		const end = Date.now() + %d;
		(function look() {
			if (%s) done(true);
			else if (Date.now() > end) done(false);
			else setTimeout(look, 10);
		})();
	})`, patience.Milliseconds(), expression), &ok)
	if !ok {
		var text string
		p.eval("document.body.innerText", &text)
		p.t.Fatalf("it never came to be that %s. The page:\n%s", expression, text)
	}
}

// key presses a key, as a person would.
func (p *tab) key(name, text string, code int) {
	p.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		press := object{"type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code}
		if kind == "keyDown" && text != "" {
			press["text"] = text
		}
		p.do("Input.dispatchKeyEvent", press, nil)
	}
}

// write writes a text into a field.
func (p *tab) write(field, text string) {
	p.t.Helper()
	b, err := json.Marshal(text)
	if err != nil {
		p.t.Fatal(err)
	}
	p.eval(fmt.Sprintf(`(() => { const f = document.querySelector(%q); f.value = %s; f.dispatchEvent(new Event("input", {bubbles: true})); })()`, field, b), nil)
}

// click clicks what a selector finds.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.eval(fmt.Sprintf(`document.querySelector(%q).click()`, selector), nil)
}
