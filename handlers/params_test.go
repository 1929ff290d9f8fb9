package handlers

import (
	"math/big"
	"net/url"
	"strings"
	"testing"

	"clouddragon/db"
)

func FuzzParams(f *testing.F) {
	for _, s := range []string{"", "add=5&min=0", "add=5&add=5", "&add=5&", "%61dd=%35", "add=a+b", "x", "add=5;min=0", "add=%zz", "min"} {
		f.Add(s)
	}
	names := []string{"add", "min", "max"}
	f.Fuzz(func(t *testing.T, query string) {
		p := params{names: names}
		err := p.parse(query)
		if err != nil {
			if line := err.Error(); oneLine(line) != line || len(line) > 600 {
				t.Fatalf("the error line is %q", line)
			}
			return
		}
		if strings.Contains(query, ";") {
			return // net/url refuses it, here it is a part of the value
		}
		want, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("%q is taken, but %v", query, err)
		}
		for _, name := range names {
			if got := p.text(name); got != want.Get(name) || len(want[name]) > 1 {
				t.Fatalf("%q: %s is %q, want %q", query, name, got, want[name])
			}
			delete(want, name)
		}
		if len(want) != 0 {
			t.Fatalf("%q: %v is not known and not refused", query, want)
		}
	})
}

func FuzzNumber(f *testing.F) {
	for _, s := range []string{"5", "-5", "+5", "-", "", "9223372036854775807", "9223372036854775808", "0x5", "1_0", " 5", "-0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := parseNumber(s)
		want, valid := new(big.Int).SetString(strings.TrimPrefix(s, "-"), 10)
		valid = valid && strings.Trim(strings.TrimPrefix(s, "-"), "0123456789") == ""
		if valid && strings.HasPrefix(s, "-") {
			want.Neg(want)
		}
		if valid = valid && want.IsInt64(); ok != valid || ok && want.Int64() != n {
			t.Fatalf("%q is taken for %d, %v", s, n, ok)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/db/1/kv/a", "/db/1/kv/a%2Fb", "/db/%2e/kv/a", "/db/1/kv/é%2F", "//db/1/kv/a", "/healthz", "*", "/db/1/kv/%00", "/db/1/kv/a/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return // net/http has refused it
		}
		var c call
		c.locate(u)
		if c.api == Other || c.api == Healthz || c.api == Metrics {
			return
		}
		// The expected names: each segment of the path as the client wrote it, unescaped.
		path, _, _ := strings.Cut(target, "?")
		if i := strings.Index(path, "://"); i >= 0 && !strings.HasPrefix(path, "/") {
			path = path[i+3:]
			path = path[strings.Index(path, "/"):]
		}
		parts := strings.Split(path, "/")
		if len(parts) != 5 || parts[0] != "" || parts[1] != "db" || parts[3] != c.api.String() {
			t.Fatalf("%q is taken for a route", target)
		}
		for i, name := range map[int]string{2: c.key.Acc, 4: c.key.ID} {
			if want, err := url.PathUnescape(parts[i]); err != nil || want != name {
				t.Fatalf("%q: got %q, want %q %v", target, name, want, err)
			}
		}
		k := c.key
		bad := len(k.Acc) > db.MaxAcc || len(k.ID) > db.MaxID || strings.Contains(k.Acc+k.ID, "\x00") ||
			k.Acc == "." || k.Acc == ".." || k.ID == "." || k.ID == ".."
		if bad != (c.fault != nil) {
			t.Fatalf("%q: the fault is %v", target, c.fault)
		}
	})
}

// Any names, escaped as a client may escape them, are read as the same names.
func FuzzNames(f *testing.F) {
	f.Add("1", "a/b")
	f.Add("é", "\x00")
	f.Fuzz(func(t *testing.T, acc, id string) {
		if acc == "" || id == "" {
			return
		}
		u, err := url.ParseRequestURI("/db/" + url.PathEscape(acc) + "/kv/" + url.PathEscape(id))
		if err != nil {
			t.Fatal(err)
		}
		var c call
		if c.locate(u); c.api != KV || c.key != (db.Key{Acc: acc, ID: id}) {
			t.Fatalf("%q %q come back as %v %q", acc, id, c.api, c.key)
		}
	})
}
