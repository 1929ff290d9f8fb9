package handlers

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxParamsBody is the largest body with parameters, in bytes.
const maxParamsBody = 1 << 20

// The content types of bodies with parameters, and the one of curl --form.
const (
	form      = "application/x-www-form-urlencoded"
	jsonType  = "application/json"
	multipart = "multipart/form-data"
)

// readParams reads parameters from the body of a call whose body is not a value. The body
// is a form or a JSON object. An empty body has no parameters, whatever its type.
func (s *server) readParams(c *call) error {
	if c.r.ContentLength == 0 {
		return nil
	}
	body, err := s.readBody(c, maxParamsBody, "for parameters")
	if err != nil {
		return err // keep the deadline for the rest of the body
	}
	c.patience()
	if len(body) == 0 {
		return nil
	}
	c.sentBody = body
	c.params.place = inBody
	switch typ := mediaType(c.r.Header.Get("Content-Type")); typ {
	case form:
		return c.params.parse(string(body))
	case jsonType:
		return c.params.parseJSON(body)
	case "":
		return badRequest("the body has no Content-Type: %s", howToSend)
	case multipart:
		return badRequest("a multipart form is not read: use curl -d, not curl -F: %s", howToSend)
	default:
		return badRequest("a body of type %s is not read: %s", quote(typ), howToSend)
	}
}

const howToSend = "send parameters in the query (?n=5), as a form (curl -d n=5) or as a JSON object; nothing was done"

// mediaType returns a Content-Type in lower case and without its parameters.
func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// parseJSON parses a JSON object. A number may be given as a string. Nothing else is
// converted: a flag has to be true or false, and text has to be a string.
func (p *params) parseJSON(body []byte) error {
	d, err := openJSON(body, '{', `the JSON in the body must be an object such as {"n":5}`)
	if err != nil {
		return err
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return badJSON(err)
		}
		name, ok := t.(string)
		if !ok {
			return badRequest("the JSON in the body is malformed: a name must be a string")
		}
		if t, err = d.Token(); err != nil {
			return badJSON(err)
		}
		if err := p.takeJSON(name, t); err != nil {
			return err
		}
	}
	return closeJSON(d)
}

// openJSON reads the first token of a body, which must be first; otherwise is the refusal if it is not.
func openJSON(body []byte, first json.Delim, otherwise string) (*json.Decoder, error) {
	if err := checkJSONText(body); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	t, err := d.Token()
	if err != nil {
		return nil, badJSON(err)
	}
	if t != first {
		return nil, badRequest("%s", otherwise)
	}
	return d, nil
}

// closeJSON reads the closing delimiter. Nothing may follow it.
func closeJSON(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return badJSON(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errMoreJSON
	}
	return nil
}

var errMoreJSON = badRequest("the body has more after the JSON")

// checkJSONText refuses text that the decoder would silently change.
func checkJSONText(body []byte) error {
	if !utf8.Valid(body) {
		return badRequest("the JSON in the body is not valid UTF-8")
	}
	if loneSurrogate(body) {
		return badRequest("the JSON in the body has half of a surrogate pair, which is not a character: send the bytes percent-encoded or in base64")
	}
	return nil
}

// badJSON returns a 400 for a body. The decoder's errors have one line and quote at most
// one character.
func badJSON(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return badRequest("the JSON in the body ends too early")
	}
	return badRequest("the JSON in the body is malformed: %s", err)
}

// takeJSON takes one parameter of an object.
func (p *params) takeJSON(name string, value json.Token) error {
	if !slices.Contains(p.names, name) {
		return p.take(name, "")
	}
	kind := kindOf(name)
	switch v := value.(type) {
	case string:
		if kind != flag {
			return p.take(name, v)
		}
	case json.Number:
		if kind == number {
			return p.take(name, v.String())
		}
	case bool:
		if kind == flag {
			return p.take(name, strconv.FormatBool(v))
		}
	}
	return badRequest("in JSON %s must be %s", name, kind)
}

// loneSurrogate reports whether valid JSON has an escape such as \ud800 without its other
// half. The decoder would turn it into U+FFFD, so different ids would become the same.
func loneSurrogate(b []byte) bool {
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return false
		}
		b = b[i:]
		r, ok := escaped(b)
		if !ok {
			b = b[min(2, len(b)):]
			continue
		}
		b = b[6:]
		if !utf16.IsSurrogate(r) {
			continue
		}
		low, _ := escaped(b)
		if utf16.DecodeRune(r, low) == utf8.RuneError {
			return true
		}
		b = b[6:]
	}
}

// escaped returns the UTF-16 code unit of an escape like \u00e9 at the beginning of b.
func escaped(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}
