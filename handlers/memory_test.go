package handlers

import (
	"bufio"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Large values on their way take no more memory than there is: who finds none is
// refused after a while, and nothing is left taken.
func TestLargeValuesShareTheMemoryThereIs(t *testing.T) {
	r := newRig(t, nil)
	r.server.memory = make(memory, 2)
	r.server.pace.idle = 200 * time.Millisecond
	value := strings.Repeat("v", memoryUnit)

	v := r.stored(r.put("/db/1/kv/a", value))
	r.value(r.do("GET", "/db/1/kv/a"), v, "application/octet-stream", value)

	// Others hold it all.
	others := call{r: httptest.NewRequest("GET", "/", nil)}
	if err := r.server.memory.hold(&others, 2*memoryUnit, time.Minute); err != nil {
		t.Fatalf("an answered call keeps memory: %v", err)
	}
	c := r.dial()
	if _, err := fmt.Fprintf(c, "PUT /db/1/kv/b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(value), value); err != nil {
		t.Fatal(err)
	}
	answer := r.read(bufio.NewReader(c), "PUT")
	r.checkRefusal(answer, 503, "too many large values", "a large value that finds no memory")
	if got := answer.header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After is %q, want 1", got)
	}
	r.refused(503, "too many large values", "GET", "/db/1/kv/a")
	r.refused(404, "kv", "GET", "/db/1/kv/b")
	// Small values do not need it.
	r.stored(r.put("/db/1/kv/small", "v"))

	// One that waits has it as soon as it is given back.
	r.server.pace.idle = time.Minute
	c = r.dial()
	if _, err := io.WriteString(c, request("GET", "/db/1/kv/a", "")); err != nil {
		t.Fatal(err)
	}
	r.server.memory.free(&others)
	r.value(r.read(bufio.NewReader(c), "GET"), v, "application/octet-stream", value)
	if err := r.server.memory.hold(&others, 2*memoryUnit, time.Minute); err != nil {
		t.Errorf("an answered call keeps memory: %v", err)
	}
}
