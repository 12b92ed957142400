package raft

import (
	"go.etcd.io/raft/v3/raftpb"

	"quire/wal"
)

// Index is a position in the raft log.
type Index uint64

// Term is an election term.
type Term uint64

// Pos is a position in the write-ahead log.
type Pos = wal.Pos

// Waiter waits for the outcome of one operation. Exactly one of two things
// happens to it: it is handed to StateMachine.Apply (or ApplyConfChange), or
// Dropped is called. Dropped must not block and must not call the Node. It is
// an alias of an unnamed type so that the state machine can name the same type
// without importing this package. nil is allowed.
type Waiter = interface{ Dropped(err error) }

// ReadWaiter waits for a ReadIndex that could not be answered at once.
// ReadReady is called exactly once; with nil, everything that was acknowledged
// before the ReadIndex call is applied. It must not block.
type ReadWaiter = interface{ ReadReady(err error) }

// StateMachine is the replicated state. Calls never overlap and each happens
// before the next, in log order, with no lock of this package that Propose,
// ReadIndex or Status would need; they come from the completion goroutine or
// the applier goroutine.
type StateMachine interface {
	// Apply applies one entry. data holds the operations, each as uvarint
	// length and bytes (see NextOp), and is immutable; empty data only moves
	// the applied position. waiters is nil (proposed elsewhere, replayed or
	// timed out) or has one element per operation; the slice is reused after
	// the call, its elements may be kept.
	Apply(index, term uint64, data []byte, waiters []interface{ Dropped(error) })
	// ApplyConfChange applies one membership change (wire bytes of a
	// raftpb.ConfChangeV2 with exactly one change) and returns the wire bytes
	// of the raftpb.ConfState that holds from here on, or nil if it refuses
	// the change. The state machine's membership is the only truth; this
	// package panics if its own result differs.
	ApplyConfChange(index, term uint64, cc []byte, waiter interface{ Dropped(error) }) (confState []byte)
	// Flush ends a group of applied entries: results become visible and
	// waiters are answered.
	Flush()
	// LeaderChanged tells of a new leader (0: none) or term, in order with
	// the calls above.
	LeaderChanged(lead, term uint64, isLeader bool)
}

// Snapshotter is implemented by a StateMachine that can hand its whole state
// to a peer and take one over. Without it, a peer that needs entries which are
// gone from memory is never served, and an incoming snapshot is ignored.
type Snapshotter interface {
	// Snapshot names a state of at least index atLeast that the transport can
	// stream to a peer: the entries before are not in memory any more, so an
	// older one would not help. If there is none, it has one made and returns
	// false; it will be asked again. It is called with the core's lock held
	// and must return at once.
	Snapshot(atLeast uint64) (index, term uint64, confState []byte, ok bool)
	// Restore makes the state that the transport staged under (index, term)
	// the current one, durably. It is called in order with Apply.
	Restore(index, term uint64, confState []byte) error
}

// Transport carries messages to peers. Send must not block: it puts them into
// bounded queues and drops what does not fit. It is called by one goroutine at
// a time. The slice is reused after the call; messages and the entries in them
// are immutable and may be kept. Delivery may lose,
// delay, duplicate and reorder, but the end of each MsgSnap, good or bad, must
// be told through ReportSnapshot: until then the peer is sent nothing else.
type Transport interface {
	Send(msgs []*raftpb.Message)
}

// Log is the write-ahead log as this package uses it. AppendParts and Submit
// are called under the core's lock, Wait by the completion goroutine only,
// TrimBefore by the caller of Compact.
type Log interface {
	// AppendParts adds one record, the concatenation of parts, which it
	// copies. The record is durable once Wait has returned its position or a
	// later one.
	AppendParts(parts ...[]byte) (Pos, error)
	// Submit starts to write what was appended. ops is the number of
	// operations that wait for it. This package keeps the fair-share gate
	// itself, because the gate decides when a batch is closed, and always
	// forces.
	Submit(ops int, force bool) error
	// Wait blocks until more has become durable and returns up to where.
	Wait() (durable Pos, err error)
	// TrimBefore gives up records before p.
	TrimBefore(p Pos) error
	// Close waits for what is in flight and makes Wait return an error.
	Close() error
}

// OpenLog recovers the log, calling replay for each record in order, and
// returns it ready for appending. The record is valid only during the call.
//
// With the wal package:
//
//	func(replay func(Pos, []byte) error) (raft.Log, raft.Found, error) {
//		l, recovery, err := wal.Open(device, options, replay)
//		…
//		return l, raft.Found{Doubtful: recovery.Doubtful, After: recovery.DoubtPos}, err
//	}
type OpenLog func(replay func(pos Pos, rec []byte) error) (Log, Found, error)

// Found is what a log knows of its own end.
type Found struct {
	// Doubtful: records behind After were cut off, now or at an earlier start,
	// although they may have been durable once: see doubt.
	Doubtful bool
	After    Pos
}

var _ Log = (*wal.Log)(nil)
