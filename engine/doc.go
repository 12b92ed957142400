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
// Lock order: Engine.writer, then index, lessor, cluster, alarmSet, the auth
// store; the last five never nest. No lock is held across disk reads except writer, when an
// operation needs a previous value that is not cached.
//
// Goroutines, started by Start and awaited by Close: compactLoop,
// checkpointLoop, reclaimLoop, scrubLoop, leaseLoop. Each has at most one thing pending.
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
// # Durability
//
// The durable state is the newest checkpoint (pages, meta, state blob) plus the
// log after it. A crash at any time loses what lies behind the checkpoint in
// the page store, and replaying the log makes it again; so no order between
// page writes and log writes is needed. state.go holds the formats.
//
// # Failure
//
// A page store that cannot append or read a record that the index names is
// broken: the engine answers nothing more and calls Options.OnFatal. A full
// disk raises NOSPACE through the log while records wait in memory.
package engine
