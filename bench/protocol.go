package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// protocol is how a connection asks for work, and how it reads what comes back.
type protocol struct {
	// request appends request number k of a connection, for an id.
	request func(b []byte, conn, k, id int) []byte
	// answer returns the size of the answer that b begins with, 0 if it is not whole, or an error if it is a refusal.
	answer func(b []byte) (size int, err error)
}

// overHTTP sends "METHOD PATH" with the id behind it, and a body of so many bytes.
func overHTTP(call string, size int) protocol {
	tail := " HTTP/1.1\r\nHost: localhost\r\n\r\n"
	if size > 0 {
		tail = fmt.Sprintf(" HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("v", size))
	}
	return protocol{func(b []byte, _, _, id int) []byte {
		return append(strconv.AppendInt(append(b, call...), int64(id), 10), tail...)
	}, httpAnswer}
}

// retriable sends a call with an Idempotency-Key that is used once.
func retriable(call string) protocol {
	return protocol{func(b []byte, _, _, id int) []byte {
		return fmt.Appendf(b, "%s%d HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: %016x\r\n\r\n", call, id, rand.Uint64())
	}, httpAnswer}
}

// batchOf sends perBatch calls in one batch, each with an id of its own.
func batchOf(call, value string, ids int) protocol {
	return protocol{func(b []byte, _, _, _ int) []byte {
		var lines []byte
		for range perBatch {
			lines = append(strconv.AppendInt(append(lines, call...), int64(1+rand.IntN(ids)), 10), value...)
			lines = append(lines, '\n')
		}
		return append(fmt.Appendf(b, "POST /db/many/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", len(lines)), lines...)
	}, httpAnswer}
}

// repeated sends perBatch commands at once, each with an id of its own.
func repeated(p protocol, ids int) protocol {
	return protocol{func(b []byte, conn, k, _ int) []byte {
		for range perBatch {
			b = p.request(b, conn, k, 1+rand.IntN(ids))
		}
		return b
	}, func(b []byte) (size int, err error) {
		for range perBatch {
			n, err := p.answer(b[size:])
			if n == 0 || err != nil {
				return 0, err
			}
			size += n
		}
		return size, nil
	}}
}

// pair locks and unlocks in turn. Each connection has an id of its own.
func pair(lock, unlock string) protocol {
	return protocol{func(b []byte, conn, k, _ int) []byte {
		call, tail := lock, "?id=bench&dur=60 HTTP/1.1\r\nHost: localhost\r\n\r\n"
		if k%2 == 1 {
			call, tail = unlock, "?id=bench HTTP/1.1\r\nHost: localhost\r\n\r\n"
		}
		return append(strconv.AppendInt(append(b, call...), int64(conn), 10), tail...)
	}, httpAnswer}
}

// rated counts against a rate of an id, which never refuses.
func rated(head string) protocol {
	return protocol{func(b []byte, _, _, id int) []byte {
		return append(strconv.AppendInt(append(b, head...), int64(id), 10), "?limit=1000000&per=10000h HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"...)
	}, httpAnswer}
}

// ring locks and unlocks in turn, and waits for the lock. All connections ask for the
// same one, each under a name of its own. mode is a further parameter, "&limit=3".
func ring(lock, unlock, mode string) protocol {
	return protocol{func(b []byte, conn, k, _ int) []byte {
		if k%2 == 1 {
			return fmt.Appendf(b, "%sone?id=%d HTTP/1.1\r\nHost: localhost\r\n\r\n", unlock, conn)
		}
		return fmt.Appendf(b, "%sone?id=%d&dur=60&wait=60%s HTTP/1.1\r\nHost: localhost\r\n\r\n", lock, conn, mode)
	}, httpAnswer}
}

// overRESP sends a command of Redis for a key, and a value of so many bytes.
func overRESP(command, key string, size int) protocol {
	parts, tail := 2, "\r\n"
	if size > 0 {
		parts, tail = 3, fmt.Sprintf("\r\n$%d\r\n%s\r\n", size, strings.Repeat("v", size))
	}
	const digits = 8
	head := fmt.Sprintf("*%d\r\n$%d\r\n%s\r\n$%d\r\n%s:", parts, len(command), command, len(key)+1+digits, key)
	return protocol{func(b []byte, _, _, id int) []byte {
		b = append(b, head...)
		for place := 10_000_000; place > 0; place /= 10 {
			b = append(b, byte('0'+id/place%10))
		}
		return append(b, tail...)
	}, respAnswer}
}

// overEtcd puts a value through etcd's HTTP gateway, whose keys and values are
// base64. Eight digits are base64 as they are.
func overEtcd(size int) protocol {
	tail := `","value":"` + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("v", size))) + `"}`
	head := fmt.Sprintf("POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", len(`{"key":"00000000`)+len(tail))
	return protocol{func(b []byte, _, _, id int) []byte {
		return append(fmt.Appendf(append(b, head...), `{"key":"%08d`, id), tail...)
	}, httpAnswer}
}

var headEnd, contentLength = []byte("\r\n\r\n"), []byte("\r\nContent-Length: ")

// httpAnswer is for answers that have a Content-Length or no body.
func httpAnswer(b []byte) (int, error) {
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return 0, nil
	}
	head := b[:end+2]
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 2")) {
		return 0, fmt.Errorf("a refusal: %q", b)
	}
	size := end + len(headEnd)
	if bytes.HasPrefix(head, []byte("HTTP/1.1 204")) {
		return size, nil
	}
	at := bytes.Index(head, contentLength)
	if at < 0 {
		return 0, fmt.Errorf("an answer without a length: %q", b)
	}
	length, _, _ := bytes.Cut(head[at+len(contentLength):], []byte("\r"))
	n, err := strconv.Atoi(string(length))
	if err != nil {
		return 0, fmt.Errorf("an answer without a length: %q", b)
	}
	if size += n; size > len(b) {
		return 0, nil
	}
	return size, nil
}

// respAnswer is for answers that are a number, a word or a value.
func respAnswer(b []byte) (int, error) {
	end := bytes.Index(b, []byte("\r\n"))
	if end < 0 {
		return 0, nil
	}
	size := end + 2
	switch b[0] {
	case '+', ':':
		return size, nil
	case '$':
		if n, err := strconv.Atoi(string(b[1:end])); err == nil && n >= 0 {
			if size += n + 2; size > len(b) {
				return 0, nil
			}
			return size, nil
		}
	}
	return 0, fmt.Errorf("a refusal: %q", b[:end])
}

// epollWait is epoll_pwait2, which counts in ns where epoll_wait counts in ms.
func epollWait(epoll int, events []unix.EpollEvent, timeout time.Duration) (int, error) {
	t := unix.NsecToTimespec(int64(timeout))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(&t)), 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("epoll_pwait2: %w", errno)
	}
	return int(n), nil
}
