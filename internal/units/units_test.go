package units

import (
	"math"
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"0": 0, "0.0": 0, "0ms": 0, "30": 30 * time.Second, "0.5": 500 * time.Millisecond, "12.345": 12345 * time.Millisecond,
		"500ms": 500 * time.Millisecond, "0.5ms": 500 * time.Microsecond, "30s": 30 * time.Second, "15m": 15 * time.Minute,
		"24h": 24 * time.Hour, "1.5h": 90 * time.Minute, "007": 7 * time.Second, "0.000000001": 1, "0.0000000001": 0,
		"9223372036.854775807": math.MaxInt64, "2562047h": 2562047 * time.Hour,
	} {
		if got, ok := ParseDuration(s); !ok || got != want {
			t.Errorf("%q: got %v %v, want %v", s, got, ok, want)
		}
	}
	for _, s := range []string{
		"", ".", ".5", "5.", "-1", "-0", "+1", " 1", "1 ", "1 s", "s", "ms", "h", "1d", "1us", "1ns", "1µs", "1h30m", "1S", "1H",
		"NaN", "nan", "Inf", "-Inf", "inf", "infinity", "1e3", "1e3s", "0x10", "0x1p4", "1_000", "1,5", "1.5.5", "٣",
		"9223372036.854775808", "9223372037", "2562048h", "99999999999999999999", "153722868m",
	} {
		if got, ok := ParseDuration(s); ok {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

func TestDurationsAreWrittenShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		24 * time.Hour: "24h", 10 * time.Minute: "10m", 90 * time.Minute: "90m", 30 * time.Second: "30s",
		500 * time.Millisecond: "500ms", 20 * time.Hour: "20h", time.Hour + time.Second: "3601s", 0: "0s", 1500 * time.Microsecond: "0.0015s", 876000 * time.Hour: "876000h",
		31622400*time.Second + 1: "31622400.000000001s", math.MaxInt64: "9223372036.854775807s",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v reads %q, want %q", d, got, want)
		} else if back, ok := ParseDuration(got); !ok || back != d {
			t.Errorf("%q is read back as %v", got, back)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"0.5", "500ms", "24h", "1h30m", "-1", "1e3", "9223372036.854775807", ".5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := ParseDuration(s)
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

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "1": 1, "64KiB": 64 << 10, "8MiB": 8 << 20, "1GiB": 1 << 30, "1025": 1025} {
		if got, ok := ParseSize(s); !ok || got != want {
			t.Errorf("%q: got %v %v, want %v", s, got, ok, want)
		}
		if want > 0 {
			if got := FormatSize(want); got != s {
				t.Errorf("%d is written %q, want %q", want, got, s)
			}
		}
	}
	for _, s := range []string{"", "KiB", "-1", "+1", "1.5MiB", "8MB", "8 MiB", "1kib", "9223372036854775808", "99999999999GiB"} {
		if got, ok := ParseSize(s); ok {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}
