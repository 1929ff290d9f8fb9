package main

import (
	"strings"
	"testing"
)

// TestConfigMessageShowsNoTokenHoweverItIsWritten has tokens that are written
// as they should not be.
func TestConfigMessageShowsNoTokenHoweverItIsWritten(t *testing.T) {
	const secret = "s3cr3t-Zq"
	for _, src := range []string{
		"token: a " + secret + "\n",
		"token: a: " + secret + "\n",
		"token: 'it''s " + secret + "'\n",
		"token: \"a\\\"b " + secret + "\"\n",
		"token: !!str " + secret + "\n",
		"token: \"a\"" + secret + "\n",
		"Token: " + secret + "\n",
		"tokens: " + secret + "\n",
		"tokens: [" + secret + "]\n",
		"tokens:\n  - " + secret + "\n",
		"tokens: [a, " + secret + "]\n",
		"tokens: [{token: a " + secret + "}]\n",
		"tokens: [{token: !!str " + secret + "}]\n",
		"tokens: [{token: \"a,\\\" " + secret + "\"}]\n",
		"tokens: [{token: a}, {token: \"" + secret + "\", accounts: 5}]\n",
	} {
		_, err := ParseConfig("config.yml", []byte(src), noEnv)
		if err == nil {
			t.Errorf("%q: accepted", src)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the message shows the token:\n%v", src, err)
		}
	}
}

func TestConfigMessageHidesNothingElse(t *testing.T) {
	for _, line := range []string{
		"tokens: [{token: **, accounts: 5}]",
		"tokens: [{token: ****, readonly: 1}, {accounts: [a]}]",
	} {
		_, err := ParseConfig("config.yml", []byte(strings.NewReplacer("****", "'a,'", "**", "ab").Replace(line)), noEnv)
		if err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("got %v\nwant in it: %s", err, line)
		}
	}
}

func TestBlockOfLinesIsNamedAsSuch(t *testing.T) {
	_, err := ParseConfig("config.yml", []byte("data: |\n  d\n"), noEnv)
	if err == nil || !strings.Contains(err.Error(), "data: want text, got a block of lines (| or >)") {
		t.Errorf("got %v", err)
	}
}
