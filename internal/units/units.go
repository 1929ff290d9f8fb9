// Package units reads durations and sizes by one rule, in requests and in
// config.yml alike: one number and one unit.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// durations are the units of durations, a longer suffix before the one that it ends with.
var durations = [...]struct {
	suffix string
	size   time.Duration
}{
	{"ms", time.Millisecond},
	{"s", time.Second},
	{"m", time.Minute},
	{"h", time.Hour},
	{"", time.Second},
}

// ParseDuration reads digits, perhaps a point and more digits, and perhaps a
// unit; without one they are seconds. What is finer than 1 ns is cut off.
func ParseDuration(s string) (time.Duration, bool) {
	unit := time.Second
	for _, u := range durations {
		if number, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = number, u.size
			break
		}
	}
	whole, fraction, point := strings.Cut(s, ".")
	if !Digits(whole) || point && !Digits(fraction) {
		return 0, false
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > int64(math.MaxInt64/unit) {
		return 0, false
	}
	d := time.Duration(n) * unit
	var part time.Duration
	for i, scale := 0, unit; i < len(fraction) && scale > 0; i++ {
		scale /= 10
		part += time.Duration(fraction[i]-'0') * scale
	}
	if d > math.MaxInt64-part {
		return 0, false
	}
	return d + part, true
}

// Digits reports whether s is one digit or more and nothing else.
func Digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// FormatDuration writes a duration as ParseDuration reads it, in the largest unit
// that divides it: 24h, 90m, 500ms.
func FormatDuration(d time.Duration) string {
	for _, unit := range []struct {
		suffix string
		size   time.Duration
	}{{"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if d != 0 && d%unit.size == 0 {
			return strconv.FormatInt(int64(d/unit.size), 10) + unit.suffix
		}
	}
	if d == 0 {
		return "0s"
	}
	return strings.TrimRight(fmt.Sprintf("%d.%09d", d/time.Second, d%time.Second), "0") + "s"
}

// sizes are the units of sizes, the largest first.
var sizes = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// ParseSize reads a whole number of bytes, KiB, MiB or GiB.
func ParseSize(s string) (int64, bool) {
	for _, u := range sizes {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || v > uint64(1<<62/u.bytes) {
			return 0, false
		}
		return int64(v) * u.bytes, true
	}
	return 0, false
}

// FormatSize writes a number of bytes in the largest unit that divides it.
func FormatSize(v int64) string {
	for _, u := range sizes {
		if v%u.bytes == 0 {
			return strconv.FormatInt(v/u.bytes, 10) + u.suffix
		}
	}
	return ""
}
