package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// withTokensFile loads a configuration with a tokens_file of that text and mode.
func withTokensFile(t *testing.T, config, tokens string, mode os.FileMode) (c Config, file string, err error) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "tokens.yml")
	for name, text := range map[string]string{file: tokens, filepath.Join(dir, "config.yml"): "tokens_file: " + file + "\n" + config} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	c, err = LoadConfig(filepath.Join(dir, "config.yml"), noEnv)
	return c, file, err
}

func TestTokensFileIsTheSameListAsTokens(t *testing.T) {
	c, _, err := withTokensFile(t, "listen: 0.0.0.0:80\ntokens: [{token: a}]\n", "# mine\n- {token: b, accounts: [shop], readonly: true}\n- token: c\n", 0o640)
	want := []Token{{Token: "a"}, {Token: "b", Accounts: []string{"shop"}, ReadOnly: true}, {Token: "c"}}
	if err != nil || !reflect.DeepEqual(c.Tokens, want) || c.warnings != nil {
		t.Errorf("got %+v, warnings %q, %v; want %+v", c.Tokens, c.warnings, err, want)
	}
}

func TestTokensFileThatOthersMayReadIsAWarning(t *testing.T) {
	c, file, err := withTokensFile(t, "", "- token: b\n", 0o644)
	if err != nil || len(c.warnings) != 1 || !strings.Contains(c.warnings[0], file+" may be read by every user of this machine (mode 0644)") {
		t.Errorf("got warnings %q, %v", c.warnings, err)
	}
}

func TestFaultyTokensFileShowsThePlaceAndNoToken(t *testing.T) {
	const secret = "s3cr3t-Zq"
	for _, c := range []struct{ config, tokens, want string }{
		{"", "", "lists no token"},
		{"", "# - token: a\n", "lists no token"},
		{"", "[]\n", "lists no token"},
		{"", "- token: a\n- {token: " + secret + ", acounts: [a]}\n", "tokens.yml:2: unknown key in [1]: known here: accounts, readonly, token"},
		{"", "- " + secret + "\n", "tokens.yml:1: [0]: want a mapping (key: value), got text"},
		{"", "- " + secret + ": [shop]\n", "tokens.yml:1: unknown key in [0]"},
		{"", secret + "\n", "tokens.yml:1: the file: want a list, got text"},
		{"", "tokens:\n- token: " + secret + "\n", "tokens.yml:1: the file: want a list, got a mapping"},
		{"", "- token: '" + secret + "\n", "tokens.yml:1: "},
		{"", "- token: a\n- token: a\n", "tokens.yml:2: [1].token: the same token as [0].token"},
		{"token: a\n", "- token: b\n- token: a\n", "tokens.yml:2: [1].token: the same token as the one with full access"},
		{"tokens: [{token: a}]\n", "- token: a\n", "tokens.yml:1: [0].token: the same token as tokens[0].token"},
	} {
		_, _, err := withTokensFile(t, c.config, c.tokens, 0o600)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q, %q: got %v\nwant in it: %s", c.config, c.tokens, err, c.want)
		}
	}
}

func TestUnknownGroupOfTheSocketIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(file, []byte("listen: unix:/nowhere/s\nsocket:\n  group: no-such-group-here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(file, noEnv); err == nil || !strings.HasPrefix(err.Error(), file+":3: socket.group: ") {
		t.Errorf("got %v", err)
	}
}
