package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// work has the same calls for servers that speak http, resp or etcd. A protocol is missing if
// its server cannot do the work.
type work map[string]protocol

// protocol is what a connection sends, and how it parses the answers.
type protocol struct {
	// requests are sent in turn. In each of them <any-id> stands for what the crowd's id
	// returns, <client> for the connection's number, <serial> for how many requests the
	// connection has sent with this one, and <random> for any number. The number has
	// 8 digits, so a request is as long as its template.
	requests []string
	calls    int // in one request
	// answer returns the size of the answer at the beginning of b, 0 if it is not complete, or an error if it is a refusal.
	answer func(b []byte) (size int, err error)
}

var errRefused = errors.New("a refusal")

// overHTTP returns the protocol for calls of the form "METHOD PATH", with headers on further
// lines and the body after an empty line.
func overHTTP(calls ...string) protocol {
	p := protocol{calls: 1, answer: httpAnswer}
	for _, call := range calls {
		head, body, _ := strings.Cut(call, "\n\n")
		head += "\nHost: localhost"
		if body != "" {
			head += fmt.Sprintf("\nContent-Length: %d", len(body))
		}
		head = strings.Replace(head, "\n", " HTTP/1.1\n", 1) + "\n\n"
		p.requests = append(p.requests, strings.ReplaceAll(head, "\n", "\r\n")+body)
	}
	return p
}

// overRESP returns the protocol for a command of Redis.
func overRESP(words ...string) protocol {
	request := fmt.Sprintf("*%d\r\n", len(words))
	for _, word := range words {
		request += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
	}
	return protocol{[]string{request}, 1, respAnswer}
}

// inBase64 encodes keys and values for etcd's HTTP gateway. Eight digits are valid base64
// already.
func inBase64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// appendRequest appends the connection's next request.
func (w *wire) appendRequest(b []byte) []byte {
	text := w.requests[w.k%len(w.requests)]
	for {
		literal, rest, found := strings.Cut(text, "<")
		b = append(b, literal...)
		if !found {
			break
		}
		name, rest, _ := strings.Cut(rest, ">")
		var n int
		switch name {
		case "any-id":
			n = w.id(w.sent)
		case "client":
			n = w.conn
		case "serial":
			n = w.k + 1
		case "random":
			n = rand.IntN(100_000_000)
		default:
			panic("bench: a request has <" + name + ">")
		}
		for place := 10_000_000; place > 0; place /= 10 {
			b = append(b, byte('0'+n/place%10))
		}
		text = rest
	}
	w.k++
	w.sent++
	return b
}

var headEnd, contentLength = []byte("\r\n\r\n"), []byte("\r\nContent-Length: ")

// httpAnswer parses answers that have a Content-Length, no body, or JSON in chunks.
func httpAnswer(b []byte) (int, error) {
	head, body, whole := bytes.Cut(b, headEnd)
	if !whole {
		return 0, nil
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 2")) {
		return 0, fmt.Errorf("%w: %q", errRefused, b)
	}
	size := len(head) + len(headEnd)
	if bytes.HasPrefix(head, []byte("HTTP/1.1 204")) {
		return size, nil
	}
	if bytes.Contains(head, []byte("\r\nTransfer-Encoding: chunked")) {
		last := []byte("\r\n0\r\n\r\n") // JSON has no line breaks
		at := bytes.Index(body, last)
		if at < 0 {
			return 0, nil
		}
		return size + at + len(last), nil
	}
	_, length, _ := bytes.Cut(head, contentLength)
	length, _, _ = bytes.Cut(length, []byte("\r"))
	n, err := strconv.Atoi(string(length))
	if err != nil {
		return 0, fmt.Errorf("an answer without a length: %q", b)
	}
	if n > len(body) {
		return 0, nil
	}
	return size + n, nil
}

// respAnswer parses answers that are a number, a word or a value.
func respAnswer(b []byte) (int, error) {
	line, rest, whole := bytes.Cut(b, []byte("\r\n"))
	if !whole {
		return 0, nil
	}
	size := len(line) + 2
	switch b[0] {
	case '+', ':':
		return size, nil
	case '$':
		if n, err := strconv.Atoi(string(line[1:])); err == nil && n >= 0 {
			if n+2 > len(rest) {
				return 0, nil
			}
			return size + n + 2, nil
		}
	}
	return 0, fmt.Errorf("%w: %q", errRefused, line)
}
