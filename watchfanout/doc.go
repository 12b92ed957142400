// Package watchfanout ships the engine's events to the watchers of all client
// streams, with etcd 3.7's semantics of the Watch call. It knows ranges,
// revisions and the wire form of WatchResponse; it does not know gRPC, HTTP/2,
// the store, leases or users.
//
// # Terms
//
//   - watcher: what a create request makes; a member of a cursor.
//   - cursor: all watchers of one stream with the same range, variant (prev_kv
//     and filters) and position. It is what Publish looks at, so that a
//     thousand equal watchers of a stream cost it as much as one.
//   - group: the cursors of one range. A matcher finds the groups of a key: a
//     map of exact keys, a map per prefix length (64 lengths at most), an
//     interval treap for whatever is left.
//   - batch: the events of one Publish, or of one chunk of history, encoded
//     once, without prev_kv and with it as far as anybody wants them.
//   - segment: the part of a batch that matches one group. It is positions in
//     the batch, and shared by all cursors of the group.
//   - item: a segment queued for a cursor. Fill expands it into one response
//     per watcher: header, watch id, the shared event bytes.
//   - synced: a cursor that Publish offers events to. One that is not is
//     demoted (just thrown out), or catches up in a cohort: cursors of one
//     stream that read history together.
//
// # The way of an event
//
// The apply goroutine calls Publish with whole revisions. Under hub.mu it
// matches, encodes what somebody will get, and puts an item into the queue of
// every matching stream; then it calls Ready of the streams whose queue was
// drained. The transport calls Fill when the client can take more, and is given
// whole encoded messages.
//
// A cursor whose stream's queue is full is demoted: it keeps no events, only
// the revision it needs next. When the transport has drained half the queue, a
// worker reads history from there on, with no lock held, one chunk for one
// cohort at a time, and queues it; when the cohort has read all that was
// published it is promoted in the same hold of hub.mu that compared the
// revisions, so that no event is missed and none is given twice. Chunks read
// last are kept for other streams that come along the same way. A batch
// published without the previous values that a watcher wants is repaired the
// same way.
//
// # Promises
//
//   - A watcher gets every matching event from its start revision on, in
//     revision order, each once, until it is canceled.
//   - The events of a revision come in one response; with fragment, in
//     consecutive ones, also if the watcher is canceled in between, for clients
//     lose what comes between fragments. A response may hold several revisions.
//   - A response's header revision is that of its last event when it was live,
//     and the revision up to which history was read when it was not.
//   - created comes before any event of the watcher, nothing comes after
//     canceled.
//   - A notification of revision R comes after every event up to R of the
//     watchers that it is for: it is queued like an event, while all those
//     watchers are synced.
//   - A watcher whose client loses the right to it is canceled soon, without
//     what was queued for it.
//   - A watcher whose next revision was compacted is canceled with
//     compact_revision, after the events that were queued for it.
//
// It differs from etcd in this: revisions that are published together come in
// one response, as they do in etcd when they come from history; a watcher that
// compaction has canceled does not withhold the stream's notifications until
// the client cancels it as well; and a response from history whose chunk ends
// before the newest revision names in its header the revision it is complete up
// to.
//
// # Ownership and locks
//
// In this order:
//
//	stream.mu  a stream's ids, members of cursors, cohorts, the item that is
//	           being expanded. Fill holds it while it copies, the workers while
//	           they match a chunk. The publisher never takes it.
//	hub.mu     the matcher of synced cursors, their state and floor, the
//	           accounts of watchers, the published revision. Publish holds it
//	           throughout; others for at most 256 cursors at a time.
//	queue.mu   one stream's queue. Held for a few instructions.
//	leaves     workList.mu, chunkCache.mu, ticker.mu.
//
// No lock is held while History, Ready, Permit or Keep is called. Header and
// what Keep returned are called under locks. What is queued is immutable but for cursor.members (stream.mu)
// and batch.refs (atomic).
//
// Goroutines: Options.Workers workers, the ticker and the loop that checks
// rights again (recheck.go), from NewHub to Close. A timer runs while the total
// budget is exceeded.
//
// # Bounds
//
//   - Queue of a stream: Options.StreamPendingBytes of items, shared bytes
//     counted in full, or one item if that is larger, or the items of one
//     chunk. Past it, cursors are demoted.
//   - All queues: Options.TotalPendingBytes, shared bytes counted once. Past it
//     Publish demotes the cursors of every stream that has something queued,
//     workers do not start on further streams, and within 100 ms the streams
//     that have not called Fill are shed, oldest events first: their items are
//     dropped and the cursors go back to the first revision dropped. A shed
//     stream is given nothing before it calls Fill. It can be exceeded by a
//     chunk for each worker, and by an item for each stream that had nothing.
//   - Answers to create and cancel requests: Options.MaxControls for a stream,
//     then ErrBusy; one for each watcher of a cursor that compaction passes or
//     whose right is gone.
//     Notifications: one of each kind at a time.
//   - History: Options.ChunkBytes for each worker, and 4 chunks kept.
//   - A watcher costs some 280 bytes with a key of its own, some 80 when it
//     shares range and variant with another of its stream; a stream 900.
//
// # Faults
//
// History failing with anything but ErrCompacted ends the watchers that need
// it: canceled, the error's text as the reason, the error to
// Options.OnHistoryError. A revision published backwards is a broken invariant
// and panics.
package watchfanout
