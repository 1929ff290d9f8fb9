package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"

	"clouddragon/internal/units"
)

// text reads a string. If check is not nil, it has to accept the string.
func text(to *string, check func(string) error) reader {
	return func(d *document, path string, n ast.Node) error {
		s, ok := n.(*ast.StringNode)
		if !ok {
			return d.wrong(path, "text", n)
		}
		if check != nil {
			if err := check(s.Value); err != nil {
				return d.fault(s.GetToken(), "%s: %v", path, err)
			}
		}
		*to = s.Value
		return nil
	}
}

// name reads a string. A number is read as it is written.
func name(to *string, check func(string) error) reader {
	return func(d *document, path string, n ast.Node) error {
		if i, ok := n.(*ast.IntegerNode); ok {
			n = ast.String(i.GetToken())
		}
		return text(to, check)(d, path, n)
	}
}

// boolean reads true or false.
func boolean(to *bool) reader {
	return func(d *document, path string, n ast.Node) error {
		b, ok := n.(*ast.BoolNode)
		if !ok {
			return d.wrong(path, "true or false", n)
		}
		*to = b.Value
		return nil
	}
}

// scalar reads a string or a number with parse.
func scalar(want string, parse func(s string) error) reader {
	return func(d *document, path string, n ast.Node) error {
		switch n.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode:
		default:
			return d.wrong(path, want, n)
		}
		if err := parse(n.GetToken().Value); err != nil {
			return d.fault(n.GetToken(), "%s: %v", path, err)
		}
		return nil
	}
}

// count reads a whole number from min to max.
func count(to *int, min, max int) reader {
	return scalar("a whole number", func(s string) error {
		v, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		*to = v
		return within(v, min, max, s, strconv.Itoa)
	})
}

// size reads a number of bytes from min to max, a multiple of unit.
func size(to *int64, min, max, unit int64) reader {
	return scalar("a size", func(s string) error {
		v, ok := units.ParseSize(s)
		if !ok {
			return fmt.Errorf("%q is not a size: write a whole number of bytes, or one with KiB, MiB or GiB (8MiB)", s)
		}
		*to = v
		if v%unit != 0 && v >= min && v <= max {
			return fmt.Errorf("%s is not a multiple of %s", s, units.FormatSize(unit))
		}
		return within(v, min, max, s, units.FormatSize)
	})
}

// duration reads a duration from min to max in the syntax of the API: a number of seconds,
// or one number with one unit.
func duration(to *time.Duration, min, max time.Duration) reader {
	return scalar("a duration", func(s string) error {
		v, ok := units.ParseDuration(s)
		if !ok {
			return fmt.Errorf("%q is not a duration: write a number of seconds, or one number with one unit (500ms, 30s, 90m, 24h)", s)
		}
		*to = v
		return within(v, min, max, s, units.FormatDuration)
	})
}

// within refuses v, written as s, if it is not in min to max.
func within[T cmp.Ordered](v, min, max T, s string, format func(T) string) error {
	if v < min || v > max {
		return fmt.Errorf("%s is not in %s to %s", s, format(min), format(max))
	}
	return nil
}

// mode reads the permissions of a file, in octal.
func mode(to *fs.FileMode) reader {
	return scalar("permissions", func(s string) error {
		v, err := strconv.ParseUint(s, 8, 32)
		if err != nil || v > 0o777 {
			return fmt.Errorf("%q is not a file mode: write octal digits (\"0600\", \"0660\")", s)
		}
		*to = fs.FileMode(v)
		return nil
	})
}
