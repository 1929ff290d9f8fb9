package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// lockServer is one fair lock for all paths. With a flaw, it grants to anybody.
func lockServer(t *testing.T, flaw bool) *httptest.Server {
	lock := make(chan struct{}, 1)
	var token int
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			if !flaw {
				<-lock
			}
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if flaw {
			fmt.Fprintln(w, 1)
			return
		}
		select {
		case lock <- struct{}{}:
			token++
			fmt.Fprintln(w, token)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	return s
}

var testLock = &row{acc: "ring", api: "lock", unlock: "DELETE lock"}

func TestHandOversAreMeasuredUntilTimeIsUp(t *testing.T) {
	s := lockServer(t, false)
	took, err := handOvers(context.Background(), s.Listener.Addr().String(), testLock, 3, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if len(took) == 0 {
		t.Error("no hand-over was measured")
	}
	for _, d := range took {
		if d <= 0 || d > 10*time.Second {
			t.Errorf("a hand-over took %v", d)
		}
	}
}

func TestTwoHoldersAreFound(t *testing.T) {
	s := lockServer(t, true)
	_, err := handOvers(context.Background(), s.Listener.Addr().String(), testLock, 3, 10*time.Second)
	if err == nil || !strings.Contains(err.Error(), "token 1 was granted after 1") {
		t.Errorf("got %v, want an error about the second grant of token 1", err)
	}
}

func TestRoundTripsAreOfGoodAnswersOnly(t *testing.T) {
	good := httptest.NewServer(http.HandlerFunc(emptyHandler))
	defer good.Close()
	took, err := roundTrips(context.Background(), good.Listener.Addr().String(), 5*time.Millisecond)
	if err != nil || len(took) == 0 {
		t.Errorf("got %d round trips, %v", len(took), err)
	}
	bad := httptest.NewServer(http.NotFoundHandler())
	defer bad.Close()
	if _, err := roundTrips(context.Background(), bad.Listener.Addr().String(), 5*time.Millisecond); err == nil {
		t.Error("a 404 passes for an answer")
	}
}
