package handlers

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"clouddragon/db"
)

// A state of Terraform or OpenTofu, as their HTTP backend expects it. It is stored in
// values whose ids begin with a NUL byte, so that no client can name them:
//
//	NUL tf 0 … NUL tf 9   the last ten versions of the state; the oldest is replaced
//	NUL tf l              the lock: the lock information as it was sent
//
// The current state is the one with the highest version. Every change is one commit. It is
// refused if the lock has changed meanwhile.

const (
	tfVersions = 10
	// maxLockInfo is the longest lock information, in bytes.
	maxLockInfo = 64 << 10
	// maxTFName is the longest id, in bytes, that is part of a value's id unchanged; a longer
	// one is hashed.
	maxTFName = db.MaxID - 4
)

func init() {
	endpoints = append(endpoints,
		endpoint{api: TFState, method: "GET", params: []string{"version"}, serve: getTF, waits: true},
		endpoint{api: TFState, method: "POST", params: []string{"ID"}, serve: putTF},
		endpoint{api: TFState, method: "DELETE", params: []string{"ID"}, serve: deleteTF},
		endpoint{api: TFState, method: "LOCK", serve: lockTF},
		endpoint{api: TFState, method: "UNLOCK", serve: unlockTF},
	)
}

// tfKey returns the key of a part of a state.
func tfKey(k db.Key, part string) db.Key {
	name := k.ID
	if len(name) > maxTFName {
		// No other name begins with a NUL byte.
		name = fmt.Sprintf("\x00%x", sha256.Sum256([]byte(name)))
	}
	return db.Key{Acc: k.Acc, ID: db.HiddenData + part + name}
}

// tfVersion is one of the stored versions.
type tfVersion struct {
	key     db.Key
	version int64 // 0: there is none
}

// tfAll returns the ten places for versions, the newest version first and empty places
// last.
func (s *server) tfAll(c *call) (all [tfVersions]tfVersion, err error) {
	for i := range all {
		key := tfKey(c.key, strconv.Itoa(i))
		v, err := s.db.Head(c.r.Context(), key)
		if err != nil && !errors.Is(err, db.ErrNotFound) {
			return all, err
		}
		at := i
		for ; at > 0 && all[at-1].version < v.Version; at-- {
			all[at] = all[at-1]
		}
		all[at] = tfVersion{key, v.Version}
	}
	return all, nil
}

// tfLock is the lock of a state.
type tfLock struct {
	key     db.Key
	version int64  // of its value; 0: the state is not locked
	id      string // of the holder
	info    []byte // as it was sent
	typ     string // its Content-Type
}

func (s *server) tfLock(c *call) (tfLock, error) {
	l := tfLock{key: tfKey(c.key, "l")}
	v, err := s.db.Read(c.r.Context(), l.key, maxLockInfo)
	if errors.Is(err, db.ErrNotFound) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	l.version, l.info, l.typ = v.Version, v.Data, v.Type
	info, err := parseLockInfo(v.Data)
	l.id = info.ID
	return l, err
}

// sayLocked answers 423 with the holder's lock information.
func (c *call) sayLocked(l *tfLock) error {
	c.status, c.ctype, c.body = http.StatusLocked, []string{l.typ}, l.info
	return nil
}

// lockInfo is the lock information of Terraform and OpenTofu, with their names.
type lockInfo struct {
	ID, Operation, Info, Who, Version, Created, Path string
}

// parseLockInfo reads lock information.
func parseLockInfo(b []byte) (lockInfo, error) {
	var info lockInfo
	if err := json.Unmarshal(b, &info); err != nil {
		return info, badRequest("the body is not lock information: %s", err)
	}
	if info.ID == "" {
		return info, badRequest("the body is not lock information: it has no ID")
	}
	return info, nil
}

// forces reports whether lock information has only an ID. OpenTofu's force-unlock sends
// that: everything else is empty, and the time is in year 1.
func (i *lockInfo) forces() bool {
	rest := *i
	rest.ID = ""
	if rest.Created == "0001-01-01T00:00:00Z" {
		rest.Created = ""
	}
	return rest == lockInfo{}
}

// GET /db/:acc/tfstate/:id?version=
func getTF(s *server, c *call) error {
	want := c.params.number("version", 0, 1, math.MaxInt64)
	if c.params.bad != nil {
		return c.params.bad
	}
	state := c.key
	for race := 1; ; race++ {
		c.key = state
		all, err := s.tfAll(c)
		if err != nil {
			return err
		}
		found := tfVersion{}
		for _, v := range all {
			if v.version != 0 && (want == 0 || v.version == want) {
				found = v
				break
			}
		}
		if found.version == 0 {
			return db.ErrNotFound
		}
		v, err := s.readWhole(c, found.key)
		switch {
		case err == nil && v.Version == found.version:
			c.w.Header()["Version"] = []string{strconv.FormatInt(v.Version, 10)}
			c.status, c.ctype, c.body = http.StatusOK, []string{v.Type}, v.Data
			return nil
		case err != nil && !errors.Is(err, db.ErrNotFound):
			return err
		case race == maxRaces:
			return errCrowded
		}
		// It was replaced meanwhile.
	}
}

// readWhole takes memory for a value and reads it.
func (s *server) readWhole(c *call, k db.Key) (db.Value, error) {
	most := uncounted
	for race := 1; ; race++ {
		v, err := s.db.Read(c.r.Context(), k, most)
		if err != nil || len(v.Data) == v.Size {
			return v, err
		}
		if race == maxRaces {
			return v, errCrowded
		}
		s.memory.free(c.held)
		c.held = 0
		if err := s.memory.hold(c, int64(v.Size), memoryPatience*s.pace.idle); err != nil {
			return v, err
		}
		most = max(v.Size, uncounted)
	}
}

// changeTF changes a state. If the state is locked, id has to be the holder's. ops returns
// the operations of the change. It is tried again if another change came between.
func (s *server) changeTF(c *call, id string, ops func(all [tfVersions]tfVersion) []db.Operation) (done bool, err error) {
	for race := 1; ; race++ {
		l, err := s.tfLock(c)
		if err != nil {
			return false, err
		}
		switch {
		case l.version != 0 && l.id != id:
			return false, c.sayLocked(&l)
		case l.version == 0 && id != "" && c.method == http.MethodPost:
			return false, &db.ConflictError{Reason: fmt.Sprintf("%s is not locked, and so not by %s", c.thing(), quote(id))}
		}
		all, err := s.tfAll(c)
		if err != nil {
			return false, err
		}
		batch := &db.Batch{Atomic: true, Ops: append([]db.Operation{&db.ValueCheck{Key: l.key, Check: l.version}}, ops(all)...)}
		err = s.db.Do(batch)
		var conflict *db.ConflictError
		if !errors.As(err, &conflict) || race == maxRaces {
			return err == nil, err
		}
	}
}

// tfType returns the Content-Type to store with a body.
func (c *call) tfType() []string {
	if t := c.r.Header.Get("Content-Type"); t != "" && t != form && len(t) <= db.MaxType {
		return []string{t}
	}
	return applicationJSON
}

// POST /db/:acc/tfstate/:id?ID=
func putTF(s *server, c *call) error {
	data, err := s.readBody(c, s.limits.Value, "limits.value")
	if err != nil {
		return err
	}
	c.patience()
	c.brief()
	var set *db.ValueSet
	done, err := s.changeTF(c, c.params.text("ID"), func(all [tfVersions]tfVersion) []db.Operation {
		oldest := all[tfVersions-1]
		set = &db.ValueSet{Key: oldest.key, Data: data, Type: c.tfType()[0], Conditions: db.Conditions{Check: oldest.version}}
		return []db.Operation{set}
	})
	if err != nil || !done {
		return err
	}
	return c.sayNumber(set.Version)
}

// DELETE /db/:acc/tfstate/:id?ID=
func deleteTF(s *server, c *call) error {
	done, err := s.changeTF(c, c.params.text("ID"), func(all [tfVersions]tfVersion) (ops []db.Operation) {
		for _, v := range all {
			if v.version != 0 {
				ops = append(ops, &db.ValueDelete{Key: v.key, Conditions: db.Conditions{Check: v.version}})
			}
		}
		return ops
	})
	if err != nil || !done {
		return err
	}
	return c.sayText("deleted")
}

// LOCK /db/:acc/tfstate/:id
func lockTF(s *server, c *call) error {
	body, err := s.readBody(c, maxLockInfo, "of lock information")
	if err != nil {
		return err
	}
	c.patience()
	c.brief()
	info, err := parseLockInfo(body)
	if err != nil {
		return err
	}
	for race := 1; ; race++ {
		l, err := s.tfLock(c)
		switch {
		case err != nil:
			return err
		case l.version != 0 && l.id == info.ID:
			return c.sayText("locked") // the answer to an earlier call was lost
		case l.version != 0:
			return c.sayLocked(&l)
		}
		err = s.db.Do(&db.ValueSet{Key: l.key, Data: body, Type: c.tfType()[0], Conditions: db.Conditions{Check: 0}})
		var conflict *db.ConflictError
		switch {
		case err == nil:
			return c.sayText("locked")
		case !errors.As(err, &conflict) || race == maxRaces:
			return err
		}
	}
}

// UNLOCK /db/:acc/tfstate/:id
func unlockTF(s *server, c *call) error {
	body, err := s.readBody(c, maxLockInfo, "of lock information")
	if err != nil {
		return err
	}
	c.patience()
	c.brief()
	var info lockInfo
	if len(body) > 0 {
		if info, err = parseLockInfo(body); err != nil {
			return err
		}
	}
	force := len(body) == 0 || info.forces()
	for race := 1; ; race++ {
		l, err := s.tfLock(c)
		switch {
		case err != nil:
			return err
		case l.version == 0:
			return c.sayText("unlocked")
		case !force && l.id != info.ID:
			return c.sayLocked(&l)
		}
		err = s.db.Do(&db.ValueDelete{Key: l.key, Conditions: db.Conditions{Check: l.version}})
		var conflict *db.ConflictError
		switch {
		case err == nil:
			return c.sayText("unlocked")
		case !errors.As(err, &conflict) || race == maxRaces:
			return err
		}
	}
}
