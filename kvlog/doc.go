// Package kvlog keeps keys' values in a log (package wal): an index in memory of 8
// bytes a key points to the records that hold them.
//
// value.go draws the records, snapshot.go the file that saves the index, and
// compact.go explains how old segments are emptied.
package kvlog
