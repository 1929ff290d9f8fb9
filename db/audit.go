package db

import (
	"context"
	"log/slog"
	"time"

	"clouddragon/internal/lease"
)

// audit logs grants of locks or mutexes, holds that were ended by force, and holds that
// expired: who, what, when and the token.
type audit struct {
	log  *slog.Logger // nil: log nothing
	kind string       // "lock" or "mutex"
}

// auditLine is a line that is written when its change is durable.
type auditLine struct {
	what   string
	key    lease.Key
	holder lease.Holder
	at     int64 // wall time
}

// lines appends the lines for what a step of a lease table has changed. wall converts an
// instant to wall time.
func (a *audit) lines(all []auditLine, events []lease.Event, now int64, wall func(int64) int64) []auditLine {
	if a.log == nil {
		return all
	}
	for i := range events {
		e := &events[i]
		what := ""
		switch {
		case e.Kind == lease.HolderGranted:
			what = "granted"
		case e.Kind == lease.HolderEnded && e.Why == lease.ByForce:
			what = "unlocked by force"
		case e.Why == lease.ByExpiry && (e.Kind == lease.HolderRests || e.Kind == lease.HolderEnded && !e.Holder.Resting):
			what = "expired"
		default:
			continue
		}
		all = append(all, auditLine{what, e.Key, e.Holder, wall(now)})
	}
	return all
}

// write writes lines.
func (a *audit) write(all []auditLine) {
	for i := range all {
		l := &all[i]
		a.log.LogAttrs(context.Background(), slog.LevelInfo, a.kind+" "+l.what,
			slog.Bool("audit", true),
			slog.String("account", l.key.Acc), slog.String("name", l.key.ID),
			slog.String("holder", l.holder.Owner), slog.Int64("token", l.holder.Token),
			slog.String("at", time.Unix(0, l.at).UTC().Format("2006-01-02T15:04:05.000Z")))
	}
}
