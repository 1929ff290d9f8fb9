package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// newHTTPServer returns a server with the settings of cmd/clouddragon, since
// each of them has its price.
func newHTTPServer(h http.Handler) *http.Server {
	s := &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            10 * time.Second,
		ReadTimeout:                  30 * time.Second,
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               64 << 10,
		DisableGeneralOptionsHandler: true,
		Protocols:                    new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	return s
}

var (
	emptyType   = []string{"text/plain; charset=utf-8"}
	emptyAnswer = []byte("1\n")
)

// emptyHandler answers what the first POST on a sequence does, without any
// work: the ceiling of every server on net/http.
func emptyHandler(w http.ResponseWriter, _ *http.Request) {
	w.Header()["Content-Type"] = emptyType
	w.Write(emptyAnswer) // an error means that the client is gone
}

// serveEmpty serves the empty handler until ctx ends.
func serveEmpty(ctx context.Context, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := newHTTPServer(http.HandlerFunc(emptyHandler))
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	fmt.Fprintln(os.Stderr, "listening", l.Addr())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
