// Package engine is the replicated state machine of one member: it applies
// committed operations in log order, assigns revisions, serves reads at a
// revision, keeps leases, alarms and the membership, and compacts.
//
// It refuses to know how operations are agreed on, how they travel, and who
// watches: it is driven through Apply, it proposes its own operations (lease
// expiry, NOSPACE) through Options.Propose, and it hands events to a Publisher.
//
// # Terms
//
// A revision is etcd's: the first state has revision 1, every write operation
// that changes something makes the next one, and a transaction makes one
// revision with several events, told apart by their sub number. A record is
// what the page store keeps for one event (record.go): the wire bytes of its
// KeyValue behind a small prefix. The compact revision is the oldest that can
// still be read.
//
// # Owners
//
// Engine.writer is held by whoever changes the index: Apply for one log entry,
// a compaction step for CompactionBatch removals, a reclaim step for one batch
// of relocations. Readers take no lock of the engine; they read the atomics
// visible and compactRev and the index's own read lock in chunks.
//
// Who may do what is checked with package engine/auth when an operation is
// applied (permit.go); readers check before and after reading.
//
// What readers read is a keyspace: store, index and those two atomics. Engine.read
// gives the present one with a Pin, Engine.hold gives it for background work.
// Restore replaces it under writer; it is closed when nobody is left in it.
//
// Lock order: Engine.writer, then index, lessor, cluster, alarmSet, the auth
// store; the last five never nest. No lock is held across disk reads except writer, when an
// operation needs a previous value that is not cached.
//
// Goroutines, started by Start and awaited by Close: compactLoop,
// checkpointLoop, reclaimLoop, scrubLoop, leaseLoop, alarmLoop. Each has at most one thing pending.
//
// # Invariants
//
// Revision order is commit order is event order. A revision becomes visible
// only when its entry is applied as a whole, and a waiter is told only after
// that. Apply is a function of state and entry: nothing in it looks at a clock,
// a flag or a client, so every member computes the same; deadlines of leases
// belong to the leader, which proposes OpLeaseExpire with its term, and an
// entry of another term drops it. The revision counter is stored in every
// checkpoint, never derived from what compaction left.
//
// A checkpoint says of a lease what the log knows, not what a leader's clock
// says: renewals are not in the log, and a lease that went on with the time left
// before one would end early.
//
// # Durability
//
// The durable state is the newest checkpoint (pages, meta, state blob) plus the
// log after it. A crash at any time loses what lies behind the checkpoint in
// the page store, and replaying the log makes it again; so no order between
// page writes and log writes is needed. state.go holds the formats.
//
// # Snapshots
//
// A peer that needs more than the log has is given a checkpoint: files that are
// held open for it (Transfers, pagestore.Export). It fetches them into a directory
// beside its store (Stage) and takes that over in order with Apply (Restore): what
// is replicated is replaced as a whole, what is this member's own stays. A snapshot
// is a later state of the same history, so whoever looks again in the new keyspace
// finds what was there and more, but for what has been compacted.
//
// Restore is durable when one file has been renamed (pagestore/doc.go). Before
// that the log has an intent with the same index, and the start after a crash
// accepts either state (raft/doc.go, Recovery).
//
// # Failure
//
// A page store that cannot append or read a record that the index names is
// broken: the engine answers nothing more and calls Options.OnFatal. A full
// disk raises NOSPACE through the log while records wait in memory. A snapshot
// that cannot be received is an error of the transfer and changes nothing, also if
// the reason is this member's own disk; one that cannot be taken over is final.
package engine
