package raft

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// membership is the configuration that raft runs on, seen from this member.
// The state machine owns the truth; this is its copy.
type membership struct {
	conf    *raftpb.ConfState
	index   uint64 // of the newest change, or where the member started
	single  bool   // this is the only voter
	voter   bool
	learner bool
	// alone: this is the only member, and that since the commit index aloneFrom.
	alone     bool
	aloneFrom uint64
}

// set takes note of the configuration conf that holds from index on.
func (m *membership) set(self uint64, conf *raftpb.ConfState, index, commit uint64) {
	m.conf, m.index = conf, index
	m.voter = slices.Contains(conf.GetVoters(), self)
	m.learner = slices.Contains(conf.GetLearners(), self)
	m.single = m.voter && len(conf.GetVoters()) == 1 && len(conf.GetVotersOutgoing()) == 0
	if alone := m.single && len(conf.GetLearners()) == 0; alone != m.alone {
		m.alone, m.aloneFrom = alone, commit
	}
}
