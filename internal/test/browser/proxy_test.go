package browser

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// TestPageBehindAProxy has the page under a path of a proxy, which then answers by itself.
func TestPageBehindAProxy(t *testing.T) {
	s := startServer(t, "")
	s.want("POST", "/db/shop/lock/nightly?id=host-1&dur=1h", "")
	to, err := url.Parse(s.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	var broken atomic.Pointer[string] // the path that the proxy does not pass on
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
	}}
	proxy := httptest.NewServer(http.StripPrefix("/dragon", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := broken.Load(); path != nil && strings.HasPrefix(r.URL.Path, *path) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusBadGateway)
			if _, err := io.WriteString(w, "<h1>Bad gateway</h1>"); err != nil {
				t.Error(err)
			}
			return
		}
		pass.ServeHTTP(w, r)
	})))
	t.Cleanup(func() {
		proxy.CloseClientConnections() // a stream of events has no end
		proxy.Close()
	})
	p := open(t, newProfile(t), proxy.URL+"/dragon/")
	p.wait(row("#locks", "nightly"))
	p.wait(text("#about") + `.startsWith("version ")`)
	p.wait(text("#events-note") + `.startsWith("of shop")`)
	p.eval(row("#locks", "nightly")+`.querySelector("button").click()`, nil)
	p.click("#ask-force .danger")
	p.wait("!" + row("#locks", "nightly"))

	path := "/metrics"
	broken.Store(&path)
	p.wait(text("#about") + ` === "no figures: The server answers with status 502." && ` + text("#health") + ` === "healthy"`)
	all := "/"
	broken.Store(&all)
	p.wait(text("#health") + ` === "The server answers with status 502."`)
	p.wait(text("#locks-note") + ` === "The server answers with status 502."`)
	broken.Store(nil)
	p.wait(text("#health") + ` === "healthy" && ` + text("#about") + `.startsWith("version ")`)
}
