package crashtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// known are bounds of what a backup may show: the acknowledged writes when it began, or the
// requested writes when it ended.
type known struct {
	sequences map[string]int64
	moves     int64 // batches, see keyedBatch
}

// acknowledged returns the least that every backup that begins now has to show.
func (l *ledger) acknowledged() known {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := known{sequences: make(map[string]int64), moves: book(l.keyed, keyedBatch).done}
	for target, b := range l.sequences {
		k.sequences[target] = b.seen
	}
	return k
}

// attempted returns the most that a backup that ends now may show.
func (l *ledger) attempted() known {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := known{sequences: make(map[string]int64), moves: book(l.keyed, keyedBatch).asked}
	for target, b := range l.sequences {
		k.sequences[target] = b.base + b.attempted
	}
	return k
}

// newest returns the highest version and the highest token that were given out.
func (l *ledger) newest() (version, token int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.versions.last, l.tokens.last
}

// backups takes backups of a server under load, one after the other, until the server ends.
type backups struct {
	group       sync.WaitGroup
	whole       []byte // the last complete backup; nil: none
	least, most known  // the bounds of what it has to show
	cut         []byte // the received part of a backup that was cut off
}

func (l *load) takeBackups(addr string) *backups {
	b := &backups{}
	b.group.Go(func() {
		for {
			least := l.ledger.acknowledged()
			data, err := readBackup(addr)
			if err != nil {
				b.cut = data
				return
			}
			b.whole, b.least, b.most = data, least, l.ledger.attempted()
		}
	})
	return b
}

// readBackup returns what arrived of a backup, and the error that ended it.
func readBackup(addr string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/backup", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() // it was read as far as it goes
	data, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != 200 {
		return nil, fmt.Errorf("GET /backup: %d %s", res.StatusCode, data)
	}
	return data, err
}

// check waits for the end of the server, restores the last whole backup and compares it
// with the books. It reports whether there was one.
func (b *backups) check(t *testing.T, l *load) bool {
	t.Helper()
	b.group.Wait()
	dir := t.TempDir()
	if len(b.cut) > 0 {
		data := filepath.Join(dir, "cut")
		// If only the zeros behind the manifest are missing, the backup is complete.
		out, err := restoreBackup(t, b.cut[:max(len(b.cut)-2048, 0)], data)
		if _, left := os.Stat(data); err == nil || !os.IsNotExist(left) {
			t.Errorf("a backup that was cut off at %d bytes: %v, the directory: %v\n%s", len(b.cut), err, left, out)
		}
	}
	if b.whole == nil {
		return false
	}
	data := filepath.Join(dir, "data")
	if out, err := restoreBackup(t, b.whole, data); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	if out, err := exec.Command(*binary, "verify", "-data", data).CombinedOutput(); err != nil {
		t.Fatalf("verify of a backup: %v\n%s", err, out)
	}
	s := serve(t, setup{binary: *binary, data: data, config: smallFiles})
	defer s.kill()
	c := &client{addr: s.addr}
	defer c.close()
	for target, most := range b.most.sequences {
		a, err := c.do("GET", target, "")
		n := int64(0)
		if err == nil && a.status != 404 {
			n, err = a.number()
		}
		if least := b.least.sequences[target]; err != nil || n < least || n > most {
			t.Errorf("a backup shows %s at %d, %v, want %d to %d", target, n, err, least, most)
		}
	}
	m, err := readMoved(c.do)
	if err != nil || m.left+m.right != 0 || m.moves < b.least.moves || m.moves > b.most.moves {
		t.Errorf("a backup shows the batches as %+v, %v, want %d to %d of them", m, err, b.least.moves, b.most.moves)
	}
	version, token := l.ledger.newest()
	for _, x := range []struct {
		method, target string
		given          int64
	}{{"PUT", "/db/restored/kv/a", version}, {"POST", "/db/restored/lock/a", token}} {
		a := mustBe(t, c, 200, x.method, x.target, "")
		if n, err := a.number(); err != nil || n <= x.given {
			t.Errorf("%s %s on what was restored answers %d, %v, and %d was given before", x.method, x.target, n, err, x.given)
		}
	}
	c.close()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	return true
}

// restoreBackup runs the command restore.
func restoreBackup(t *testing.T, backup []byte, data string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup.tar")
	if err := os.WriteFile(file, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(*binary, "restore", "-data", data, file).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
