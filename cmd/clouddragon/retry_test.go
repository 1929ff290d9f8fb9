package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// Answers are kept for limits.replay, even if the program is restarted.
func TestAnswersAreKeptOverARestartForAsLongAsConfigured(t *testing.T) {
	t.Parallel()
	config := strings.Replace(small(t, "listen: 127.0.0.1:0\n"), "limits: {", "limits: {replay: 1h, ", 1)
	p := start(t, config)
	post := func(key string) (body, replayed string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+p.addr+"/db/1/counter/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Idempotency-Key", key)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b), a.Header.Get("Idempotency-Replayed")
	}
	expect := func(key, body, replayed string) {
		t.Helper()
		if b, again := post(key); b != body || again != replayed {
			t.Errorf("key %s: %q, replayed %q; want %q, %q", key, b, again, body, replayed)
		}
	}
	expect("one", "1\n", "")
	expect("two", "2\n", "")
	p.stop()
	p = start(t, config)
	expect("one", "1\n", "true")
	expect("three", "3\n", "")
	p.stop()

	p = start(t, strings.Replace(config, "replay: 1h", "replay: 1ms", 1))
	expect("four", "4\n", "")
	for b, again := post("four"); b != "5\n"; b, again = post("four") {
		if b != "4\n" || again != "true" {
			t.Fatalf("%q, replayed %q", b, again)
		}
	}
	expect("two", "2\n", "true") // the stored answer
	p.stop()
}
