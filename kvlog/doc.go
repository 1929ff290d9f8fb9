// Package kvlog keeps the values of keys in a log (package wal). A value is one
// record; deleting a value writes a tombstone. An index in memory, 8 bytes a key,
// says where the record of each key is; the keys themselves are only on disk.
//
// One file for each part:
//
//	value.go, tombstone.go  the two records, drawn above the code that encodes them
//	values.go               the index, look-ups, and reading a value
//	apply.go                what a durable batch changes in the index
//	location.go             how the index names the place of a record
//	stats.go                how many bytes of each segment are live, and when they expire
//	compact.go              how an old segment is emptied, so that it can be freed
//	snapshot.go             the file that saves the index, so that a start is short
//
// # Invariants
//
// The last record of a key in the log decides about the key. Only the writer adds
// records, so a record that compaction moves never comes after a newer one.
//
// A segment is released only when no index entry points into it. A tombstone is
// dropped only when no older record of its key can be left in the log.
//
// The index can always be rebuilt from the log. The snapshot is a cache: if it is
// missing, damaged or does not match the log, the whole log is read instead.
package kvlog
