package handlers

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf8"
)

// parseJSON parses a batch that is an array of objects. encoding/json checks the body as a
// whole. Then each call is read where it stands, because a json.Decoder takes longer to
// return its strings than the rest of a call takes.
func (b *batch) parseJSON(body []byte) error {
	if err := checkJSON(body); err != nil {
		return err
	}
	text := validJSON{body}
	if text.next() != '[' {
		return badRequest(`the JSON of a batch must be an array such as [{"method":"POST","path":"counter/a"}]`)
	}
	b.items = make([]item, 0, min(b.s.limits.Batch, bytes.Count(body, []byte{'{'})))
	for n := 0; text.more(']', n > 0); n++ {
		if err := b.jsonItem(&text, n); err != nil {
			return err
		}
	}
	return nil
}

// checkJSON refuses a body that is not one JSON value.
func checkJSON(body []byte) error {
	if err := checkJSONText(body); err != nil {
		return err
	}
	if json.Valid(body) {
		return nil
	}
	// The decoder says what is wrong.
	d := json.NewDecoder(bytes.NewReader(body))
	var value json.RawMessage
	if err := d.Decode(&value); err != nil {
		return badJSON(err)
	}
	return errMoreJSON
}

// validJSON is the rest of a text that json.Valid has accepted.
type validJSON struct{ rest []byte }

// next returns the first byte that is not white space, and removes it.
func (v *validJSON) next() byte {
	for i, c := range v.rest {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			v.rest = v.rest[i+1:]
			return c
		}
	}
	panic("handlers: valid JSON ends too early")
}

// more reports whether another element of an array or an object follows, and removes the
// comma before it, or the closing delimiter. after says that elements were read before.
func (v *validJSON) more(closing byte, after bool) bool {
	before := v.rest
	c := v.next()
	if c == closing {
		return false
	}
	if !after { // what was read belongs to the element
		v.rest = before
	}
	return true
}

// text reads a string. If the value is no string, it returns false and reads nothing of use.
func (v *validJSON) text() (string, bool) {
	if v.next() != '"' {
		return "", false
	}
	escaped := false
	for i := 0; ; i++ {
		switch v.rest[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			inside := v.rest[:i]
			v.rest = v.rest[i+1:]
			if !escaped {
				return string(inside), true
			}
			var s string
			err := json.Unmarshal(slices.Concat([]byte{'"'}, inside, []byte{'"'}), &s)
			return s, err == nil
		}
	}
}

// jsonFields are the names in the object of a call.
var jsonFields = [...]string{"method", "path", "body", "body64", "type"}

// jsonCall has the values of jsonFields; nil: not given.
type jsonCall [len(jsonFields)]*string

// jsonItem reads one call.
func (b *batch) jsonItem(text *validJSON, n int) error {
	if text.next() != '{' {
		return badRequest(`%s: a call must be an object such as {"method":"POST","path":"counter/a"}`, b.place(n))
	}
	var call jsonCall
	var room [len(jsonFields)]string
	for read := 0; text.more('}', read > 0); read++ {
		field, _ := text.text()
		i := slices.Index(jsonFields[:], field)
		if i < 0 {
			return badRequest("%s: unknown field %s: a call has method, path, body or body64, and type", b.place(n), quote(field))
		}
		if call[i] != nil {
			return badRequest("%s: %s is given twice", b.place(n), field)
		}
		text.next() // the colon
		var ok bool
		if room[i], ok = text.text(); !ok {
			return badRequest("%s: %s must be a string", b.place(n), field)
		}
		call[i] = &room[i]
	}
	return b.addJSON(&call, n)
}

func (b *batch) addJSON(call *jsonCall, n int) error {
	var value []byte
	body, body64 := call[2], call[3]
	switch {
	case body != nil && body64 != nil:
		return badRequest("%s: body and body64 exclude each other: give one of them", b.place(n))
	case body64 != nil:
		data, err := base64.StdEncoding.Strict().DecodeString(*body64)
		if err != nil {
			return badRequest("%s: body64 is not base64", b.place(n))
		}
		value = append([]byte{}, data...)
	case body != nil:
		value = append([]byte{}, *body...)
	}
	given := func(i int) string {
		if call[i] == nil {
			return ""
		}
		return *call[i]
	}
	return b.add(n, given(0), given(1), value, given(4))
}

// itemJSON is one result of a batch.
type itemJSON struct {
	Status  int     `json:"status"`
	Value   *int64  `json:"value,omitempty"`
	Text    string  `json:"text,omitempty"` // Value, if JavaScript cannot represent it
	Body    *string `json:"body,omitempty"`
	Body64  []byte  `json:"body64,omitempty"` // instead of Body, if it is not UTF-8
	Version int64   `json:"version,omitempty"`
	Type    string  `json:"type,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// appendItem appends the result of one call: a line or an object.
func (r *result) appendItem(b []byte, asJSON bool) ([]byte, error) {
	if !asJSON {
		return r.appendLine(b)
	}
	item := itemJSON{Status: r.status, Error: r.line}
	switch {
	case r.hasNumber && r.number <= maxExact && r.number >= -maxExact: // without reflection: most calls of most batches
		b = append(b, `{"status":`...)
		b = strconv.AppendInt(b, int64(r.status), 10)
		b = append(b, `,"value":`...)
		b = strconv.AppendInt(b, r.number, 10)
		return append(b, '}'), nil
	case r.hasNumber:
		item.Value = &r.number
		item.Text = strconv.FormatInt(r.number, 10)
	case r.value != nil:
		item.Version, item.Type = r.value.Version, r.value.Type
		if utf8.Valid(r.value.Data) {
			text := string(r.value.Data)
			item.Body = &text
		} else {
			item.Body64 = r.value.Data
		}
	case r.json != nil:
		fields, err := json.Marshal(r.json)
		if err != nil {
			return b, err
		}
		b = append(b, `{"status":`...)
		b = strconv.AppendInt(b, int64(r.status), 10)
		b = append(b, ',')
		return append(b, fields[1:]...), nil
	}
	object, err := json.Marshal(item)
	return append(b, object...), err
}

// appendLine appends a result as a line: the status, and the body of the single call.
func (r *result) appendLine(b []byte) ([]byte, error) {
	b = strconv.AppendInt(b, int64(r.status), 10)
	switch {
	case r.hasNumber:
		b = append(b, ' ')
		b = strconv.AppendInt(b, r.number, 10)
	case r.value != nil:
		b = append(b, ' ')
		b = append(b, r.value.Data...)
	case r.json != nil:
		fields, err := json.Marshal(r.json)
		if err != nil {
			return b, err
		}
		b = append(b, ' ')
		b = append(b, fields...)
	case r.status >= http.StatusBadRequest:
		b = append(b, ' ')
		b = append(b, r.line...)
	}
	return append(b, '\n'), nil
}
