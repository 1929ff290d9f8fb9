package db

import (
	"context"
	"fmt"
	"math"

	"clouddragon/kvlog"
	"clouddragon/slots"
)

// Export calls send with each item of an account that is frozen in that move.
func (d *DB) Export(ctx context.Context, acc, id string, send func(*MoveRecord) error) error {
	frozen := func() error {
		if m := d.moveOf(acc); m.State != Frozen || m.ID != id {
			return &ConflictError{fmt.Sprintf("account %q is not frozen in this move", acc)}
		}
		return nil
	}
	if err := frozen(); err != nil {
		return err
	}
	err := d.eachOf(ctx, acc, func(kind uint8, thing string) error {
		switch kind {
		case valueKind:
			return d.exportValue(acc, thing, send)
		case kindLock:
			return d.exportLock(acc, thing, send)
		}
		k := slots.Key{Kind: kind, Acc: acc, ID: thing}
		payload, ok := d.store.Tables.Get(k, k.Hash(), nil)
		if !ok {
			return nil // it has expired meanwhile
		}
		r := &MoveRecord{Kind: kind, ID: thing, Payload: payload}
		if err := r.check(); err != nil {
			return fmt.Errorf("%q: %w", thing, err)
		}
		if !r.shift(-d.store.Clock.Now()) {
			return nil
		}
		return send(r)
	})
	if err != nil {
		return err
	}
	return frozen()
}

func (d *DB) exportValue(acc, id string, send func(*MoveRecord) error) error {
	val, ok, err := d.store.Values.Get(acc, id, d.store.Values.Hash(acc, id), math.MaxInt)
	if err != nil {
		return fmt.Errorf("value %q: %w", id, err)
	}
	if !ok {
		return nil
	}
	r := valueRecord(id, &val)
	if r.Expires != 0 {
		if r.Expires -= d.store.Clock.Now(); r.Expires <= 0 {
			return nil
		}
	}
	return send(r)
}

func valueRecord(id string, val *kvlog.Value) *MoveRecord {
	return &MoveRecord{
		Kind: valueKind, ID: id, Payload: val.Data, Version: val.Version, Expires: val.Expires,
		Type: string(val.Type), Encoding: string(val.Encoding),
	}
}

func (d *DB) exportLock(acc, id string, send func(*MoveRecord) error) error {
	op := &holders{key: Key{acc, id}}
	if err := d.Do(op); err != nil {
		return err
	}
	for i := range op.all {
		r := &MoveRecord{Kind: kindLock, ID: id, Sub: uint64(op.all[i].Token), Payload: make([]byte, holdSize)}
		encodeHold(r.Payload, &op.all[i])
		if !r.shift(-op.now) {
			continue
		}
		if err := send(r); err != nil {
			return err
		}
	}
	return nil
}
