package raft

import (
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// proposeWaiting proposes batches from the queue as long as the gate permits.
// A member that follows sends them to the leader, under the same gate applied
// to what it has under way there. Without a leader they wait.
func (c *core) proposeWaiting() {
	for c.mayPropose() {
		n := int(c.q.waiting.Load())
		if n == 0 {
			return
		}
		if c.lead.isLeader && !c.gate.permits(n) {
			return
		}
		if !c.lead.isLeader && c.under.fwd.len() > 0 && n*c.gate.depth < n+c.under.fwdOps {
			return
		}
		b := c.q.take()
		if b == nil {
			return
		}
		if c.lead.isLeader {
			c.propose(b)
		} else {
			c.forward(b)
		}
		c.submit()
	}
}

// mayPropose is false as long as no number of waiting operations would open a
// batch: then an event will, and whoever brings it looks at the queue.
func (c *core) mayPropose() bool {
	if c.err != nil || c.stalled || c.lead.lead == 0 || c.restoring != nil {
		return false
	}
	if c.lead.isLeader {
		return c.gate.inflight.len() < c.gate.depth
	}
	return c.under.fwd.len() < c.gate.depth
}

// propose makes b an entry of the leader's own log.
func (c *core) propose(b *batch) {
	p := &c.prop
	p.entry.Data, p.entry.Type = b.data, nil
	if b.conf {
		cc, data, err := frameConfChange(b.data, []byte{frameLocal})
		if err != nil {
			c.under.drop(b, err)
			return
		}
		if c.leavesFirst(cc) {
			c.q.putBack(b)
			c.stalled = true
			return
		}
		p.entry.Data, p.entry.Type = data, raftpb.EntryConfChangeV2.Enum()
	}
	p.ents[0] = &p.entry
	p.msg.Type, p.msg.From, p.msg.Entries = p.typ, &c.cfg.ID, p.ents[:]
	err := c.rn.Step(&p.msg)
	p.entry.Data = nil
	if err != nil {
		// Leadership is being handed over, or too much is uncommitted.
		c.q.putBack(b)
		c.stalled = true
		return
	}
	c.drain()
	if c.err != nil {
		c.under.drop(b, ErrStopped)
		return
	}
	b.id = entryID{c.st.lastIndex(), c.hs.term}
	c.gate.openOps += len(b.waiters) - 1
	c.under.own.push(b)
}

// forward sends b to the leader.
func (c *core) forward(b *batch) {
	c.fwdSeq++
	b.seq, b.id = c.fwdSeq, entryID{term: c.hs.term}
	if err := c.sendForward(b); err != nil {
		c.under.drop(b, err)
		return
	}
	c.under.forwarded(b)
}

// sendForward sends a copy of b under the identity that it has.
func (c *core) sendForward(b *batch) error {
	head := appendOrigin(nil, origin{c.cfg.ID, c.cfg.Session, b.id.term, b.seq})
	e := &raftpb.Entry{}
	if b.conf {
		_, data, err := frameConfChange(b.data, head)
		if err != nil {
			return err
		}
		e.Data, e.Type = data, raftpb.EntryConfChangeV2.Enum()
	} else {
		e.Data = append(head, b.data[1:]...)
	}
	to := c.lead.lead
	c.fx.msgs = append(c.fx.msgs, &raftpb.Message{
		Type: raftpb.MsgProp.Enum(), From: &c.cfg.ID, To: &to, Entries: []*raftpb.Entry{e},
	})
	b.sent = c.now
	return nil
}

// forwardAgain repeats what a leader has not shown to have: it may have been
// lost. The leader takes up each batch once, see admission. A batch of an
// earlier term waits until its fate is known.
func (c *core) forwardAgain() {
	if c.lead.lead == 0 || c.lead.isLeader {
		return
	}
	patience := uint64(c.cfg.electionTicks())
	for i := range c.under.fwd.len() {
		if b := *c.under.fwd.at(i); b.id.term == c.hs.term && (c.leaderLost || c.now-b.sent >= patience) {
			_ = c.sendForward(b) // it was encoded before
		}
	}
}

// frameConfChange puts the frame head in front of the change's Context.
func frameConfChange(cc, head []byte) (*raftpb.ConfChangeV2, []byte, error) {
	v := &raftpb.ConfChangeV2{}
	if err := proto.Unmarshal(cc, v); err != nil {
		return nil, nil, err
	}
	v.Context = append(head, v.Context...)
	data, err := proto.Marshal(v)
	return v, data, err
}

// changeIn returns the membership change that a peer proposes, if it is one.
func changeIn(m *raftpb.Message) *raftpb.ConfChangeV2 {
	e := m.GetEntries()[0]
	if e.GetType() != raftpb.EntryConfChangeV2 {
		return nil
	}
	_, v, _, _ := cutConfChange(e.GetData()) // admitted: it can be read
	return v
}

// proposeAgain puts batches back that another leader's entries have passed by.
// They keep their age, so that they end no later than if they had waited.
func (c *core) proposeAgain() {
	for i := len(c.under.again) - 1; i >= 0; i-- {
		c.q.putBack(c.under.again[i])
	}
	clear(c.under.again)
	c.under.again = c.under.again[:0]
}

// cutConfChange undoes frameConfChange and returns the change both ways.
func cutConfChange(data []byte) (org origin, v *raftpb.ConfChangeV2, cc []byte, err error) {
	v = &raftpb.ConfChangeV2{}
	if err = proto.Unmarshal(data, v); err != nil {
		return org, nil, nil, err
	}
	if org, v.Context, err = cutFrame(v.GetContext()); err != nil {
		return org, nil, nil, err
	}
	if len(v.Context) == 0 {
		v.Context = nil
	}
	cc, err = proto.Marshal(v)
	return org, v, cc, err
}

// originOf tells who forwarded an entry.
func originOf(e *raftpb.Entry) (org origin, err error) {
	switch e.GetType() {
	case raftpb.EntryNormal:
		org, _, err = cutFrame(e.GetData())
	case raftpb.EntryConfChangeV2:
		org, _, _, err = cutConfChange(e.GetData())
	default:
		err = errFrame
	}
	return org, err
}

// expireProposals ends waits that have lasted too long.
func (c *core) expireProposals() {
	limit := c.cfg.ticks(c.cfg.ProposalTimeoutMillis)
	if c.now <= limit {
		return
	}
	old := c.now - limit
	for b := c.q.takeOld(old); b != nil; b = c.q.takeOld(old) {
		err := ErrNoLeader
		if c.lead.lead != 0 {
			err = ErrProposalDropped
		}
		c.under.drop(b, err)
	}
	c.under.expire(old)
}

// dropAll ends all waits when the member stops.
func (c *core) dropAll(err error) {
	c.under.all(err)
	for b := c.q.take(); b != nil; b = c.q.take() {
		c.under.drop(b, err)
	}
	if ws, _ := c.reads.take(); len(ws) > 0 {
		c.rounds.tell(ws, err)
	}
	c.rounds.failAll(err)
}
