// Package raft is one consensus member: operations go in, committed entries
// come out in the same order on every member. It owns upstream's RawNode, the
// log in memory, what is written to the write-ahead log, and the waiters. It
// knows nothing of keys, revisions, files and wires: operations are opaque
// bytes, the log is a Log, the network a Transport, the state a StateMachine.
//
// # Terms
//
// An operation is what a client proposes; a batch is a run of operations that
// becomes one raft entry. A waiter belongs to one operation and is told exactly
// once. The window is the part of the log that is in memory. A round is a batch
// of reads that share one question to the cluster. A member that follows
// forwards its batches to the leader.
//
// # The way of an operation
//
//	Enqueue        copied into the open batch            queue.mu, 40 ns
//	Kick           whoever finds mu free goes on, else the holder does
//	proposeWaiting gate open: batch → entry → log record; MsgApp to the peers
//	submit         the log begins to write; Send         both at the same time
//	Log.Wait       durable → responses → committed       completion goroutine
//	Apply … Flush  entries with their waiters            completion goroutine
//
// One entry for all operations that wait when a write may begin: 2.2 µs of CPU
// for 1 operation of 320 bytes, 3.3 µs for 16, 12 µs for 128, and 47 allocations
// each, all but one of them RawNode's (go test -bench Step ./raft; one core). An
// entry for each operation would cost 2 µs for each.
//
// The gate (see gate) holds the batch open while enough writes are in flight.
//
// # Ownership and locks
//
// core is everything that needs RawNode. It has no goroutine, no lock and no
// clock: each method is a step that ends with RawNode drained. Node guards it
// with mu and, after releasing it, carries out the step's effects. Stepper
// calls the same steps from a simulation, in one goroutine.
//
//	applyMu    who runs the state machine; Node.g        before mu
//	compactMu  one Compact at a time                     before mu
//	sendMu     who calls Transport.Send; Node.sendBuf    before mu
//	mu         core, messages not yet sent               before the next three
//	queue.mu, readQueue.mu, leadMu                       leaves
//
// ReadIndex of a member that is alone reads one atomic. Status reads atomics and
// takes queue.mu for a moment. Under mu the log is appended to (a copy into its
// buffer) and asked to submit; nothing there waits, unless the log's buffers are
// all in flight. No callback is called under mu, but Snapshotter.Snapshot.
//
// Whoever does not get mu, applyMu or sendMu leaves its work to the holder,
// and the holder looks again after the release.
//
// # Goroutines
//
//	completion  Log.Wait, then apply: the hot path stays on it
//	applier     applies what is committed without a local write
//	tick        the clock
//
// Open starts them, Stop awaits them. Any other goroutine inside the package
// belongs to a caller of Propose, Step, … and may carry out others' effects.
//
// # Queues and their bounds
//
//	bytes of peers not yet written      maxBacklog                       full: messages are dropped
//	operations accepted, not finished   MaxPendingOps, MaxPendingBytes   full: ErrTooManyRequests
//	reads in the queue                  maxWaitingReads                  full: ErrTooManyRequests
//	questions under way, confirmed      maxRounds, maxConfirmed          full: reads stay in the queue
//	log writes in flight                QueueDepth                       full: the batch stays open
//	batches forwarded                   QueueDepth                       full: the batch stays open
//	messages to a peer                  maxInflightMsgs, -Bytes          full: RawNode waits
//	the window's applied entries        CatchupEntries, CatchupBytes     full: forgotten
//	the window's other entries          MaxPendingBytes, twice           full: RawNode refuses proposals
//
// # Invariants
//
// Nothing is handed to the state machine before it is committed by a quorum
// that has it durable, and durable here.
//
// A waiter is matched by index and term, or for a forwarded batch by an
// identity that is never used again, never by index alone. A batch that another
// leader's entries have passed by is proposed again: that it will not be applied
// as what it was follows from terms growing along the log, see underway.settle.
// ErrProposalDropped, ErrNoLeader and ErrConfChangeRefused are certain: the
// operation is not applied and never will be. ErrTimeout and ErrStopped are not.
//
// A forwarded batch enters the log at most once, although the network may
// duplicate and delay it, see admission.
//
// This member asks for votes only when its own term and vote are durable.
// RawNode does not see to that with AsyncStorageWrites, see drain.
//
// Where there are other voters, what depends on a new term or vote waits until a
// second copy of them is durable, whose write began when the first had ended, see
// vouch. So the second copy's batch vouches for the first, and no damage to one
// batch of the log makes a member forget them: it is never in an earlier term than
// it was when it last spoke.
//
// A read is answered from a state that includes everything acknowledged before
// it was asked, by whichever member. Contexts of questions are never reused. A
// member that is alone answers at once, see core.inlineReads.
//
// Membership: the state machine has the truth, in the same checkpoint as its
// applied index. raft's own copy is compared after every change.
//
// # Records of the log
//
// All integers are little-endian u64. The log itself frames and checks records.
//
//	entry   1 | type (1) | term | index | commit | data
//	state   2 | term | vote | commit
//	base    3 | version = 1 (1) | member | cluster | index | term | term, vote, commit | confstate
//	intent  4 | index | term
//
// An entry replaces the entry of its index and all after it. Commit is what was
// known to be committed; it is a hint that saves time after a restart, so that
// it needs no write of its own. State is written when term or vote change, and
// after a membership change. Base says that the log starts after index, whose
// term it names: everything before may be missing, and usually part of it is
// still there. It repeats who the member is and the hard state, because their
// records may be trimmed; it is durable before Log.TrimBefore is called. The
// membership is in it only for the bootstrap (index 1), before the first
// checkpoint exists. Intent says that the state machine is about to take over a
// leader's snapshot.
//
// Sound, 5 and nothing else, says that what a cut took from the log is there again.
//
// The data of an entry is a frame, see frame.go: kind 1 and the operations, or
// kind 2, the origin of a forwarded batch and the operations. Empty data is a
// leader's first entry of its term.
//
// # Recovery, and what a crash leaves
//
// The log gives back a prefix of its records. They are replayed in order into a
// window; entries after the state machine's applied index are applied again.
//
//	entries in flight            some are there: they were not acknowledged, and
//	                             may become committed all the same
//	term or vote in flight       not there: nobody was told of them
//	base written, not trimmed    the base holds, the older records do not count
//	trimmed, in part             as before: the base is there
//	snapshot, intent only        the store is as before, so is the log
//	… and the store, no base     applied is the intent's index: the log starts there
//	… and the base               the log starts there
//	bootstrap, no base           the log is empty: it is bootstrapped again
//
// Open refuses when log and store cannot belong together; errors.go lists how.
//
// # A log whose end was damaged
//
// A torn write was never acknowledged, so a log without it is whole. If the log's
// newest batches were on the disk as a whole and are damaged since (Found.Doubtful;
// the wal package can tell), entries may be missing that this member acknowledged,
// and that are committed because of it. What it must not do is help somebody to
// become the leader who does not have them either. So:
//
//   - In doubt a member does not campaign and grants no vote. Where it knows of two
//     voters only, it does: nobody is elected there without the other one, whose log
//     is whole. Its requests and grants say what they are worth, and count only if
//     the other one knows of two voters too and has no change of that in its log.
//   - It follows as always, and its acknowledgements count: each says what is there
//     now. Only the leader's idea of what this member had before is wrong, and
//     RawNode cannot be told. So the member asks, and the leader answers from its own
//     log, or with a snapshot, see doubt.
//   - The doubt ends when its log is, durably, the leader's up to where that ended
//     when it answered. Proof: this member's term is not lower than any in which it
//     acknowledged anything (see vouch), so the leader's is not either. What it
//     acknowledged in the leader's term, the leader has, for it came from there. What
//     it acknowledged before and is committed, the leader has, for it was elected by
//     voters of whom none was in doubt, or by all. Both lie at or before the end of
//     the leader's log.
//   - It is written down: the log remembers the cut, a sound record ends it, and the
//     log is not trimmed in between. A state machine that is ahead of what is left
//     of the log is committed; the log then starts behind it.
//
// Of an entry at least one copy that was acknowledged must be whole, and the member
// that has it must take part: with three voters, one of whom is in doubt, the two
// others are needed.
//
// A member that is alone has nobody to ask. Its log is refused, unless StandAlone
// says to go on with what is there.
//
// # A state that came from a peer
//
// A state machine whose store was damaged may take the state of a peer before Open
// (Config.Replaced). It is committed, so that the log has nothing to say against it:
// where it ends before, or has another entry there, it starts anew behind it.
//
// # Failure
//
// The first error of the log is final: nothing is acknowledged, sent or applied
// after it, everybody who waits is dropped, Done is closed, and the process must
// end. So is a write that takes longer than LogStallMillis. A leader whose write
// takes longer than an election hands leadership over first. Heartbeats do not wait
// for the log, nor does anything else under mu: entries of peers that would fill the
// log's buffers are refused (maxBacklog), and sent again. A state machine
// whose membership differs from raft's, and a broken rule between this package
// and RawNode, are panics.
//
// # Known limits
//
// Membership changes go one member at a time. If one of two voters, as leader,
// commits its own demotion and crashes before the other has heard of it, nobody
// can be elected. A leader does not propose that, see core.leavesFirst, but it
// can inherit such an entry from the leader before it.
//
// A follower that needs entries which are no longer in the window needs a
// snapshot, that is a Snapshotter and a transport for its content.
package raft
