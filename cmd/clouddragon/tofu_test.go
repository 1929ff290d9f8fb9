package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const tofuToken = "a-long-and-random-token-of-the-test"

// resources is a configuration of built-in resources. With -var hold=FIFO an apply says that
// it has begun and goes on once something is written to the FIFO.
const resources = `
variable "hold" { default = "" }
variable "input" { default = "one" }
resource "terraform_data" "plain" { input = var.input }
resource "terraform_data" "held" {
  count = var.hold == "" ? 0 : 1
  provisioner "local-exec" { command = "echo begun >${var.hold}.begun; read line <${var.hold}" }
}
output "plain" { value = terraform_data.plain.output }
`

// tofu is a directory of OpenTofu or Terraform, whose state is on a server.
type tofu struct {
	t        *testing.T
	program  string
	dir      string
	state    string // its address
	server   *process
	config   string
	refusals chan string // the ID in each LOCK that got a 423
}

// tofuPrograms returns the installed programs. Where everything has to be tested, OpenTofu
// must be among them.
func tofuPrograms(t *testing.T) []string {
	var found []string
	for _, name := range []string{"tofu", "terraform"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		} else if name == "tofu" && os.Getenv("CLOUDDRAGON_CRASH_REQUIRED") != "" {
			needed(t, name)
		}
	}
	if len(found) == 0 {
		needed(t, "tofu or terraform")
	}
	return found
}

// newTofu starts a server, and initializes a directory with the example of docs/api.md. A
// proxy between the two reports which locks were refused.
func newTofu(t *testing.T, program string) *tofu {
	f := &tofu{t: t, program: program, dir: t.TempDir(), refusals: make(chan string, 1000)}
	f.config = small(t, "listen: "+ownAddr(t)+"\n")
	f.server = start(t, f.config, "CLOUDDRAGON_TOKEN="+tofuToken)
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: f.server.addr})
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusLocked && r.Request.Method == "LOCK" {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return err
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
				f.refusals <- lockID.FindString(string(body))
			}
			return nil
		},
	})
	t.Cleanup(proxy.Close)
	// The address in the document, changed to this server's.
	example := fenced(t, "hcl")
	f.state = strings.Replace(regexp.MustCompile(`http://localhost:8081/\S+/web`).FindString(example), "http://localhost:8081", proxy.URL, 1)
	f.write("main.tf", strings.ReplaceAll(example, "http://localhost:8081", proxy.URL)+resources)
	for _, fifo := range []string{"fifo", "fifo.begun"} {
		if err := syscall.Mkfifo(filepath.Join(f.dir, fifo), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.succeeds("init")
	return f
}

var lockID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

func (f *tofu) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// command returns a run of the program that is not started yet.
func (f *tofu) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(f.t.Context(), f.program, args...)
	cmd.Dir = f.dir
	cmd.Env = append(os.Environ(), "TF_HTTP_PASSWORD="+tofuToken, "TF_CLI_ARGS=-no-color", "TF_IN_AUTOMATION=1", "TF_CLI_CONFIG_FILE=", "TF_INPUT=0", "CHECKPOINT_DISABLE=1", "no_proxy=*")
	// Ending it also ends the processes that an apply has started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // for one that has left the process group
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// succeeds runs it and returns what it prints.
func (f *tofu) succeeds(args ...string) string {
	f.t.Helper()
	out, err := f.command(args...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("%s %v: %v\n%s\nthe server says:\n%s", f.program, args, err, out, f.server.log)
	}
	return string(out)
}

// fails runs it and checks that it fails and prints each of the texts, however its lines are
// wrapped.
func (f *tofu) fails(args []string, texts ...string) {
	f.t.Helper()
	out, err := f.command(args...).CombinedOutput()
	if err == nil {
		f.t.Fatalf("%s %v succeeds:\n%s", f.program, args, out)
	}
	f.says(string(out), texts...)
}

func (f *tofu) says(out string, texts ...string) {
	f.t.Helper()
	for _, text := range texts {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), text) {
			f.t.Errorf("it does not say %q:\n%s", text, out)
		}
	}
}

// apply is a run that holds the lock.
type apply struct {
	*exec.Cmd
	f     *tofu
	out   bytes.Buffer
	id    string // of its lock
	ended chan error
}

// hold starts an apply and returns once it holds the lock and creates a resource.
func (f *tofu) hold() *apply {
	f.t.Helper()
	begun, err := os.OpenFile(filepath.Join(f.dir, "fifo.begun"), os.O_RDWR, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	defer begun.Close()
	a := &apply{Cmd: f.command("apply", "-auto-approve", "-var", "hold=fifo", "-var", "input=held"), f: f, ended: make(chan error, 1)}
	a.Stdout, a.Stderr = &a.out, &a.out
	if err := a.Start(); err != nil {
		f.t.Fatal(err)
	}
	go func() {
		a.ended <- a.Wait()
		_ = begun.SetReadDeadline(time.Now()) // it is closed if the apply has begun
	}()
	if _, err := begun.Read(make([]byte, 6)); err != nil {
		f.t.Fatalf("the apply ends before it makes a resource: %v\n%s", <-a.ended, a.out.String())
	}
	a.id = lockID.FindString(f.holder())
	return a
}

// holder asks who holds the state, in the way that docs/api.md describes.
func (f *tofu) holder() string {
	f.t.Helper()
	command := regexp.MustCompile(`(?m)^curl -u .* -X UNLOCK .*`).FindString(documents(f.t))
	if command == "" {
		f.t.Fatal("docs has no line that shows the holder of a state")
	}
	cmd := exec.Command("sh", "-c", strings.Replace(command, "http://localhost:8081", "http://"+f.server.addr, 1))
	cmd.Env = append(os.Environ(), "TF_HTTP_PASSWORD="+tofuToken, "no_proxy=*")
	out, err := cmd.Output()
	if err != nil {
		f.t.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

// goOn lets the apply end.
func (a *apply) goOn() error {
	a.f.t.Helper()
	if err := os.WriteFile(filepath.Join(a.f.dir, "fifo"), []byte("on\n"), 0); err != nil {
		a.f.t.Fatal(err)
	}
	return <-a.ended
}

// TestTofuWorksWithTheServer runs the real programs on the example of docs/api.md.
func TestTofuWorksWithTheServer(t *testing.T) {
	program(t, "curl")
	for _, path := range tofuPrograms(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			f := newTofu(t, path)
			t.Run("apply", f.testApply)
			t.Run("locked out", f.testLockedOut)
			t.Run("killed", f.testKilled)
			t.Run("lock forced away", f.testForcedAway)
			t.Run("token", f.testToken)
			t.Run("destroy", f.testDestroy)
		})
	}
}

// testApply applies, pulls the state, changes it and pushes it back.
func (f *tofu) testApply(t *testing.T) {
	f.t = t
	f.says(f.succeeds("apply", "-auto-approve"), "1 added")
	f.says(f.succeeds("apply", "-auto-approve"), "0 added, 0 changed, 0 destroyed")
	f.says(f.succeeds("apply", "-auto-approve", "-var", "input=two"), "1 changed")
	f.says(f.succeeds("output"), `plain = "two"`)
	state := f.succeeds("state", "pull")
	serial := regexp.MustCompile(`"serial": ?(\d+)`)
	f.write("pushed", serial.ReplaceAllString(strings.ReplaceAll(state, `"two"`, `"three"`), `"serial":1000`))
	f.succeeds("state", "push", "pushed")
	f.says(f.succeeds("output"), `plain = "three"`)
	f.fails([]string{"workspace", "new", "other"}, "workspaces not supported")
	if who := f.holder(); strings.Contains(who, "ID") {
		t.Errorf("after all of that the state is locked: %s", who)
	}
}

// testLockedOut makes other runs try, and one wait, while an apply holds the lock. Meanwhile
// the server is killed and started again.
func (f *tofu) testLockedOut(t *testing.T) {
	f.t = t
	first := f.hold()
	f.says(f.holder(), `"Operation":"OperationTypeApply"`, `"Who":"`)
	for _, other := range [][]string{{"apply", "-auto-approve"}, {"plan"}, {"state", "push", "pushed"}, {"destroy", "-auto-approve", "-lock-timeout=1s"}} {
		f.fails(other, "Error acquiring the state lock", "ID="+first.id)
	}
	for len(f.refusals) > 0 {
		if id := <-f.refusals; id != first.id {
			t.Errorf("a refusal names %s as the holder, want %s", id, first.id)
		}
	}
	// Reading needs no lock.
	f.says(f.succeeds("plan", "-lock=false"), "Plan:")

	waiting := f.command("apply", "-auto-approve", "-lock-timeout=5m", "-var", "input=waited")
	var out bytes.Buffer
	waiting.Stdout, waiting.Stderr = &out, &out
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	<-f.refusals
	f.server.signal(syscall.SIGKILL)
	f.server.exit()
	f.server = start(f.server.t, f.config, "CLOUDDRAGON_TOKEN="+tofuToken)
	if got := lockID.FindString(f.holder()); got != first.id {
		t.Errorf("after a restart of the server %q holds the state, want %s", got, first.id)
	}
	if err := first.goOn(); err != nil {
		t.Errorf("the apply: %v\n%s", err, first.out.String())
	}
	if err := waiting.Wait(); err != nil {
		t.Errorf("the apply that waits: %v\n%s", err, out.String())
	}
	f.says(f.succeeds("output"), `plain = "waited"`)
}

// testKilled kills an apply. Its lock stays until it is forced away.
func (f *tofu) testKilled(t *testing.T) {
	f.t = t
	killed := f.hold()
	if err := killed.Cancel(); err != nil {
		t.Error(err)
	}
	<-killed.ended
	f.fails([]string{"apply", "-auto-approve"}, "ID="+killed.id)
	f.says(f.succeeds("force-unlock", "-force", killed.id), "successfully unlocked")
	f.succeeds("apply", "-auto-approve", "-var", "input=after")
	f.says(f.succeeds("output"), `plain = "after"`)

	// An apply that is interrupted gives its lock back.
	interrupted := f.hold()
	if err := syscall.Kill(-interrupted.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-interrupted.ended
	f.succeeds("apply", "-auto-approve", "-var", "input=after")
}

// testForcedAway forces the lock of an apply away, and another run changes the state. The
// apply overwrites nothing, says so, and writes its state to a file.
func (f *tofu) testForcedAway(t *testing.T) {
	f.t = t
	first := f.hold()
	f.succeeds("force-unlock", "-force", first.id)
	if err := first.goOn(); err == nil {
		t.Errorf("an apply without its lock succeeds:\n%s", first.out.String())
	}
	f.says(first.out.String(), "HTTP error: 409", "state push errored.tfstate")
	f.says(f.succeeds("output"), `plain = "after"`)
	f.succeeds("state", "push", "errored.tfstate")
	f.says(f.succeeds("output"), `plain = "held"`)
	f.says(f.succeeds("apply", "-auto-approve"), "1 destroyed")
}

// testToken tries no token and a wrong one.
func (f *tofu) testToken(t *testing.T) {
	f.t = t
	for _, password := range []string{"", "another-token-that-is-none"} {
		cmd := f.command("plan")
		cmd.Env = append(cmd.Env, "TF_HTTP_PASSWORD="+password)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("with the password %q it works:\n%s", password, out)
		}
		f.says(string(out), "requires auth")
	}
}

func (f *tofu) testDestroy(t *testing.T) {
	f.t = t
	f.says(f.succeeds("destroy", "-auto-approve"), "Destroy complete")
	f.says(strings.ReplaceAll(f.succeeds("state", "pull"), `: `, `:`), `"resources":[]`)
	f.server.stop()
}
