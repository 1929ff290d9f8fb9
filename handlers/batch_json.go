package handlers

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"unicode/utf8"
)

// parseJSON parses a batch that is an array of objects. It reads a stream of tokens and
// builds no tree of values.
func (b *batch) parseJSON(body []byte) error {
	d, err := openJSON(body, '[', `the JSON of a batch must be an array such as [{"method":"POST","path":"counter/a"}]`)
	if err != nil {
		return err
	}
	for n := 0; d.More(); n++ {
		if err := b.jsonItem(d, n); err != nil {
			return err
		}
	}
	return closeJSON(d)
}

// jsonItem reads one call.
func (b *batch) jsonItem(d *json.Decoder, n int) error {
	place := b.place(n)
	t, err := d.Token()
	if err != nil {
		return badJSON(err)
	}
	if t != json.Delim('{') {
		return badRequest(`%s: a call must be an object such as {"method":"POST","path":"counter/a"}`, place)
	}
	fields := make(map[string]string, 4)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return badJSON(err)
		}
		field, ok := t.(string)
		if !ok {
			return badRequest("%s: the JSON is malformed: a name must be a string", place)
		}
		switch field {
		case "method", "path", "body", "body64", "type":
		default:
			return badRequest("%s: unknown field %s: a call has method, path, body or body64, and type", place, quote(field))
		}
		if _, twice := fields[field]; twice {
			return badRequest("%s: %s is given twice", place, field)
		}
		if t, err = d.Token(); err != nil {
			return badJSON(err)
		}
		value, ok := t.(string)
		if !ok {
			return badRequest("%s: %s must be a string", place, field)
		}
		fields[field] = value
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return badJSON(err)
	}
	return b.addJSON(fields, n)
}

func (b *batch) addJSON(fields map[string]string, n int) error {
	var value []byte
	body, hasBody := fields["body"]
	body64, has64 := fields["body64"]
	switch {
	case hasBody && has64:
		return badRequest("%s: body and body64 exclude each other: give one of them", b.place(n))
	case has64:
		data, err := base64.StdEncoding.Strict().DecodeString(body64)
		if err != nil {
			return badRequest("%s: body64 is not base64", b.place(n))
		}
		value = append([]byte{}, data...)
	case hasBody:
		value = append([]byte{}, body...)
	}
	return b.add(n, fields["method"], fields["path"], value, fields["type"])
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
	case r.hasNumber:
		item.Value = &r.number
		if r.number > maxExact || r.number < -maxExact {
			item.Text = strconv.FormatInt(r.number, 10)
		}
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
