// Package crashtest attacks the program itself: the binary, on a real file
// system, under load from real clients that note what they asked for and what
// was acknowledged. It is killed, also by the kernel for want of memory, its
// power is cut, its disk fills up, stalls and fails, and clients misbehave.
// Everywhere the same rule holds:
//
//	acknowledged ⊆ recovered ⊆ attempted
//
// and no sequence value comes twice, no token twice or lower than one before, a
// lock never has two holders, and no version goes back.
//
// What needs root and a loop device, a control group or a network namespace is skipped
// where there is none, and fails instead if CLOUDDRAGON_CRASH_REQUIRED is set. The flags, behind -args, set the
// sizes; a failure prints the seed that repeats its choices.
package crashtest
