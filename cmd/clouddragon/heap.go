package main

import "runtime"

// heapFloor counts as part of the heap. The garbage collector runs whenever the heap has
// doubled: under load that would be every few milliseconds, since most of the server's
// memory is mapped and its heap is small. With the floor it runs when the rest has grown by
// as much at least.
const heapFloor = 16 << 20

// raiseHeapFloor raises the floor until release is called. Nobody touches its memory, so it
// takes none.
func raiseHeapFloor() (release func()) {
	floor := make([]byte, heapFloor)
	return func() { runtime.KeepAlive(floor) }
}
