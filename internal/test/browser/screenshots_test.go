package browser

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestScreenshots leaves pictures of the page for a person to look at: light, dark, and as
// wide as a phone.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("CLOUDDRAGON_SCREENSHOTS")
	if dir == "" {
		t.Skip("CLOUDDRAGON_SCREENSHOTS names no directory")
	}
	s := startServer(t, "")
	for i := range 60 {
		s.want("POST", fmt.Sprintf("/db/shop/kv/article-%03d", i), strings.Repeat("x", 1<<(i%16)), "Content-Type", "text/plain")
		s.want("POST", fmt.Sprintf("/db/billing/counter/invoices-%03d", i), "")
	}
	s.want("POST", "/db/shop/kv/article-000?ttl=2h", `{"name": "A teapot", "price": 12, "note": "<b>not bold</b>"}`, "Content-Type", "application/json")
	s.want("POST", "/db/billing/lock/nightly?id=host-1.example&dur=90", "")
	s.want("POST", "/db/billing/lock/report?dur=2h", "")
	s.want("POST", "/db/shop/mlock/render?id=worker-1&dur=120&limit=2", "")
	s.want("POST", "/db/shop/mlock/render?id=worker-2&dur=100&limit=2", "")
	for _, id := range []string{"host-2.example", "host-3.example"} {
		go func() { _, _, _ = s.try("POST", "/db/billing/lock/nightly?wait=60&id="+id, "") }() // it waits until the end
	}
	p := open(t, newProfile(t), s.url("/"))
	p.wait(`document.querySelectorAll("#locks tbody tr").length === 3`)
	p.write("#account", "shop")
	p.wait(`document.querySelectorAll("#list tbody tr").length === 20`)
	for i := range 400 {
		s.want("POST", "/db/shop/counter/visits", "")
		if i%40 == 0 {
			s.want("POST", fmt.Sprintf("/db/shop/kv/article-%03d", i/40+10), "new")
		}
	}
	p.wait(`document.querySelector("#charts path").getAttribute("d").split("L").length > 4`)
	for _, look := range []struct {
		name, scheme  string
		width, height int
	}{{"light", "light", 1280, 1500}, {"dark", "dark", 1280, 1500}, {"phone", "light", 390, 2600}, {"phone-dark", "dark", 390, 2600}} {
		p.do("Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": look.scheme}}}, nil)
		p.do("Emulation.setDeviceMetricsOverride", object{"width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 500}, nil)
		p.eval(`scrollTo(0, 0)`, nil)
		p.picture(filepath.Join(dir, look.name+".png"))
	}
	p.do("Emulation.setDeviceMetricsOverride", object{"width": 900, "height": 700, "deviceScaleFactor": 1, "mobile": false}, nil)
	p.click(`#list button.link`)
	p.wait(`!document.querySelector("#value-text").hidden`)
	p.picture(filepath.Join(dir, "value.png"))
	p.click("#value button")
	p.click("#locks button")
	p.picture(filepath.Join(dir, "force.png"))
	s.stop()
	p.wait(`!document.querySelector("#trouble").hidden`)
	p.click("#ask-force button")
	p.picture(filepath.Join(dir, "gone.png"))
}

// picture stores what the tab looks like.
func (p *tab) picture(file string) {
	p.t.Helper()
	var shot struct{ Data string }
	p.do("Page.captureScreenshot", object{"format": "png"}, &shot)
	b, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		p.t.Error(err)
	}
}
