// Package membership answers requests that change who is a member of the cluster
// and which version the cluster runs, and follows both while this member leads.
//
// It owns the checks that etcd makes before it proposes a change: those that the
// replicated state cannot make, because they depend on the leader's view (who is
// connected, how far a learner has come) or on a member's flags. What can be
// decided from the state alone (unknown and removed members, URLs in use, too many
// learners) is checked when the change is applied, by package engine.
//
// It refuses to know how changes are agreed on, the wire, and the transport to
// peers: of those it learns through Config.ActiveSince since when they answer.
//
// # Terms
//
//   - voter, learner: raft's. A member has started when it has told its name.
//   - strict check: --strict-reconfig-check, the refusal of a change after which
//     the members that have started would be no quorum.
//   - cluster version: the major and minor version that all members support, with
//     patch 0. It is replicated, and the leader moves it. A downgrade under way
//     lowers it by one minor.
//
// # Owners
//
// Service has no state of its own but its Config; every method may be called by
// any goroutine and waits for the change to be applied. Watch is one goroutine,
// started by the owner and ended by its context.
//
// # Failure
//
// An error is one of this package, of engine or of raft; what raft reports as
// certain is certain (see package raft), and after raft.ErrTimeout the change may
// still happen: the list of members tells.
package membership
