package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"clouddragon/db"
	"clouddragon/internal/replica"
)

var (
	tarType    = []string{"application/x-tar"}
	tarName    = []string{`attachment; filename="clouddragon.tar"`}
	errTooLong = errors.New("the backup took longer than backup.time")
)

// GET /backup
//
// The copy is sent while it is made. After the first byte no status can report a failure,
// so a failure cuts the connection: the client sees that the answer ends too early, and
// that the manifest at its end is missing.
func getBackup(s *server, c *call) error {
	h := c.w.Header()
	if c.r.Method == http.MethodHead {
		c.status, c.ctype = http.StatusOK, tarType
		h["Content-Disposition"] = tarName
		return nil
	}
	ctx, cancel := context.WithCancelCause(c.r.Context())
	defer cancel(nil)
	ctx, stop := context.WithTimeoutCause(ctx, s.limits.Backup, errTooLong)
	defer stop()
	go func() {
		select {
		case <-s.draining:
			cancel(db.ErrStopping)
		case <-ctx.Done():
		}
	}()
	began := time.Now()
	w := &backupWriter{s: s, c: c, end: began.Add(s.limits.Backup), size: s.db.BackupSize()}
	take, what := s.db.Backup, "backup sent"
	if c.r.Header.Get(replica.CopyHeader) != "" {
		take, what = s.db.Copy, "copy for a standby sent"
	}
	m, err := take(ctx, w, s.program)
	switch {
	case err == nil:
		s.log.Info(what, "moment", m.Time.UTC().Format(timeFormat), "bytes", w.n, "took", time.Since(began).Round(time.Millisecond))
		return nil
	case w.n == 0:
		return err
	case !time.Now().Before(w.end): // which may have ended a write
		err = errTooLong
	}
	s.log.Warn("a backup was cut off", "err", err, "bytes", w.n, "took", time.Since(began).Round(time.Millisecond))
	panic(http.ErrAbortHandler)
}

// backupWriter sends a backup. Each piece has a deadline, and all of them together have one, so a
// client that stops reading is cut off.
type backupWriter struct {
	s *server
	c *call
	n int64 // bytes sent

	end  time.Time // of backup.time
	size int64     // estimate of all bytes
}

func (w *backupWriter) Write(p []byte) (int, error) {
	c := w.c
	if w.n == 0 {
		h := c.w.Header()
		h["Content-Type"], h["Content-Disposition"] = tarType, tarName
		h["Backup-Size"] = []string{strconv.FormatInt(w.size, 10)}
		c.status, c.sent = http.StatusOK, true
		c.notStored()
		w.s.sayStopping(c)
	}
	until := time.Now().Add(w.s.pace.idle)
	if w.end.Before(until) {
		until = w.end
	}
	c.writeUntil(until)
	n, err := c.w.Write(p)
	w.n += int64(n)
	if err == nil {
		err = http.NewResponseController(c.w).Flush()
	}
	if err != nil {
		err = fmt.Errorf("send it: %w", err)
	}
	return n, err
}
