// Package memdisk is a simulated disk for tests: a disk.FS in memory that records every
// change, fails the calls that a test chooses, and builds the states that a power cut could
// leave at any moment.
//
// # What a power cut leaves
//
//	the program              the page cache               the disk
//	WriteAt, Store,   ─►     each 512-byte sector:  ─►    any one of them, each sector
//	Allocate, Truncate       v0 (synced) v1 v2 v3         for itself: v0, v1, v2 or v3
//	Sync                     v3                     ─►    v3
//
//	Create, MkdirAll, ─►     each directory:        ─►    the first k of them, k = 0 to 3
//	Rename, Remove           op1 op2 op3
//	SyncDir                                         ─►    all three
//
// In words:
//   - A sector is written whole. Only one that is stored to through a mapping
//     may be torn, between words of 8 bytes: the kernel can write a page back
//     while the processor copies into it (see FS.TearStores).
//   - A file's Sync makes its bytes and its length durable, not its name. A
//     mapping's Sync makes only the bytes of its pages durable, not the length.
//     Both cover what was done before they were called, and nothing that was
//     done while they were under way.
//   - A length that was not synced may be any that the file had since. What was
//     not written and lies within the length is zeros.
//   - SyncDir makes the names in one directory durable, not those of its parent
//     and no contents. A file whose name is lost is gone, and all that is in a
//     directory whose name is lost; a removal or rename that was not synced may
//     be undone.
//
// # What a failed sync leaves
//
//	WriteAt a          a unsynced
//	Sync fails         a can be read, and counts as clean: on the disk it may be there or not
//	Sync good          the same: this sync has nothing to do
//	WriteAt a again    a unsynced
//	Sync good          a durable
//
// That is what Linux does. It holds for each byte: only bytes that are written again are
// healed, not others of the same sector or page. A length is healed by the next successful
// Sync, since the journal of a file system holds it. A failed SyncDir changes nothing, and the
// next successful one makes up for it.
//
// # What is simplified
//
// A rename must stay in its directory (otherwise EXDEV). If two mappings overlap, the later
// must be within the earlier. A Truncate under a mapping panics; a real one would make the
// next access a SIGBUS.
package memdisk
