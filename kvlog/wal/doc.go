// Package wal is a write-ahead log: batches of records, appended and synced one
// batch at a time. It does not know what a record means; package kvlog keeps the
// values of keys in one.
//
// A log is a directory of segments, files that are filled with zeros ahead of need
// and never reused. Each batch directly follows the one before it. If it does not fit,
// a seal ends the segment and the log continues in the next one. A
// position (Pos) is the end of a batch. A caller saves one as its checkpoint, and
// gives it to Open at the next start.
//
// The life of a log:
//
//	Create                          once, for a new directory
//	Open, Replay, Repair, Start     each start, in this order
//	Append, by one goroutine        and meanwhile, by any other:
//	    Prepare   makes the next segment ready, before it is needed
//	    Free      removes segments that the checkpoint no longer needs
//	    NewReader follows the log, Pin keeps segments from Free
//	Close
//
// One file for each part:
//
//	log.go               the log and its writer
//	record.go, batch.go  records and batches, drawn above the code that encodes them
//	segment.go           the segment's file and its header, drawn in the same way
//	files.go             which segments' files are open
//	full.go              a batch that the disk has no room for
//	prepare.go           making and freeing segments
//	read.go              reading a batch, and finding the next one after a bad one
//	recover.go           Open, Replay and Start: torn tails and damage
//	repair.go            Repair: what recovery found is written again
//	scan.go, verify.go   reading what lies before the checkpoint
//	reader.go            reading an open log
//
// In all formats integers are little-endian, checksums are CRC-32C (Castagnoli),
// and nothing that is drawn is ever changed without a new version.
//
// # Invariants
//
// A batch is written only after the one before it is durable. The seal is written
// only after the next segment is durable, and the first batch of that only after
// the seal. So a crash leaves a good log, followed by at most one batch of which any
// part may be on disk: a torn tail. It was never acknowledged, and recovery cuts it.
//
// The header of a later batch, even alone, proves that all batches before it were
// durable. If one of those is bad, that is damage, and it is never cut.
//
// After a failed write or sync nothing more is appended: the kernel may have dropped
// the pages and marked them clean, so a second sync would prove nothing. The exception
// is a write that found the disk full; see full.go. For the same reason Repair writes
// what Replay accepted a second time.
//
// A header counts only if its own checksum is good and it names its own place. The
// checksums begin with the ID of the data directory. So neither a value that a client
// stores, nor a sector that the disk wrote to the wrong place, nor a file of another
// directory passes for a batch. A batch names the number and the checksum of the one
// before it, so it counts only after that one.
package wal
