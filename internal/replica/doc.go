// Package replica keeps a second server, the standby, that has every acknowledged
// write of the first, the primary.
//
// The standby asks the primary where their logs agree, cuts what it has beyond that,
// and gets every batch from there on. It writes the same bytes to the same places of its
// own log, syncs them, answers, and applies each batch once the primary has answered
// the batch's calls:
//
//	standby                              primary
//	  POST /replica/keep             ►     keep your log until I have joined; every 2 seconds
//	  GET  /backup                   ►     if it has no data yet
//	  POST /replica/hello            ►     the ends of my last batches; which of them do you have?
//	  POST /replica/join             ►     send me all from there on, to this address
//	       /replica/append           ◄  POST a batch, or many while it catches up
//	       /replica/beat             ◄  POST what was answered, and which segments are needed, every second
//	  POST /replica/leave            ►     I stop: continue without me
//	new primary
//	  POST /replica/fence            ►     your epoch has ended
//
// With sync an answer waits until both disks have the batch, from the moment that the
// standby has caught up. The primary first records that on its disk, and from then on
// it answers no write without the standby, even after a restart.
//
// An epoch is the reign of one primary. It is in the state file on disk. A server that
// learns of a later epoch adopts it and rejects everything from earlier ones: a primary
// that was replaced while it hung finds that out from its standby at the next write.
package replica
