package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRecipeOrderTakesAllOrNothing(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "batch.sh", "order.sh")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	shop := "http://" + p.addr + "/db/shop/"
	want(t, http.DefaultClient, "POST", shop+"counter/stock-teapot?set=2", http.StatusOK, "2\n")
	addr, lost := losesAnswers(t, p.addr)
	order := func(id string) *script {
		t.Helper()
		s := newScript(t, p, dir, "order.sh", "teapot", id, "a teapot for "+id)
		s.Env = append(s.Env, "SERVER="+addr, "DELAY=0")
		s.begin()
		return s
	}
	first := order("ada")
	first.says("1")
	first.endsQuietly(0)
	if lost.Load() != 2 {
		t.Errorf("%d answers were lost, want 2", lost.Load())
	}
	again := order("ada")
	again.ends(1)
	if said := again.stderr.String(); !strings.HasPrefix(said, `not done: line 3: value "order-ada" exists`) {
		t.Errorf("the same order again says %q", said)
	}
	second := order("bob")
	second.says("2")
	second.endsQuietly(0)
	soldOut := order("eve")
	soldOut.ends(1)
	if said := soldOut.stderr.String(); !strings.HasPrefix(said, "not done: line 1: ") || !strings.Contains(said, "under min=0") {
		t.Errorf("an order of what is sold out says %q", said)
	}
	want(t, http.DefaultClient, "GET", shop+"sequence/orders", http.StatusOK, "2\n")
	want(t, http.DefaultClient, "GET", shop+"kv/order-ada", http.StatusOK, "a teapot for ada")
	want(t, http.DefaultClient, "GET", shop+"kv/order-eve", http.StatusNotFound, "there is no kv \"order-eve\" of account \"shop\"\n")
	p.stop()
}

func TestRecipePayMovesMoney(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "batch.sh", "pay.sh")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	bank := "http://" + p.addr + "/db/bank/counter/"
	want(t, http.DefaultClient, "POST", bank+"ada?set=9", http.StatusOK, "9\n")
	paid := runScript(t, p, dir, "pay.sh", "ada", "bob", "5")
	paid.says("200 4")
	paid.says("200 5")
	paid.endsQuietly(0)
	runScript(t, p, dir, "pay.sh", "ada", "bob", "5").ends(1)
	want(t, http.DefaultClient, "GET", bank+"ada", http.StatusOK, "4\n")
	want(t, http.DefaultClient, "GET", bank+"bob", http.StatusOK, "5\n")
	p.stop()
}

func TestRecipeFollowLearnsWhoLeads(t *testing.T) {
	t.Parallel()
	dir := recipes(t, "follow.sh")
	p := start(t, small(t, "listen: 127.0.0.1:0\n"))
	lock := "http://" + p.addr + "/db/default/lock/leader"
	if err := os.WriteFile(filepath.Join(dir, "told.sh"), []byte("echo \"<$1>\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := newScript(t, p, dir, "follow.sh", "leader", "bash", "told.sh")
	s.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.begin()
	for _, id := range []string{"host-1", "b%20c"} {
		if code, body := ask(t, http.DefaultClient, "POST", lock+"?id="+id+"&dur=1h"); code != http.StatusOK {
			t.Fatalf("%d %s", code, body)
		}
		s.says("<" + id + ">")
		want(t, http.DefaultClient, "DELETE", lock+"?id="+id, http.StatusNoContent, "")
		s.says("<>")
	}
	if err := syscall.Kill(-s.Process.Pid, syscall.SIGKILL); err != nil { // its curl too
		t.Fatal(err)
	}
	s.ends(-1)
	p.stop()
}
