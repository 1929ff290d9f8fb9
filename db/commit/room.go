package commit

// Room decides which operations may use how much of the log. The leader calls its methods.
type Room interface {
	// Begin is called before a batch is decided. It returns how many bytes a batch that only
	// ends expired leases may take.
	Begin() (reserve int)
	// Fits says what to do with a call when the batch has used so many bytes. empty
	// means that the batch has decided nothing yet.
	Fits(c *Call, used int, empty bool) Verdict
	// Lacks takes over a call for which there is no room. Later it submits the call
	// again, or answers it with ErrFull. It must not block.
	Lacks(c *Call, why *NoRoom)
	// LacksSlot asks for more slots for an expiry that finds none free. Otherwise the expiry
	// would be retried forever. It must not block.
	LacksSlot(why *NoRoom)
	// Unwritten takes over the calls of a batch that found the disk full when it was written,
	// and that was undone. Room submits each call again or answers it. It must not block.
	Unwritten(calls []*Call, err error)
	// Blocked reports whether a full disk is the reason why there is no room in the
	// log to end expired leases.
	Blocked() bool
}

// Verdict is what Room says of a call.
type Verdict uint8

// The verdicts.
const (
	Decide    Verdict = iota // there is room
	NextBatch                // there is room, but not in this batch
	Lacking                  // room has to be made first: pass the call to Lacks
	Full                     // there never will be enough room
)
