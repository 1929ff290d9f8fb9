package main

import (
	"strings"
	"testing"
)

// TestConfigMessageShowsNoTokenHoweverItIsWritten has tokens that are written in wrong ways,
// some of them under misspelt keys.
func TestConfigMessageShowsNoTokenHoweverItIsWritten(t *testing.T) {
	const secret = "s3cr3t-Zq"
	for _, src := range []string{
		"token: '" + secret + " x'\n",
		"token: a " + secret + "\n",
		"token: a: " + secret + "\n",
		"token: 'it''s " + secret + "'\n",
		"token: \"a\\\"b " + secret + "\"\n",
		"token: !!str " + secret + "\n",
		"token: \"a\"" + secret + "\n",
		"token: &a " + secret + "\n",
		"token: *" + secret + "\n",
		"token: |\n  " + secret + "\n",
		"token: {" + secret + ": 1}\n",
		"token:" + secret + "\n",
		"token = " + secret + "\n",
		"TOKEN=" + secret + "\n",
		"? token\n: " + secret + "\n",
		"Token: " + secret + "\n",
		"tokn: " + secret + "\n",
		"tokne: " + secret + "\n",
		"toekn: '" + secret + "\n",
		"tokem: " + secret + "\n",
		"toke: " + secret + "\n",
		"t0ken: " + secret + "\n",
		"\"tokem\":" + secret + "\n",
		"? tokem\n: " + secret + "\n",
		"{listen: 5, tokens_: " + secret + "}\n",
		"{listen: x, tokn: " + secret + "}\n",
		"tokens: " + secret + "\n",
		"tokens: [" + secret + "]\n",
		"tokens:\n  - " + secret + "\n",
		"tokens:\n  - '" + secret + "\n",
		"tokens: [a, " + secret + "]\n",
		"tokens: [{token: a " + secret + "}]\n",
		"tokens: [{token: !!str " + secret + "}]\n",
		"tokens: [{token: \"a,\\\" " + secret + "\"}]\n",
		"tokens: [{token: a}, {token: \"" + secret + "\", accounts: 5}]\n",
		"tokens: [{token: " + secret + ", rôle: x, \"token\": \"" + secret + "\"}]\n",
		"tokens: [{token: \"" + secret + "\"\n",
		"token: " + secret + "\ntokens: [{\"token\": " + secret + "}]\n",
		"tokens: [{token: '" + secret + "', accounts: 5}]\n",
		"token: \"\"\ntokens: []\n- " + secret + "\n",
		"token: \"\"\ntokens: []\n- " + secret + "==\n",
		"tokens: [{" + secret + ": [shop]}]\n",
	} {
		_, err := ParseConfig("config.yml", []byte(src), noEnv)
		if err == nil {
			t.Errorf("%q: accepted", src)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the message shows the token:\n%v", src, err)
		} else if !strings.HasPrefix(err.Error(), "config.yml:") {
			t.Errorf("%q: the message does not begin with the place:\n%v", src, err)
		}
	}
}

func TestConfigMessageShowsTheLineOfAFileWithoutTokens(t *testing.T) {
	for _, before := range []string{"", "# token: is not set\n", "token: \"\"\n", "tokens: []\n", "tokens_file: /etc/t\n", "tls: {cert: a, key: b}\n", "socket: {mode: '0660'}\n"} {
		for _, line := range []string{"limits: {wait: 1h, dur: 1d}", "bogus: 5", "log: {segment: 64MiB"} {
			_, err := ParseConfig("config.yml", []byte(before+line+"\n"), noEnv)
			if err == nil || !strings.Contains(err.Error(), "\n    "+line) {
				t.Errorf("after %q: got %v\nwant in it: %s", before, err, line)
			}
		}
	}
}

func TestBlockOfLinesIsNamedAsSuch(t *testing.T) {
	_, err := ParseConfig("config.yml", []byte("data: |\n  d\n"), noEnv)
	if err == nil || !strings.Contains(err.Error(), "data: want text, got a block of lines (| or >)") {
		t.Errorf("got %v", err)
	}
}

func TestNothingBelowAKeyMeansItsDefault(t *testing.T) {
	for _, src := range []string{"limits:\n", "tls:\n", "log:\ntokens:\n", "socket: ~\n", "front: null\nlimits:\n  # wait: 5\n"} {
		c, err := ParseConfig("config.yml", []byte(src), noEnv)
		if d := Defaults(); err != nil || c.Limits != d.Limits || c.Socket != d.Socket || c.Front != d.Front || c.Segment != d.Segment || c.hasToken() {
			t.Errorf("%q: got %+v, %v; want the defaults", src, c, err)
		}
	}
}
