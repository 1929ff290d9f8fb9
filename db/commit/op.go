package commit

import (
	"errors"
	"fmt"

	"clouddragon/slots"
)

// Op is one operation on what is stored. Each API has its own types of
// operations; the writer knows none of them.
type Op interface {
	// Size returns the most bytes that the operation itself adds to the log. With 0
	// it is decided even when the log has no room at all.
	Size() int
	// Frees reports whether the operation only frees room, as a delete does. On a full disk it
	// may use the reserve.
	Frees() bool
	// Decide decides the operation against tx and stores the answer in the operation. It
	// does no I/O except reading values that are not in memory, and reads no clock: the
	// time comes from tx. After an error everything that Decide has changed through tx is
	// undone. ErrWaiting means that a later step answers the call.
	Decide(tx *Tx) error
}

// Call is an operation on its way through the writer. Its fields belong to the
// caller until it is submitted, then to the writer until Done is called.
type Call struct {
	Op Op
	// The leader calls Done when the operation is answered. It must not block. From then
	// on the call may be reused.
	Done func(*Call)
	// Err is the answer; nil if the operation was done.
	Err error

	// Reserve lets the call use the last of the reserve. Room sets it for a call that frees,
	// once nothing else helps.
	Reserve bool
	// Need is how many bytes the call adds to the log, if that turned out to be more than its
	// operation's Size, because many waiters of a lock can be granted at once. The writer sets
	// it.
	Need int
	// Unwritten counts the batches with this call that found the disk full when they were
	// written. The writer sets it.
	Unwritten int
}

var (
	// ErrWaiting is returned by Decide when this batch does not answer the call:
	// Tx.Answer answers it later.
	ErrWaiting = errors.New("the call waits")

	// ErrFull is returned when the disk has no room for the write; nothing
	// changed, and the same call works again once there is room.
	ErrFull = errors.New("the disk is full: nothing was changed; free some space and try again")
	// ErrDescriptors is returned when no file descriptor was left for the call;
	// nothing changed.
	ErrDescriptors = errors.New("the server has no file descriptor left for this: nothing was done, try again later")
	// ErrStopping is returned when the server shuts down; nothing changed.
	ErrStopping = errors.New("the server is shutting down: try again shortly")
	// ErrStopped is returned when writes are stopped because the disk failed earlier, or
	// because another server is the primary; nothing changed.
	ErrStopped = errors.New("writes are stopped: the disk failed, or another server took over")
	// ErrUnknown is returned when the disk failed during this write, or another server
	// took over: the write may be there later, or not.
	ErrUnknown = errors.New("the disk failed or another server took over during this write: its outcome is unknown")
)

// NoRoom is returned when there is no room for an operation yet. Nothing changed. The call is
// submitted again once there is room.
type NoRoom struct {
	// Class is the slot table that has no free slot, or LogRoom.
	Class int
	// Capacity is how many slots that table had.
	Capacity uint64
}

// LogRoom as a NoRoom's Class means that the log has no room.
const LogRoom = -1

func (e *NoRoom) Error() string {
	if e.Class == LogRoom {
		return "the log has no room"
	}
	return fmt.Sprintf("the table of %d-byte slots has no free slot", slots.Classes[e.Class])
}

// Group is an operation made of several, of which either all are done or none.
type Group []Op

// GroupError says which operation of a group was refused.
type GroupError struct {
	Index int // from 0
	Err   error
}

func (e *GroupError) Error() string { return e.Err.Error() }
func (e *GroupError) Unwrap() error { return e.Err }

// Size returns the sum of the operations' sizes.
func (g Group) Size() int {
	n := 0
	for _, op := range g {
		n += op.Size()
	}
	return n
}

// Frees reports whether every operation of the group frees.
func (g Group) Frees() bool {
	for _, op := range g {
		if !op.Frees() {
			return false
		}
	}
	return true
}

// Decide decides the operations in order. The error is a *GroupError, or NoRoom.
// An operation that waits cannot be part of a group.
func (g Group) Decide(tx *Tx) error {
	for i, op := range g {
		err := op.Decide(tx)
		if err == ErrWaiting {
			panic("commit: an operation of a group waits")
		}
		if _, ok := err.(*NoRoom); ok {
			return err
		}
		if err != nil {
			return &GroupError{i, err}
		}
	}
	return nil
}
