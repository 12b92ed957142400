package raft

import (
	"sync/atomic"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// Status is what a member knows of itself. The fields are read one by one, so
// they may be of slightly different moments.
type Status struct {
	ID, ClusterID uint64
	Lead          uint64 // 0: none
	Term          Term
	Commit        Index
	Applied       Index // flushed by the state machine
	LastIndex     Index
	IsLeader      bool
	IsVoter       bool
	IsLearner     bool // neither voter nor learner: removed, or not yet added
	IsDoubtful    bool // it may have lost entries that it acknowledged, see doubt
	PendingOps    int  // accepted and not finished
	PendingBytes  int
	// LogBytes is about how much log a restart would read: a reason to
	// checkpoint and call Compact.
	LogBytes uint64
}

// published is the part of the core's state that others read without its lock.
// Only the holder of the lock writes it.
type published struct {
	lead, term, commit, applied, last, logBytes atomic.Uint64
	leader, voter, learner, doubtful            atomic.Bool
	inline                                      atomic.Bool // reads need no round
}

// set writes v only if it differs: a store would take the cache line from the
// readers at every batch.
func set(a *atomic.Uint64, v uint64) {
	if a.Load() != v {
		a.Store(v)
	}
}

func setBool(a *atomic.Bool, v bool) {
	if a.Load() != v {
		a.Store(v)
	}
}

func (p *published) publish(c *core) {
	set(&p.lead, c.lead.lead)
	set(&p.term, c.hs.term)
	set(&p.commit, c.hs.commit)
	set(&p.applied, c.applied)
	set(&p.last, c.st.lastIndex())
	set(&p.logBytes, c.st.logBytes())
	setBool(&p.leader, c.lead.isLeader)
	setBool(&p.inline, c.inlineReads())
	setBool(&p.voter, c.mem.voter)
	setBool(&p.learner, c.mem.learner)
	setBool(&p.doubtful, c.doubt != nil)
}

// Status returns the member's state without waiting for anything.
func (n *Node) Status() Status {
	ops, bytes := n.q.pending()
	return Status{
		ID: n.cfg.ID, ClusterID: n.cfg.ClusterID,
		Lead: n.pub.lead.Load(), Term: Term(n.pub.term.Load()),
		Commit: Index(n.pub.commit.Load()), Applied: Index(n.pub.applied.Load()), LastIndex: Index(n.pub.last.Load()),
		IsLeader: n.pub.leader.Load(), IsVoter: n.pub.voter.Load(), IsLearner: n.pub.learner.Load(), IsDoubtful: n.pub.doubtful.Load(),
		PendingOps: ops, PendingBytes: bytes, LogBytes: n.pub.logBytes.Load(),
	}
}

// Progress returns up to where each member has the log, as far as this leader
// knows; nil if it does not lead.
func (n *Node) Progress() map[uint64]Index {
	var m map[uint64]Index
	n.mu.Lock()
	if c := n.mu.c; c.err == nil && c.lead.isLeader {
		m = make(map[uint64]Index)
		c.rn.WithProgress(func(id uint64, _ etcdraft.ProgressType, pr tracker.Progress) {
			m[id] = Index(pr.Match)
		})
	}
	n.exit(true)
	return m
}

// Detail returns the library's own status, which says more and marshals itself to
// JSON. It waits for the core.
func (n *Node) Detail() etcdraft.Status {
	n.mu.Lock()
	s := n.mu.c.rn.Status()
	n.exit(true)
	return s
}

// Awaits tells whether a snapshot that was announced to this member is still to be
// taken over by its state machine.
func (n *Node) Awaits(index Index, term Term) (awaits bool) {
	n.mu.Lock()
	c := n.mu.c
	for _, m := range c.held { // the first is being taken over
		if sn := m.GetSnapshot().GetMetadata(); sn.GetIndex() == uint64(index) && sn.GetTerm() == uint64(term) {
			awaits = true
		}
	}
	n.exit(true)
	return awaits
}
