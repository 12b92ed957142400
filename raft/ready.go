package raft

import (
	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// drain takes everything that RawNode has to hand out. One Ready empties it;
// another is needed only if responses could be stepped right away.
//
// Requests for votes wait until this member's own term and vote are durable,
// which RawNode does not ask for. Without that, the votes of others can elect a
// member that then crashes, forgets the term, is elected in it a second time,
// and writes other entries under the same index and term: committed entries
// are lost. The simulation finds it within a few hundred seeds.
func (c *core) drain() {
	for c.err == nil {
		rd := c.rn.Ready()
		var votes []*raftpb.Message
		for _, m := range rd.Messages {
			switch to := m.GetTo(); {
			case to == etcdraft.LocalAppendThread:
				c.storageAppend(m)
			case c.withheld(m):
			case to == etcdraft.LocalApplyThread:
				c.committed.push(applyItem{msg: m})
			case m.GetType() == raftpb.MsgVote:
				votes = append(votes, m)
			default:
				c.fx.msgs = append(c.fx.msgs, m)
			}
		}
		if len(votes) > 0 {
			c.appends.push(appendItem{pos: c.lastPos, msgs: votes})
		}
		if rd.HardState != nil || rd.SoftState != nil {
			c.noteLeader(rd.SoftState)
		}
		for i := range rd.ReadStates {
			c.readConfirmed(rd.ReadStates[i].Index, rd.ReadStates[i].RequestCtx)
		}
		if !c.deliver() {
			return
		}
	}
}

// noteLeader compares who leads in which term with what was known. It runs
// after the Ready's entries have reached the window.
func (c *core) noteLeader(ss *etcdraft.SoftState) {
	lead, leader := c.lead.lead, c.lead.isLeader
	if ss != nil {
		lead, leader = ss.Lead, ss.RaftState == etcdraft.StateLeader
	}
	now := leadEvent{lead, c.hs.term, leader}
	if now == c.lead {
		return
	}
	if leader && c.doubt != nil {
		c.endDoubt("everybody has elected this member")
	}
	if leader && !c.lead.isLeader {
		// A term's first entry is its leader's empty one.
		c.termStart = c.st.runs.back().index
	}
	known := lead != 0 || c.lead.lead != 0
	led := c.lead.isLeader
	c.lead = now
	c.stalled = false
	if led {
		// Cut off, perhaps: the readers may have better luck with another member.
		c.rounds.failAsked(ErrLeaderChanged)
	} else {
		c.askAgain()
	}
	c.fx.lead = true
	if known {
		ev := now // escapes only here
		c.committed.push(applyItem{lead: &ev})
	}
}

// storageAppend writes what a MsgStorageAppend asks for into the log and keeps
// its responses until that is durable. RawNode's rule is that such messages
// take effect in order; term and vote may go ahead of entries that are held.
func (c *core) storageAppend(m *raftpb.Message) {
	if m.Term != nil {
		c.noteHardState(hardState{m.GetTerm(), m.GetVote(), m.GetCommit()})
	}
	c.appendOrRestore(m)
}

func (c *core) appendOrRestore(m *raftpb.Message) {
	switch {
	case c.restoring != nil:
		c.held = append(c.held, m)
	case !etcdraft.IsEmptySnap(m.GetSnapshot()):
		c.beginRestore(m)
	default:
		c.appendEntries(m)
	}
}

func (c *core) appendEntries(m *raftpb.Message) {
	for _, e := range m.GetEntries() {
		c.appendEntry(e)
	}
	if len(m.GetResponses()) > 0 {
		c.appends.push(appendItem{pos: c.lastPos, msgs: m.GetResponses()})
	}
}

// noteHardState makes term and vote durable. A newer commit index alone needs
// no record: losing it costs nothing but time, and each entry's record carries
// the newest.
func (c *core) noteHardState(hs hardState) {
	old := c.hs
	c.hs = hs
	if hs.term != old.term || hs.vote != old.vote {
		c.head = appendState(c.head[:0], hs)
		pos := c.appendRecord(c.head, nil)
		if !c.mem.single {
			c.vouch.noteState(pos)
		}
	}
}

func (c *core) appendEntry(e *raftpb.Entry) {
	c.head = appendEntryHead(c.head[:0], e, c.hs.commit)
	pos := c.appendRecord(c.head, e.GetData())
	if c.err != nil {
		return
	}
	if err := c.st.append(e, pos, entryHeadBytes+len(e.GetData())); err != nil {
		panic("raft: " + err.Error()) // RawNode broke its contract
	}
	c.gate.openOps++ // at least; own batches are counted in propose
}

func (c *core) appendBase(at entryID, bootConf []byte) {
	c.head = appendBase(c.head[:0], baseRecord{
		member: c.cfg.ID, cluster: c.cfg.ClusterID, at: at, hs: c.hs, confState: bootConf,
	})
	c.appendRecord(c.head, nil)
}

// appendRecord is the only place that writes to the log. After an error the
// member does nothing more: nobody knows what the log holds.
func (c *core) appendRecord(head, data []byte) Pos {
	if c.err != nil {
		return c.lastPos
	}
	c.parts[0], c.parts[1] = head, data
	parts := c.parts[:2]
	if len(data) == 0 {
		parts = c.parts[:1]
	}
	pos, err := c.log.AppendParts(parts...)
	c.parts[1] = nil
	if err != nil {
		c.fail(err)
		return c.lastPos
	}
	c.lastPos = pos
	c.gate.dirty = true
	c.gate.openBytes += len(head) + len(data)
	return pos
}

// deliver sends the responses whose writes are durable: to RawNode or to
// peers. It reports whether RawNode was stepped.
func (c *core) deliver() (stepped bool) {
	for c.appends.len() > 0 && c.appends.front().pos <= c.durable && !c.vouch.holds(c.appends.front().pos) {
		it := c.appends.pop()
		for _, m := range it.msgs {
			if m.GetTo() == c.cfg.ID {
				_ = c.rn.Step(m) // responses to oneself cannot fail
				stepped = true
			} else if !c.withheld(m) {
				c.noteMatch(m)
				c.fx.msgs = append(c.fx.msgs, m)
			}
		}
		if it.snap != nil {
			c.committed.push(applyItem{snap: it.snap})
		}
		if it.trim != nil {
			// Not before the base record itself: what came after it, a vote
			// for example, is not in it.
			it.trim.pos, it.trim.ok = c.st.trimTo(it.trim.index)
			it.trim.pos = min(it.trim.pos, it.pos)
			c.fx.trims = append(c.fx.trims, it.trim)
		}
	}
	return stepped
}

// beginRestore hands a leader's snapshot to the state machine. The intent
// record lets a restart accept a store that is ahead of the log.
func (c *core) beginRestore(m *raftpb.Message) {
	meta := m.GetSnapshot().GetMetadata()
	c.head = appendIntent(c.head[:0], entryID{meta.GetIndex(), meta.GetTerm()})
	c.appendRecord(c.head, nil)
	c.restoring = m.GetSnapshot()
	c.held = append(c.held, m)
	c.appends.push(appendItem{pos: c.lastPos, snap: m.GetSnapshot()})
}

// restored continues after the state machine has the snapshot durably: the log
// starts anew behind it, then come the messages that waited.
func (c *core) restored() {
	meta := c.restoring.GetMetadata()
	at := entryID{meta.GetIndex(), meta.GetTerm()}
	c.restoring = nil
	c.st.reset(at)
	c.mem.set(c.cfg.ID, meta.GetConfState(), at.index, c.hs.commit)
	c.applied = at.index
	c.appendBase(at, nil)
	held := c.held
	c.held = nil
	c.appendEntries(held[0])
	for _, m := range held[1:] {
		c.appendOrRestore(m)
	}
	c.under.covered(at)
	c.drain()
}
