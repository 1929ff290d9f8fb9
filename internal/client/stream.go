package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Stream sends a GET and returns the answer's header, and its body to be read as it
// arrives. typ is the Content-Type that the answer must have. The request and each read of
// the body fail with an *Error, also if nothing arrives for the time idle.
func (s *Server) Stream(ctx context.Context, path, typ string, idle time.Duration) (http.Header, io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &stream{server: s, idle: idle, cancel: cancel}
	b.timer = time.AfterFunc(idle, func() { cancel(fmt.Errorf("nothing arrived for %s", idle)) })
	b.ctx = ctx
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		b.end()
		return nil, nil, &Error{Reason: BadRequest, Line: err.Error()}
	}
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	response, err := s.http.Do(r)
	if err != nil {
		err = s.unanswered(b.cause(err))
		b.end()
		return nil, nil, err
	}
	b.body = response.Body
	switch {
	case response.StatusCode != http.StatusOK:
		line, _ := io.ReadAll(io.LimitReader(response.Body, 4096)) // a part of the line will do
		return nil, nil, errors.Join(s.refused(response, string(line)), b.Close())
	case response.Header.Get("Content-Type") != typ:
		return nil, nil, errors.Join(&Error{Foreign, response.StatusCode, fmt.Sprintf("%s answers %q with %q, want %q: is it a Cloud Dragon server?",
			s, path, response.Header.Get("Content-Type"), typ)}, b.Close())
	}
	return response.Header, b, nil
}

type stream struct {
	server *Server
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration
	body   io.ReadCloser
}

func (b *stream) Read(p []byte) (int, error) {
	b.timer.Reset(b.idle)
	n, err := b.body.Read(p)
	if err != nil && err != io.EOF {
		err = b.server.unanswered(b.cause(err))
	}
	return n, err
}

// cause returns why the context ended, if it did, else err.
func (b *stream) cause(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	return err
}

func (b *stream) end() {
	b.timer.Stop()
	b.cancel(nil)
}

func (b *stream) Close() error {
	b.end()
	return b.body.Close()
}
