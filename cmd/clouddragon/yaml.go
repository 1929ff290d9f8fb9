package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// document is a YAML file that is read strictly: every key is one that the
// caller knows and stands there once, every value is of its type.
type document struct {
	name  string
	lines []string
	at    map[string]*token.Token // where each key of the file has its value, by path ("limits.value")
}

// reader takes the value at a path of a document.
type reader func(d *document, path string, n ast.Node) error

// keys are the keys of a mapping and what reads the value of each.
type keys map[string]reader

// readYAML reads the one document in data, which came from the file name, as a
// mapping of the given keys. An empty document sets none of them. The error
// shows the faulty line.
func readYAML(name string, data []byte, k keys) (*document, error) {
	src := strings.TrimPrefix(string(data), "\ufeff")
	d := &document{name: name, lines: strings.Split(src, "\n"), at: map[string]*token.Token{}}
	f, err := parser.ParseBytes([]byte(src), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		if e, ok := errors.AsType[yaml.Error](err); ok {
			return nil, d.fault(e.GetToken(), "%s", e.GetMessage())
		}
		return nil, d.fault(nil, "%v", err)
	}
	for i, doc := range f.Docs {
		switch {
		case doc.Body == nil:
		case i > 0:
			return nil, d.fault(doc.Body.GetToken(), "a second document: the file holds one")
		default:
			if err := mapping(k)(d, "", doc.Body); err != nil {
				return nil, err
			}
		}
	}
	return d, nil
}

// fault is the error for what is wrong at tok. It shows the line as it stands
// in the file, but for the tokens on it.
func (d *document) fault(tok *token.Token, format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	if tok == nil || tok.Position == nil || tok.Position.Line < 1 || tok.Position.Line > len(d.lines) {
		return fmt.Errorf("%s: %s", d.name, msg)
	}
	line := strings.TrimRight(d.lines[tok.Position.Line-1], "\r")
	indent := []rune(line)
	indent = indent[:min(max(tok.Position.Column-1, 0), len(indent))]
	for i, r := range indent {
		if r != '\t' {
			indent[i] = ' '
		}
	}
	return fmt.Errorf("%s:%d: %s\n    %s\n    %s^", d.name, tok.Position.Line, msg, hideTokens(line), string(indent))
}

// hide puts stars for the rest of tok's line.
func (d *document) hide(tok *token.Token) {
	if tok == nil || tok.Position == nil || tok.Position.Line < 1 || tok.Position.Line > len(d.lines) {
		return
	}
	line := []rune(d.lines[tok.Position.Line-1])
	at := min(max(tok.Position.Column-1, 0), len(line))
	d.lines[tok.Position.Line-1] = string(line[:at]) + stars(string(line[at:]))
}

var tokenKey = regexp.MustCompile(`(?i)token(s?)["']?\s*:\s*`)

// hideTokens puts stars for the value of each token on a line, since what a
// server says at its start ends up in logs. It rather hides too much: a line may
// be faulty just in how a token is written.
func hideTokens(line string) string {
	out := ""
	for {
		m := tokenKey.FindStringSubmatchIndex(line)
		if m == nil {
			return out + line
		}
		value := line[m[1]:]
		end := len(value)
		switch {
		case m[2] < m[3]: // tokens: its items have keys of their own, if they are what they should be
			if strings.Contains(value, "{") || strings.Trim(value, " []") == "" {
				end = 0
			}
		case strings.Contains(out+line[:m[0]], "{"):
			end = flowEnd(value)
		}
		out += line[:m[1]] + stars(value[:end])
		line = value[end:]
	}
}

var quoted = regexp.MustCompile(`^("(\\.|[^"\\])*"?|'([^']|'')*'?)`)

// flowEnd is where a scalar in a flow mapping ends.
func flowEnd(s string) int {
	end := len(quoted.FindString(s))
	if i := strings.IndexAny(s[end:], ",}"); i >= 0 {
		return end + i
	}
	return len(s)
}

func stars(s string) string { return strings.Repeat("*", utf8.RuneCountInString(s)) }

// mapping reads each key of a mapping with its reader.
func mapping(k keys) reader {
	return func(d *document, path string, n ast.Node) error {
		m, ok := n.(*ast.MappingNode)
		if !ok {
			return d.wrong(path, "a mapping (key: value)", n)
		}
		first := map[string]int{}
		for _, v := range m.Values {
			key := v.Key.GetToken()
			name := key.Value
			if line, again := first[name]; again {
				return d.fault(key, "%s is there twice, first on line %d", join(path, name), line)
			}
			first[name] = key.Position.Line
			read, ok := k[name]
			if !ok {
				known := make([]string, 0, len(k))
				for name := range k {
					known = append(known, name)
				}
				slices.Sort(known)
				return d.fault(key, "unknown key %q: known here: %s", join(path, name), strings.Join(known, ", "))
			}
			d.at[join(path, name)] = v.Value.GetToken()
			if err := read(d, join(path, name), v.Value); err != nil {
				return err
			}
		}
		return nil
	}
}

// list reads each item of a sequence.
func list(item reader) reader {
	return func(d *document, path string, n ast.Node) error {
		s, ok := n.(*ast.SequenceNode)
		if !ok {
			return d.wrong(path, "a list", n)
		}
		for i, v := range s.Values {
			if err := item(d, fmt.Sprintf("%s[%d]", path, i), v); err != nil {
				return err
			}
		}
		return nil
	}
}

// text reads a string that check, if there is one, accepts.
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

// name reads a string; a number counts as the text that it is written with.
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

// count reads a whole number from min to max.
func count(to *int, min, max int) reader {
	return func(d *document, path string, n ast.Node) error {
		tok, ok := plain(n)
		if !ok {
			return d.wrong(path, "a whole number", n)
		}
		v, err := strconv.Atoi(tok.Value)
		if err != nil {
			return d.fault(tok, "%s: %q is not a whole number", path, tok.Value)
		}
		if v < min || v > max {
			return d.fault(tok, "%s: %d is not in %d to %d", path, v, min, max)
		}
		*to = v
		return nil
	}
}

// size reads a number of bytes from min to max, a multiple of unit.
func size(to *int64, min, max, unit int64) reader {
	return func(d *document, path string, n ast.Node) error {
		tok, ok := plain(n)
		if !ok {
			return d.wrong(path, "a size", n)
		}
		v, ok := parseSize(tok.Value)
		switch {
		case !ok:
			return d.fault(tok, "%s: %q is not a size: write a whole number of bytes, or one with KiB, MiB or GiB (8MiB)", path, tok.Value)
		case v < min || v > max:
			return d.fault(tok, "%s: %s is not in %s to %s", path, tok.Value, formatSize(min), formatSize(max))
		case v%unit != 0:
			return d.fault(tok, "%s: %s is not a multiple of %s", path, tok.Value, formatSize(unit))
		}
		*to = v
		return nil
	}
}

// duration reads a time span from min to max: Go's notation, or a number of seconds.
func duration(to *time.Duration, min, max time.Duration) reader {
	return func(d *document, path string, n ast.Node) error {
		tok, ok := plain(n)
		if !ok {
			return d.wrong(path, "a duration", n)
		}
		s := tok.Value
		if s != "" && strings.Trim(s, "0123456789.") == "" {
			s += "s"
		}
		v, err := time.ParseDuration(s)
		if err != nil {
			return d.fault(tok, "%s: %q is not a duration: write a number of seconds, or one with a unit (500ms, 30s, 15m, 24h)", path, tok.Value)
		}
		if v < min || v > max {
			return d.fault(tok, "%s: %s is not in %v to %v", path, tok.Value, min, max)
		}
		*to = v
		return nil
	}
}

// plain is the token of a text or a number.
func plain(n ast.Node) (*token.Token, bool) {
	switch n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken(), true
	}
	return nil, false
}

// wrong is the fault of a value that is not of the type that its key has.
func (d *document) wrong(path, want string, n ast.Node) error {
	got := "this"
	switch n.(type) {
	case *ast.NullNode:
		got = "nothing"
	case *ast.StringNode:
		got = "text"
	case *ast.LiteralNode:
		got = "a block of lines (| or >)"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		got = "a number"
	case *ast.BoolNode:
		got = "true or false"
	case *ast.MappingNode:
		got = "a mapping"
	case *ast.SequenceNode:
		got = "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.DirectiveNode:
		got = "an anchor, an alias, a tag or a directive, which are not read here"
	}
	if strings.HasPrefix(path, "tokens[") && !strings.Contains(path, ".") {
		d.hide(n.GetToken()) // a token without the key before it
	}
	if path == "" {
		path = "the file"
	}
	return d.fault(n.GetToken(), "%s: want %s, got %s", path, want, got)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// parseSize reads a whole number of bytes, KiB, MiB or GiB.
func parseSize(s string) (int64, bool) {
	for _, u := range sizeUnits {
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

// formatSize writes a number of bytes in the largest unit that divides it.
func formatSize(v int64) string {
	for _, u := range sizeUnits {
		if v%u.bytes == 0 {
			return strconv.FormatInt(v/u.bytes, 10) + u.suffix
		}
	}
	return ""
}
