package main

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// document is a YAML file that is read strictly: every key must be known and given once,
// and every value must have the right type.
type document struct {
	name   string
	lines  []string
	secret bool                    // errors must not show a line of the file
	at     map[string]*token.Token // the place of each key's value, by path ("limits.value")
}

// reader takes the value at a path of a document.
type reader func(d *document, path string, n ast.Node) error

// keys has the keys of a mapping, each with the reader of its value.
type keys map[string]reader

// readYAML parses data, which was read from the file name and has one document. An empty
// document sets nothing. The error names the faulty line, and shows it unless the file is
// secret or holds a token.
func readYAML(name string, data []byte, secret bool, read reader) (*document, error) {
	src := strings.TrimPrefix(string(data), "\ufeff")
	d := &document{name: name, lines: strings.Split(src, "\n"), secret: secret || holdsToken(src), at: map[string]*token.Token{}}
	f, err := parser.ParseBytes([]byte(src), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		if e, ok := errors.AsType[yaml.Error](err); ok {
			return nil, d.fault(syntaxFault(e), "%s", e.GetMessage())
		}
		return nil, d.fault(nil, "%v", err)
	}
	for i, doc := range f.Docs {
		switch {
		case doc.Body == nil:
		case i > 0:
			return nil, d.fault(doc.Body.GetToken(), "a second document: the file may have only one")
		default:
			if err := read(d, "", doc.Body); err != nil {
				return nil, err
			}
		}
	}
	return d, nil
}

// syntaxFault returns the place of an error of the parser. For a colon that is not allowed, the
// parser names the text before it, which may begin lines earlier.
func syntaxFault(e yaml.Error) *token.Token {
	tok := e.GetToken()
	if tok != nil && tok.Next != nil && tok.Next.Type == token.MappingValueType {
		return tok.Next
	}
	return tok
}

// fault returns an error for the place tok. Messages end up in logs, so it shows the line
// only if the file has no secrets and the line has a key.
func (d *document) fault(tok *token.Token, format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	if tok == nil || tok.Position == nil || tok.Position.Line < 1 || tok.Position.Line > len(d.lines) {
		return fmt.Errorf("%s: %s", d.name, msg)
	}
	at := fmt.Sprintf("%s:%d: %s", d.name, tok.Position.Line, msg)
	line := strings.TrimRight(d.lines[tok.Position.Line-1], "\r")
	if d.secret || !hasKey().MatchString(line) {
		return errors.New(at)
	}
	return fmt.Errorf("%s\n    %s", at, line)
}

// Compiled when a configuration is read, since the commands read none and should start fast.
var (
	// harmless matches lines that look like a token but hold none: comments, keys without a
	// value, and tokens_file.
	harmless = lazyRegexp(`(?m)^[ \t]*#.*$|\btoken: (""|'')|\btokens: \[\]|\btokens_file\b`)
	hasKey   = lazyRegexp(`[\pL\pN_-]["']?:(\s|$)`)
	keyLike  = lazyRegexp(`([\pL\pN_-]+)["']?\s*[:=]`)
)

func lazyRegexp(s string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(s) })
}

// holdsToken reports whether a file has a key that is named like a token.
func holdsToken(src string) bool {
	src = strings.ToLower(harmless().ReplaceAllString(src, ""))
	if strings.Contains(src, "token") {
		return true
	}
	for _, m := range keyLike().FindAllStringSubmatch(src, -1) {
		if namedLikeToken(m[1]) {
			return true
		}
	}
	return false
}

// namedLikeToken reports whether a key may be a misspelt "token": it has at least four of
// the letters.
func namedLikeToken(key string) bool {
	n := 0
	for _, letter := range "token" {
		if strings.ContainsRune(strings.ToLower(key), letter) {
			n++
		}
	}
	return n >= 4 && key != "socket"
}

// mapping reads a mapping with the readers of its keys. An empty value counts as a mapping
// without keys.
func mapping(k keys) reader {
	return func(d *document, path string, n ast.Node) error {
		if n.Type() == ast.NullType && path != "" {
			return nil
		}
		m, ok := n.(*ast.MappingNode)
		if !ok {
			return d.wrong(path, "a mapping (key: value)", n)
		}
		first := map[string]int{}
		for _, v := range m.Values {
			key := v.Key.GetToken()
			name := key.Value
			read, ok := k[name]
			if !ok {
				known := strings.Join(slices.Sorted(maps.Keys(k)), ", ")
				if strings.Contains(path, "[") { // in a list of tokens: the key itself may be a token
					return d.fault(key, "unknown key in %s: known here: %s", path, known)
				}
				d.secret = d.secret || namedLikeToken(name)
				return d.fault(key, "unknown key %q: known here: %s", join(path, name), known)
			}
			if line, again := first[name]; again {
				return d.fault(key, "%s is given twice, first on line %d", join(path, name), line)
			}
			first[name] = key.Position.Line
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

// optional reads an empty value as an empty list.
func optional(list reader) reader {
	return func(d *document, path string, n ast.Node) error {
		if n.Type() == ast.NullType {
			return nil
		}
		return list(d, path, n)
	}
}

// wrong returns the fault of a value that has the wrong type.
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
	if path == "" {
		path = "the file"
	}
	if want == "text" && got == "a number" {
		got = "a number (put it in quotes)"
	}
	return d.fault(n.GetToken(), "%s: want %s, got %s", path, want, got)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
