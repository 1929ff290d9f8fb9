package handlers

import (
	"math"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"clouddragon/db"
)

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"0": 0, "0.0": 0, "0ms": 0, "30": 30 * time.Second, "0.5": 500 * time.Millisecond, "12.345": 12345 * time.Millisecond,
		"500ms": 500 * time.Millisecond, "0.5ms": 500 * time.Microsecond, "30s": 30 * time.Second, "15m": 15 * time.Minute,
		"24h": 24 * time.Hour, "1.5h": 90 * time.Minute, "007": 7 * time.Second, "0.000000001": 1, "0.0000000001": 0,
		"9223372036.854775807": math.MaxInt64, "2562047h": 2562047 * time.Hour,
	} {
		if got, ok := parseDuration(s); !ok || got != want {
			t.Errorf("%q: got %v %v, want %v", s, got, ok, want)
		}
	}
	for _, s := range []string{
		"", ".", ".5", "5.", "-1", "-0", "+1", " 1", "1 ", "1 s", "s", "ms", "h", "1d", "1us", "1ns", "1µs", "1h30m", "1S", "1H",
		"NaN", "nan", "Inf", "-Inf", "inf", "infinity", "1e3", "1e3s", "0x10", "0x1p4", "1_000", "1,5", "1.5.5", "٣",
		"9223372036.854775808", "9223372037", "2562048h", "99999999999999999999", "153722868m",
	} {
		if got, ok := parseDuration(s); ok {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestLimitsReadAsInTheConfig(t *testing.T) {
	for d, want := range map[time.Duration]string{
		24 * time.Hour: "24h", 10 * time.Minute: "10m", 90 * time.Minute: "1h30m", 30 * time.Second: "30s",
		500 * time.Millisecond: "500ms", 20 * time.Hour: "20h", time.Hour + time.Second: "1h0m1s", maxTTL: "876000h",
	} {
		if got := short(d); got != want {
			t.Errorf("%v reads %q, want %q", d, got, want)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"0.5", "500ms", "24h", "1h30m", "-1", "1e3", "9223372036.854775807", ".5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := parseDuration(s)
		if !ok {
			return
		}
		number := strings.TrimRight(s, "hms")
		unit := map[string]int64{"": 1e9, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}[s[len(number):]]
		exact, valid := new(big.Rat).SetString(number)
		if unit == 0 || !valid || strings.ContainsAny(number, "eEpPxX_/+-") {
			t.Fatalf("%q is taken for %v", s, d)
		}
		exact.Mul(exact, new(big.Rat).SetInt64(unit))
		off := exact.Sub(exact, new(big.Rat).SetInt64(int64(d)))
		// At most 1 ns for each digit after the point is cut off.
		if d < 0 || off.Sign() < 0 || off.Cmp(big.NewRat(100, 1)) > 0 {
			t.Fatalf("%q is %d ns, off by %v", s, d, off)
		}
	})
}

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
		valid = valid && digits(strings.TrimPrefix(s, "-"))
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
		// What the client wrote, taken apart by the letter.
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

// What a client may write as the escaped form of any names comes back as them.
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
