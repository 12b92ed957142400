package raft

import (
	"errors"
	"fmt"
)

// Outcomes of one operation. Those that come back from Propose or Enqueue mean
// that the waiter is never called; the others reach it through Dropped.
var (
	// ErrTooManyRequests: the pending operations or bytes are at their bound.
	ErrTooManyRequests = errors.New("raft: too many pending operations")
	// ErrTooLarge: one operation above Config.MaxOpBytes.
	ErrTooLarge = errors.New("raft: operation too large")
	// ErrStopped: the member is stopping or broken. From Propose: not
	// proposed. Through Dropped: the fate of the operation is unknown.
	ErrStopped = errors.New("raft: stopped")
	// ErrNoLeader: the operation waited in vain for a leader; it is not
	// applied and never will be.
	ErrNoLeader = errors.New("raft: no leader")
	// ErrProposalDropped: refused before it entered any log.
	ErrProposalDropped = errors.New("raft: proposal dropped")
	// ErrLeaderChanged: for a read, this member ceased to lead while the read
	// was confirmed. For a transfer of leadership, somebody else leads.
	ErrLeaderChanged = errors.New("raft: leader changed")
	// ErrTimeout: not committed within Config.ProposalTimeoutMillis; it may
	// still be applied later.
	ErrTimeout = errors.New("raft: timed out")
	// ErrConfChangeRefused: the leader refused the membership change because
	// an earlier one is not applied yet.
	ErrConfChangeRefused = errors.New("raft: membership change refused, an earlier one is pending")
	// ErrConfChangeInvalid: ProposeConfChange takes exactly one change with
	// the automatic transition.
	ErrConfChangeInvalid = errors.New("raft: membership change must hold exactly one change")
	// ErrNotLeader: only the leader can do this.
	ErrNotLeader = errors.New("raft: not the leader")
)

// Refusals of Open: the store and the log do not belong together, or one of
// them is damaged. Each is wrapped with the numbers.
var (
	// ErrNoLog: the state machine has applied entries but the log is empty.
	ErrNoLog = errors.New("raft: the data directory has a store but no log")
	// ErrNewLog: the log is empty and Config.NewLog does not allow a new one.
	ErrNewLog = errors.New("raft: the log is empty and a new one was not asked for")
	// ErrNoStore: the log starts after index 1 but nothing is applied.
	ErrNoStore = errors.New("raft: the log has been trimmed but the store is empty")
	// ErrLogEndsEarly: the log ends before the applied index.
	ErrLogEndsEarly = errors.New("raft: the log ends before the store's applied index")
	// ErrLogStartsLate: the log starts after the applied index.
	ErrLogStartsLate = errors.New("raft: the log starts after the store's applied index")
	// ErrHistoryMismatch: log and store disagree about the term of the applied
	// index, or about the members the cluster was bootstrapped with.
	ErrHistoryMismatch = errors.New("raft: log and store are of different histories")
	// ErrWrongMember: the log belongs to another member or cluster.
	ErrWrongMember = errors.New("raft: the log belongs to another member")
)

// CorruptError tells that a record of the log cannot be what this package
// wrote, although the log's own checks passed.
type CorruptError struct {
	Pos  Pos
	What string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("raft: corrupt log record at position %d: %s", e.Pos, e.What)
}
