package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// asPrinted returns a configuration as -print prints it.
func asPrinted(c Config) []byte {
	var b bytes.Buffer
	_ = c.print(&b) // to memory
	return b.Bytes()
}

// anyConfig draws a random configuration without tokens.
func anyConfig(t *rapid.T) Config {
	texts := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z/."'\\:#{}\[\]&*!|>%@ -]*`)).Filter(func(s string) bool { return !strings.ContainsRune(s, '\ufffd') })
	long := rapid.Int64Range(1, int64(24*time.Hour))
	segment := rapid.Int64Range(16, 1<<18).Draw(t, "segment") * 4096
	c := Config{
		Listen:     rapid.SampledFrom([]string{"127.0.0.1:0", "[::1]:8081", "localhost:80", "unix:/run/a b", `unix:/run/"\'`}).Draw(t, "listen"),
		Data:       texts.Filter(func(s string) bool { return s != "" }).Draw(t, "data"),
		TokensFile: texts.Draw(t, "tokens_file"),
		Socket:     Socket{Mode: fs.FileMode(rapid.IntRange(0, 0o777).Draw(t, "mode")), Group: texts.Draw(t, "group")},
		Limits: Limits{
			Value: rapid.Int64Range(1, min(512<<20, segment/2)).Draw(t, "value"), Dur: time.Duration(long.Draw(t, "dur")) + time.Millisecond,
			Wait: time.Duration(long.Draw(t, "wait")) + time.Millisecond, Waiters: rapid.IntRange(1, 10_000_000).Draw(t, "waiters"),
			Batch: rapid.IntRange(1, 1_000_000).Draw(t, "batch"), Replay: time.Duration(long.Draw(t, "replay")) + time.Millisecond,
			Watchers: rapid.IntRange(1, 10_000_000).Draw(t, "watchers"),
		},
		Segment: segment,
		Garbage: rapid.IntRange(10, 10_000).Draw(t, "garbage"),
		Audit:   rapid.Bool().Draw(t, "audit"),
		Backup:  Backup{Time: time.Duration(long.Draw(t, "time")) + time.Second, Hold: rapid.Int64Range(1<<20, 1<<50).Draw(t, "hold")},
		Front:   Front{Enabled: rapid.Bool().Draw(t, "enabled"), Loops: rapid.IntRange(0, 1024).Draw(t, "loops")},
		Cluster: Cluster{Lease: time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Minute)).Draw(t, "lease"))},
	}
	switch unix := strings.HasPrefix(c.Listen, "unix:"); rapid.IntRange(0, 2).Draw(t, "of several") {
	case 1:
		c.Replica, c.Advertise = Replica{Of: "http://10.0.0.1:80", Sync: rapid.Bool().Draw(t, "sync")}, "https://[::1]:81"
	case 2:
		c.Cluster.Etcd, c.Cluster.Name = []string{"http://a:2379", "https://b"}, texts.Filter(func(s string) bool { return s != "" && !strings.HasSuffix(s, "/") }).Draw(t, "name")
		if unix {
			c.Advertise = "http://a:1"
		}
	}
	if rapid.Bool().Draw(t, "tls") {
		set := texts.Filter(func(s string) bool { return s != "" })
		c.Cert, c.Key = set.Draw(t, "cert"), set.Draw(t, "key")
	}
	return c
}

func TestPrintedConfigMeansTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyConfig(t)
		got, err := ParseConfig("printed", asPrinted(c), noEnv)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("%s\nis read as %+v, %v", asPrinted(c), got, err)
		}
	})
}

// TestShippedConfigHasEveryKey compares config.yml with what -print prints.
func TestShippedConfigHasEveryKey(t *testing.T) {
	src, err := os.ReadFile("../../config.yml")
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := readYAML("config.yml", src, false, mapping(keysOf(new(Config))))
	if err != nil {
		t.Fatal(err)
	}
	all, err := readYAML("printed", asPrinted(Defaults()), false, mapping(keysOf(new(Config))))
	if err != nil {
		t.Fatal(err)
	}
	for key := range all.at {
		if shipped.at[key] == nil {
			t.Errorf("config.yml does not set %s", key)
		}
	}
	if top := keysOf(new(Config)); len(top) > len(slices.DeleteFunc(keysIn(all), func(k string) bool { return strings.Contains(k, ".") })) {
		t.Error("-print leaves out a key")
	}
}

func keysIn(d *document) (names []string) {
	for key := range d.at {
		names = append(names, key)
	}
	return names
}

// configCommand runs the command config.
func configCommand(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"config"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestConfigCheckSaysInOneLineWhatAStartWouldSay(t *testing.T) {
	t.Setenv(TokenVariable, "")
	good := configFile(t, "limits: {wait: 1h}\n")
	bad := configFile(t, "listen: 127.0.0.1:0\nlimts: {}\n")
	noFile := configFile(t, "tls: {cert: /nowhere/c.pem, key: k.pem}\n")
	public := configFile(t, "listen: 0.0.0.0:1\n")
	readable := filepath.Join(t.TempDir(), "tokens.yml")
	if err := os.WriteFile(readable, []byte("- token: a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"-check", good}, 0, good + ": good\n", ""},
		{[]string{"-check", bad}, 78, "", bad + `:2: unknown key "limts"`},
		{[]string{"-check", noFile}, 78, "", noFile + ":1: tls.cert /nowhere/c.pem"},
		{[]string{"-check", public}, 78, "", public + ":1: listen: 0.0.0.0:1 can be reached from other machines"},
		{[]string{"-check", "/nowhere.yml"}, 78, "", "/nowhere.yml: no such file"},
		{[]string{"-check", configFile(t, "tokens_file: "+readable+"\n")}, 0, ": good\n", "warning: tokens_file " + readable + " may be read by every user"},
		{[]string{"-print", bad}, 78, "", bad + `:2: unknown key "limts"`},
		{[]string{"-print", "/nowhere.yml"}, 78, "", "/nowhere.yml"},
		{[]string{"-print", noFile}, 0, `cert: "/nowhere/c.pem"`, ""},
		{[]string{"-print", good}, 0, "wait: 1h", ""},
		{[]string{"-print"}, 0, "wait: 10m", ""},
		{[]string{"-check"}, 64, "", "FILE is missing"},
		{[]string{}, 64, "", "want one of -check and -print"},
		{[]string{"-check", "-print", good}, 64, "", "want one of -check and -print"},
		{[]string{"-check", good, bad}, 64, "", "want one FILE, got 2"},
		{[]string{"-chek"}, 64, "", "-chek"},
	} {
		code, stdout, stderr := configCommand(c.args...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) ||
			(c.stdout == "") != (stdout == "") || (c.stderr == "") != (stderr == "") {
			t.Errorf("%q: exit %d, stdout %q, stderr %q; want %d, %q, %q", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
	}
	t.Setenv(TokenVariable, "from-outside")
	if code, stdout, stderr := configCommand("-check", public); code != 0 {
		t.Errorf("the token of the environment does not count: exit %d, %q, %q", code, stdout, stderr)
	}
}

// TestConfigPrintShowsNoToken has tokens in the file and in the environment. The printed
// configuration must be refused by a start: everybody would know its tokens.
func TestConfigPrintShowsNoToken(t *testing.T) {
	const secret = "s3cr3t-Zq"
	t.Setenv(TokenVariable, "")
	for _, src := range []string{
		"token: " + secret + "\n",
		"tokens: [{token: " + secret + "1, accounts: [shop], readonly: true}, {token: " + secret + "2}]\n",
	} {
		code, stdout, stderr := configCommand("-print", configFile(t, src))
		if code != 0 || strings.Contains(stdout+stderr, secret) {
			t.Errorf("%q: exit %d, printed %q, %q", src, code, stdout, stderr)
		}
		if _, err := ParseConfig("printed", []byte(stdout), noEnv); err == nil || !strings.Contains(err.Error(), "a token must not have spaces") {
			t.Errorf("%q: the printed configuration is accepted: %v", src, err)
		}
	}
	// The environment's token is not a part of the file.
	t.Setenv(TokenVariable, secret)
	for _, src := range []string{"listen: 0.0.0.0:1\n", "token: file\nlisten: 0.0.0.0:1\n"} {
		code, stdout, stderr := configCommand("-print", configFile(t, src))
		c, err := ParseConfig("printed", []byte(stdout), os.Getenv)
		if code != 0 || strings.Contains(stdout+stderr, secret) || err != nil || c.Token != secret || c.Listen != "0.0.0.0:1" {
			t.Errorf("%q: exit %d, printed %q, %q, read back as %+v, %v", src, code, stdout, stderr, c, err)
		}
	}
}
