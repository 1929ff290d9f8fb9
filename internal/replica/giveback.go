package replica

import (
	"context"
	"encoding/json"
)

// A server that is elected and then cannot open its data would remain the only one in etcd that
// has every write, so no other server could take its place. As long as it has not opened its
// database, it has answered nothing, and the servers that had every write before still have it.

// term is what an Elector knows of its own election.
type term struct {
	before []string // the servers that had every write before it
	wrote  string   // the value of the key config that it put
	used   bool     // the database was open since, so something may have been answered
}

// setOpen notes whether this server has its database open as the primary.
func (e *Elector) setOpen(open bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open = open
	e.term.used = e.term.used || open
}

// GiveBack records in etcd that the servers that had every acknowledged write before this server
// was elected still have it. It does nothing if the database was open since the election, or
// if the configuration was changed. The server must not serve afterwards. The lease is revoked
// at the end of Run.
func (e *Elector) GiveBack(ctx context.Context) error {
	e.mu.Lock()
	mine, t, c := e.mine, e.term, e.config
	e.mu.Unlock()
	if mine == "" || t.used || len(t.before) == 0 {
		return nil
	}
	text, err := json.Marshal(clusterConfig{Epoch: c.Epoch, InSync: t.before})
	if err != nil {
		return err
	}
	done, err := e.etcd.change(ctx,
		[]condition{{key: e.leaderKey(), value: mine}, {key: e.configKey(), value: t.wrote}},
		[]put{{e.configKey(), string(text), 0}})
	if done {
		e.o.Log.Info("this server gives way, having answered nothing as the primary", "can_be_elected", t.before)
	}
	return err
}
