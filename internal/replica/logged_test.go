package replica

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"clouddragon/db"
	"clouddragon/internal/disk"
)

// An operator has to see that the token is wrong, but not once a second.
func TestWhyAFormerPrimaryCannotBeToldIsLoggedOnce(t *testing.T) {
	var log strings.Builder
	answers := []int{503, 401, 401, 200}
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(answers[0])
		answers = answers[1:]
		_, _ = io.WriteString(w, "{}") // the client would try again
	}))
	defer old.Close()
	Fence(t.Context(), State{Epoch: 2, Before: old.URL}, always(""), "http://new", slog.New(slog.NewTextHandler(&log, nil)))
	if got := log.String(); strings.Count(got, "cannot be told") != 2 || !strings.Contains(got, "401: ") || !strings.Contains(got, "knows that it was replaced") {
		t.Errorf("the log says:\n%s", got)
	}
}

// runStandby runs a standby until stop, after which its log may be read.
func runStandby(t *testing.T, of string, log io.Writer) (stop func()) {
	t.Helper()
	sb, err := NewStandby(StandbyOptions{FS: disk.OS{}, Of: of, Token: always(""), Open: db.Options{Dir: t.TempDir()}, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sb.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestStandbyThatIsRefusedLogsItOnce(t *testing.T) {
	var log strings.Builder
	asked := make(chan struct{}, 100)
	primary := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the token is not known here", http.StatusUnauthorized)
		asked <- struct{}{}
	}))
	defer primary.Close()
	stop := runStandby(t, primary.URL, &log)
	for range 5 { // keep and fetch, twice, and once more
		<-asked
	}
	stop()
	if got := log.String(); strings.Count(got, "401: the token") != 2 {
		t.Errorf("the log says each reason more than once:\n%s", got)
	}
}

// A standby that is stopped or promoted does not try again, and does not log that it does.
func TestStandbyThatIsStoppedDoesNotLogThatItTriesAgain(t *testing.T) {
	var log strings.Builder
	asked := make(chan struct{}, 100)
	primary := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // until then net/http does not notice that the client hangs up
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer primary.Close()
	stop := runStandby(t, primary.URL, &log)
	<-asked
	stop()
	if log.Len() > 0 {
		t.Errorf("the log says %q", log.String())
	}
}
