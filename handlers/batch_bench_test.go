package handlers

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"clouddragon/db"
)

// BenchmarkBatch handles batches of 1,000 sequence POSTs over 100,000 ids, as text and as
// JSON, without the connection. An operation is one call of a batch, so what all calls of a
// batch share, such as the sync, hardly counts.
func BenchmarkBatch(b *testing.B) {
	const calls = 1000
	for _, form := range []struct{ name, typ, begin, call, sep, end string }{
		{"text", "text/plain", "", "POST sequence/%d", "\n", ""},
		{"JSON", jsonType, "[", `{"method":"POST","path":"sequence/%d"}`, ",", "]"},
	} {
		b.Run(form.name, func(b *testing.B) {
			d, err := db.Open(db.Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			h := New(Options{DB: d})
			var bodies []string
			for range 200 {
				var lines []string
				for range calls {
					lines = append(lines, fmt.Sprintf(form.call, rand.IntN(100_000)))
				}
				bodies = append(bodies, form.begin+strings.Join(lines, form.sep)+form.end)
			}
			do := func(body string) {
				r := httptest.NewRequest(http.MethodPost, "http://localhost/db/many/batch", strings.NewReader(body))
				r.Header.Set("Content-Type", form.typ)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
			}
			for _, body := range bodies {
				do(body)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += calls {
				do(bodies[n/calls%len(bodies)])
			}
			b.StopTimer()
			if err := d.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
