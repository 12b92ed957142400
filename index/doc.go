// Package index is the directory of the store, held in memory: which versions
// every key has, where the record of each lies, and what happened at which
// revision. It answers point reads, ordered scans and counts as of any
// revision that has not been compacted, lists the events of a range of
// revisions, and tells compaction what may go. It knows neither values nor
// files nor protobuf: a record's location is an opaque number.
//
// # Terms
//
//   - A version is one modification of one key, made at revision Main as its
//     Sub-th event: a put, or a tombstone when the key was deleted.
//   - A key is live at a revision if its newest version not later than that
//     is a put.
//   - A version is superseded at the Main of the next version of its key.
//   - The compact revision C is the oldest that may be read. A version older
//     than C is retained only if it is a put that was not superseded at or
//     before C. Everything made at C or later is retained.
//   - The revision log lists the events at C and later in order.
//
// # Who may call what
//
// There is one writer at a time: whoever is between BeginWrite and EndWrite.
// Put, CompactTo, CompactStep and Relocate must be called there. Find,
// GetLocked, CountLocked and a Scanner with Query.Locked take no lock: they
// may be called there, or outside if nobody else can be writing meanwhile.
// That is so if one goroutine does all the writing. Everything else takes the
// read lock itself and may be called by any goroutine, but not between
// BeginWrite and EndWrite, where it would wait for ever.
//
// The writer puts versions in the order of their revisions and may be ahead
// of what readers have been told: they name the revision they read at, and
// later versions do not exist for them. A read holds the lock for at most 256
// keys or events and goes on by key or position; that its revision no longer
// changes makes the pieces one snapshot. A revision can be compacted during
// such a read. Then the answer means nothing, but reading is safe: check
// CompactRevision afterwards.
//
// No slice of the package's own memory is ever handed out. Keys in hits are
// copies in the Scanner's buffer, valid until its next Next or Reset.
//
// # Parts
//
//   - arena: records of keys and versions, without pointers, named by 32-bit
//     refs; freed ones are reused (arena.go, record.go). The newest version
//     of a key is in the key's own record, older ones form a chain behind it
//     (chain.go).
//   - table: hash of the key to its record, in shards, for points (table.go).
//   - tree: a B+tree over the records in the order of their keys, with
//     numbers of keys and of live keys below each child, for ranges and counts
//     (tree.go, node.go, slab.go).
//   - revLog: revision to event, which is also the queue of what compaction
//     removes (revlog.go).
//   - Loader: builds all of it from versions in any order (load.go, settle.go,
//     keysort.go, build.go).
//
// # Costs
//
// n is the number of keys, v that of one key's versions after the revision
// asked for. The memory is 105 bytes for a key of 32 bytes with its version,
// 40 for each older version (42 in chains longer than eight), and 8 for each
// event in the log.
//
//	Find, Get            one probe, O(log v)
//	Put                  one probe; a descent of the tree, O(log n), if the key becomes or ceases to be live
//	Scan                 a descent, then the keys of the range, absent ones included
//	Count                O(log n) at the newest revision; see Count
//	Events               O(log n) and two records per event
//	CompactStep          O(1) per event; O(log n) per key removed
//	Relocate, Holds      one probe, O(log v)
//	Loader               0.35 µs of one core per version, for keys of 32 bytes
//
// # Limits
//
// Revisions are below 2^56, locations below 2^56, a key's Ver below 2^48, its
// length below 2^32. The records of keys and versions have room in 32 GiB;
// Stats.RoomBytes says what is left and the owner has to refuse writes in
// time, because Put cannot fail: it panics.
//
// # Invariants
//
// CheckInvariants tests them all: the table finds exactly the keys of the
// tree; every count in the tree is that of the nodes below; chains descend by
// (Main, Sub); the log refers to exactly the retained versions from its first
// event on; blocks of the arena are either reachable records or in a free
// list.
package index
