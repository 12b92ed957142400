package raft

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// ErrNotMember says that a member that was removed, or never was one, cannot be
// made a cluster of one.
var ErrNotMember = errors.New("raft: this member is not part of the cluster that its log describes")

// standAlone makes this member the only one, before RawNode exists: it appends
// the removal of every other member to the log, makes that durable and takes all
// of the log as committed. The state machine applies the removals in their turn,
// so that it decides about them as about any change.
//
// Entries that are not known to be committed are kept: some may have been
// acknowledged, since the commit index on the disk lags. etcd discards them.
func (c *core) standAlone() error {
	voters, learners, err := c.finalMembers()
	if err != nil {
		return err
	}
	self := c.cfg.ID
	var changes []*raftpb.ConfChangeSingle
	change := func(typ raftpb.ConfChangeType, id uint64) {
		changes = append(changes, &raftpb.ConfChangeSingle{Type: typ.Enum(), NodeId: &id})
	}
	switch {
	case slices.Contains(learners, self):
		change(raftpb.ConfChangeAddNode, self)
	case !slices.Contains(voters, self):
		return ErrNotMember
	}
	for _, id := range slices.Concat(voters, learners) {
		if id != self {
			change(raftpb.ConfChangeRemoveNode, id)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	c.hs.term = max(c.hs.term, 1)
	for _, ch := range changes {
		if err := c.appendForced(ch); err != nil {
			return err
		}
	}
	c.hs.commit = c.st.lastIndex()
	c.st.hs = c.hs
	c.head = appendState(c.head[:0], c.hs)
	c.appendRecord(c.head, nil)
	return c.awaitLog()
}

// finalMembers returns who is a member when all of the log is applied. A change
// that the state machine refuses counts as made: whoever is removed in vain does
// no harm.
func (c *core) finalMembers() (voters, learners []uint64, err error) {
	voters, learners = slices.Clone(c.mem.conf.GetVoters()), slices.Clone(c.mem.conf.GetLearners())
	for k := range c.st.ents.len() {
		e := *c.st.ents.at(k)
		if e.GetType() != raftpb.EntryConfChangeV2 || e.GetIndex() <= c.applied {
			continue
		}
		_, cc, _, err := cutConfChange(e.GetData())
		if err != nil {
			return nil, nil, fmt.Errorf("raft: membership change %d: %w", e.GetIndex(), err)
		}
		for _, ch := range cc.GetChanges() {
			id := ch.GetNodeId()
			is := func(x uint64) bool { return x == id }
			switch ch.GetType() {
			case raftpb.ConfChangeAddNode:
				learners = slices.DeleteFunc(learners, is)
				voters = append(slices.DeleteFunc(voters, is), id)
			case raftpb.ConfChangeAddLearnerNode:
				if !slices.Contains(voters, id) && !slices.Contains(learners, id) {
					learners = append(learners, id)
				}
			case raftpb.ConfChangeRemoveNode:
				// It may have been refused: then it is removed again.
				if id == c.cfg.ID {
					return nil, nil, ErrNotMember
				}
			}
		}
	}
	return voters, learners, nil
}

func (c *core) appendForced(ch *raftpb.ConfChangeSingle) error {
	cc, err := proto.Marshal(&raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{ch}})
	if err != nil {
		return err
	}
	_, data, err := frameConfChange(cc, []byte{frameLocal})
	if err != nil {
		return err
	}
	index, term := c.st.lastIndex()+1, c.hs.term
	c.cfg.Logger.Sugar().Warnf("forcing a cluster of one: %v of member %x", ch.GetType(), ch.GetNodeId())
	c.appendEntry(&raftpb.Entry{Type: raftpb.EntryConfChangeV2.Enum(), Term: &term, Index: &index, Data: data})
	return c.err
}

// awaitLog makes what was appended durable. No other goroutine is there yet.
func (c *core) awaitLog() error {
	if c.err != nil {
		return c.err
	}
	if err := c.log.Submit(1, true); err != nil {
		return fmt.Errorf("raft: log: %w", err)
	}
	for c.durable < c.lastPos {
		pos, err := c.log.Wait()
		if err != nil {
			return fmt.Errorf("raft: log: %w", err)
		}
		c.durable = pos
	}
	c.gate.dirty, c.gate.openOps, c.gate.openBytes = false, 0, 0
	return nil
}
