package db

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"clouddragon/internal/test/memdisk"
)

// valueCall is a call on one key; valueAnswer is its answer.
type valueCall struct {
	verb  string // get, set, delete
	check int64
}

type valueAnswer struct {
	version int64 // read, or given; 0: there is none
	refused bool
}

// oneValue is a key's value as a register that holds a version, 0 for none.
var oneValue = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(int64), input.(valueCall), output.(valueAnswer)
		holds := in.check == AnyVersion || in.check == now
		switch {
		case in.verb == "get":
			return out.version == now, now
		case out.refused:
			return !holds, now
		case in.verb == "set":
			return holds && out.version > now, out.version
		}
		return holds, int64(0)
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
}

// Clients read, compare and set the same few keys while they are compacted and the index is
// saved, with restarts and power cuts.
func TestValuesAreLinearizable(t *testing.T) {
	fs := memdisk.New()
	o := tinyKV(fs, nil)
	began := time.Now()
	var mu sync.Mutex // guards history
	history := make(map[Key][]porcupine.Operation)
	for round := range 6 {
		fs.Fail(func(op memdisk.Op) error {
			if op.Kind == memdisk.Sync {
				for range 10 {
					runtime.Gosched()
				}
			}
			return nil
		})
		o.FS = fs
		d := mustOpen(t, o)
		end := compactBeside(t, d, 1)
		var clients sync.WaitGroup
		for c := range 6 {
			clients.Go(func() {
				known := make(map[Key]int64) // the version that this client saw last
				for range 60 {
					k := Key{"1", fmt.Sprint(round/3, rand.IntN(3))}
					in := valueCall{verb: []string{"get", "set", "set", "delete"}[rand.IntN(4)], check: AnyVersion}
					if rand.IntN(3) > 0 {
						in.check = known[k]
					}
					if in.verb == "delete" && in.check == 0 {
						in.verb = "get"
					}
					call := int64(time.Since(began))
					out, err := ask(d, k, in)
					back := int64(time.Since(began))
					if err != nil {
						t.Error(err)
					}
					if known[k] = out.version; out.refused {
						delete(known, k)
					}
					mu.Lock()
					history[k] = append(history[k], porcupine.Operation{ClientId: c, Input: in, Call: call, Output: out, Return: back})
					mu.Unlock()
				}
			})
		}
		clients.Wait()
		end()
		if round%2 == 0 {
			mustClose(t, d)
			continue
		}
		fs.Freeze()
		after := fs.Crash(fs.Len(), rand.New(rand.NewPCG(rand.Uint64(), 1)))
		_ = d.Close() // on a dead disk
		fs = after
	}
	for k, ops := range history {
		if !porcupine.CheckOperations(oneValue, ops) {
			t.Errorf("the %d operations on %v have no order that explains what was answered", len(ops), k)
		}
	}
}

func ask(d *DB, k Key, in valueCall) (valueAnswer, error) {
	var conflict *ConflictError
	switch in.verb {
	case "get":
		v, err := d.Get(k)
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
		return valueAnswer{version: v.Version}, err
	case "set":
		v, err := d.Set(SetRequest{Key: k, Data: make([]byte, rand.IntN(800)), Check: in.check})
		if errors.As(err, &conflict) {
			return valueAnswer{refused: true}, nil
		}
		return valueAnswer{version: v}, err
	}
	err := d.DeleteValue(k, in.check)
	if errors.As(err, &conflict) {
		return valueAnswer{refused: true}, nil
	}
	return valueAnswer{}, err
}
