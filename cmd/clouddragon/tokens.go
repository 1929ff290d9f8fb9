package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

// Token is a token of the list tokens, which may have less than full access.
type Token struct {
	Token    string
	Accounts []string // none: all
	ReadOnly bool
}

// readTokensFile adds the tokens of tokens_file. d is the document that names the file.
func (c *Config) readTokensFile(d *document) error {
	at := d.at["tokens_file"]
	f, err := os.Open(c.TokensFile)
	if err != nil {
		return d.fault(at, "tokens_file: %v", err)
	}
	defer f.Close() // opened for reading only
	info, err := f.Stat()
	if err != nil {
		return d.fault(at, "tokens_file: %v", err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return d.fault(at, "tokens_file: %v", err)
	}
	known := len(c.Tokens)
	td, err := readYAML(c.TokensFile, data, true, list(tokenReader(&c.Tokens)))
	if err != nil {
		return err
	}
	if len(c.Tokens) == known {
		return d.fault(at, "tokens_file: %s lists no token: list one, or remove the key", c.TokensFile)
	}
	if mode := info.Mode().Perm(); mode&0o004 != 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("tokens_file %s may be read by every user of this machine (mode %04o): chmod o= it", c.TokensFile, mode))
	}
	return c.distinct(func(i int) (*document, string) {
		if i < known {
			return d, fmt.Sprintf("tokens[%d].token", i)
		}
		return td, fmt.Sprintf("[%d].token", i-known)
	})
}

// distinct refuses a token that is listed twice. at returns the place of a token.
func (c *Config) distinct(at func(i int) (*document, string)) error {
	seen := map[string]string{c.Token: "the one with full access"}
	for i, t := range c.Tokens {
		d, path := at(i)
		if other, again := seen[t.Token]; again {
			return d.fault(d.at[path], "%s: the same token as %s", path, other)
		}
		seen[t.Token] = path
	}
	return nil
}

// hasToken reports whether clients need a token.
func (c *Config) hasToken() bool {
	return c.Token != "" || len(c.Tokens) > 0 || c.TokensFile != ""
}

// tokenReader appends one item of the list tokens.
func tokenReader(to *[]Token) reader {
	return func(d *document, path string, n ast.Node) error {
		var t Token
		err := mapping(keys{
			"token":    text(&t.Token, checkListedToken),
			"readonly": boolean(&t.ReadOnly),
			"accounts": list(accountReader(&t.Accounts)),
		})(d, path, n)
		if err != nil {
			return err
		}
		if t.Token == "" {
			return d.fault(n.GetToken(), "%s: token is missing", path)
		}
		*to = append(*to, t)
		return nil
	}
}

// accountReader appends one item of a list of accounts.
func accountReader(to *[]string) reader {
	return func(d *document, path string, n ast.Node) error {
		var acc string
		if err := name(&acc, checkAccount)(d, path, n); err != nil {
			return err
		}
		*to = append(*to, acc)
		return nil
	}
}

// checkToken refuses a token that an Authorization header cannot hold.
func checkToken(s string) error {
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsSpace(r) || unicode.IsControl(r) {
			return errors.New("a token must not have spaces or control characters")
		}
	}
	return nil
}

func checkListedToken(s string) error {
	return errors.Join(notEmpty(s), checkToken(s))
}

// checkAccount accepts the names that routes accept as :acc.
func checkAccount(s string) error {
	switch {
	case len(s) < 1 || len(s) > 64:
		return fmt.Errorf("an account has 1 to 64 bytes, got %d", len(s))
	case strings.ContainsRune(s, 0):
		return errors.New("an account must not have a NUL in it")
	case s == "." || s == "..":
		return fmt.Errorf("%q is not a possible name of an account", s)
	}
	return nil
}
