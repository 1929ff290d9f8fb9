package handlers

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"net/http"
)

// page is the status page: one file with its own style and script. It holds no data, so it
// needs no token. Its script fetches the data, with a token if one is needed.
//
//go:embed page.html
var page []byte

var (
	textHTML   = []string{"text/html; charset=utf-8"}
	noReferrer = []string{"no-referrer"}
	pagePolicy = []string{contentPolicy(page)}
)

// contentPolicy lets the page use its own style and script, send requests to its own
// server, and nothing else. So stored data could do no harm even if it became markup.
func contentPolicy(page []byte) string {
	return "default-src 'none'; connect-src 'self'; img-src data:" +
		"; style-src " + hashOf(page, "<style>", "</style>") +
		"; script-src " + hashOf(page, `<script type="module">`, "</script>") +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
		"; require-trusted-types-for 'script'; trusted-types 'none'"
}

// hashOf returns the hash of the text between two tags, as a Content-Security-Policy needs it.
func hashOf(page []byte, from, to string) string {
	_, rest, found := bytes.Cut(page, []byte(from))
	text, _, ended := bytes.Cut(rest, []byte(to))
	if !found || !ended {
		panic("handlers: page.html has no " + from)
	}
	sum := sha256.Sum256(text)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// GET /
func getPage(_ *server, c *call) error {
	h := c.w.Header()
	h["Content-Security-Policy"] = pagePolicy
	h["Referrer-Policy"] = noReferrer
	h["X-Content-Type-Options"] = noSniff
	c.status, c.ctype, c.body = http.StatusOK, textHTML, page
	return nil
}
