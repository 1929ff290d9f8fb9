package main

import (
	"bytes"
	"fmt"
	"strconv"
)

// protocol is how a generator asks for a row's work, and how it reads what
// comes back.
type protocol struct {
	request func(b []byte, id int) []byte // appends the request for an id, without the body
	body    []byte                        // that each request ends with
	// answer looks at the beginning of an answer and returns how long its head and
	// its body are: a head of 0, if more has to come to tell.
	answer func(b []byte) (head, body int, err error)
}

// overHTTP asks for the row's work as its wrk script does.
func overHTTP(r *row) protocol {
	begin := fmt.Sprintf("%s /db/%s/%s/", r.method, r.acc, r.api)
	end := " HTTP/1.1\r\nHost: localhost\r\n\r\n"
	var body []byte
	if r.method == "POST" && r.value > 0 {
		body = []byte(r.body())
		end = fmt.Sprintf(" HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", len(body))
	}
	return protocol{func(b []byte, id int) []byte {
		return append(strconv.AppendInt(append(b, begin...), int64(id), 10), end...)
	}, body, httpAnswer}
}

var headEnd, contentLength = []byte("\r\n\r\n"), []byte("\r\nContent-Length: ")

// httpAnswer is for answers with a length, as our server and the empty one give.
func httpAnswer(b []byte) (head, body int, err error) {
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return 0, 0, nil
	}
	head = end + len(headEnd)
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 2")) {
		return 0, 0, fmt.Errorf("a refusal: %q", b)
	}
	if bytes.HasPrefix(b, []byte("HTTP/1.1 204")) {
		return head, 0, nil
	}
	_, length, ok := bytes.Cut(b[:head], contentLength)
	if !ok {
		return 0, 0, fmt.Errorf("an answer without a length: %q", b)
	}
	length, _, _ = bytes.Cut(length, []byte("\r\n"))
	body, err = strconv.Atoi(string(length))
	return head, body, err
}

// overRedis asks Redis for the same work, for the keys that redis-benchmark uses.
func overRedis(r *row) protocol {
	end := "\r\n"
	command, key := "INCR", "counter"
	switch {
	case r.method == "GET":
		command, key = "GET", "key"
	case r.value > 0:
		command, key = "SET", "key"
	}
	parts := 2
	var body []byte
	if command == "SET" {
		parts = 3
		body = []byte(r.body() + "\r\n")
		end = fmt.Sprintf("\r\n$%d\r\n", r.value)
	}
	const digits = 12
	begin := fmt.Sprintf("*%d\r\n$%d\r\n%s\r\n$%d\r\n%s:", parts, len(command), command, len(key)+1+digits, key)
	return protocol{func(b []byte, id int) []byte {
		return append(fmt.Appendf(append(b, begin...), "%0*d", digits, id), end...)
	}, body, redisAnswer}
}

// redisAnswer is for answers that are a number, a word or a value.
func redisAnswer(b []byte) (head, body int, err error) {
	line, _, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok {
		return 0, 0, nil
	}
	if len(line) > 0 {
		switch line[0] {
		case '+', ':':
			return len(line) + 2, 0, nil
		case '$':
			if n, err := strconv.Atoi(string(line[1:])); err == nil && n >= 0 {
				return len(line) + 2, n + 2, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("a refusal: %q", line)
}
