package crashtest

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestMoreConnectionsThanDescriptors opens more connections than the server has descriptors.
// The accepted ones are served, files of the log are still opened, and the others are served
// once there is room.
func TestMoreConnectionsThanDescriptors(t *testing.T) {
	begin(t)
	s := serve(t, setup{binary: *binary, data: filepath.Join(t.TempDir(), "data"), config: smallFiles, files: 100})
	c := &client{addr: s.addr}
	defer c.close()
	mustBe(t, c, 200, "PUT", "/db/1/kv/a", "first")
	crowd, err := crowdOf(s.addr, 400, func(i int) string {
		return fmt.Sprintf("POST /db/1/sequence/crowd-%d HTTP/1.1\r\nHost: localhost\r\n\r\n", i)
	})
	defer hangUp(crowd)
	if err != nil {
		t.Fatal(err)
	}
	// Enough data for segments to be made and removed.
	value := strings.Repeat("v", 15<<10)
	for range 100 {
		mustBe(t, c, 200, "PUT", "/db/1/kv/a", value)
	}
	mustBe(t, c, 200, "POST", "/db/1/sequence/a", "")
	if err := s.trouble(); err != nil {
		t.Error(err)
	}
	hangUp(crowd)
	c.close()
	if a := mustBe(t, c, 200, "GET", "/db/1/kv/a", ""); a.body != value {
		t.Errorf("%d bytes, want %d", len(a.body), len(value))
	}
	c.close()
	if err := errors.Join(s.stop(), s.trouble()); err != nil {
		t.Error(err)
	}
}
