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
		if !c.lead.isLeader && c.fwd.len() > 0 && n*c.gate.depth < n+c.fwdOps {
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
	return c.fwd.len() < c.gate.depth
}

// propose makes b an entry of the leader's own log.
func (c *core) propose(b *batch) {
	p := &c.prop
	p.entry.Data, p.entry.Type = b.data, nil
	if b.conf {
		data, err := frameConfChange(b.data, []byte{frameLocal})
		if err != nil {
			c.fx.drops = append(c.fx.drops, drop{b, err})
			return
		}
		p.entry.Data, p.entry.Type = data, raftpb.EntryConfChangeV2.Enum()
	}
	p.ents[0] = &p.entry
	p.msg.Type, p.msg.From, p.msg.Entries = raftpb.MsgProp.Enum(), &c.cfg.ID, p.ents[:]
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
		c.fx.drops = append(c.fx.drops, drop{b, ErrStopped})
		return
	}
	b.id = entryID{c.st.lastIndex(), c.hs.term}
	c.gate.openOps += len(b.waiters) - 1
	c.own.push(b)
}

// forward sends b to the leader. The data leaves with the message, so the
// batch gives it up.
func (c *core) forward(b *batch) {
	c.fwdSeq++
	b.seq, b.id = c.fwdSeq, entryID{term: c.hs.term}
	head := appendOrigin(nil, origin{c.cfg.ID, c.cfg.Session, c.hs.term, b.seq})
	e := &raftpb.Entry{}
	if b.conf {
		data, err := frameConfChange(b.data, head)
		if err != nil {
			c.fx.drops = append(c.fx.drops, drop{b, err})
			return
		}
		e.Data, e.Type = data, raftpb.EntryConfChangeV2.Enum()
	} else {
		e.Data = append(head, b.data[1:]...)
	}
	to := c.lead.lead
	c.fx.msgs = append(c.fx.msgs, &raftpb.Message{
		Type: raftpb.MsgProp.Enum(), From: &c.cfg.ID, To: &to, Entries: []*raftpb.Entry{e},
	})
	c.fwd.push(b)
	c.fwdOps += len(b.waiters)
}

// frameConfChange puts the frame head in front of the change's Context.
func frameConfChange(cc, head []byte) ([]byte, error) {
	var v raftpb.ConfChangeV2
	if err := proto.Unmarshal(cc, &v); err != nil {
		return nil, err
	}
	v.Context = append(head, v.Context...)
	return proto.Marshal(&v)
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

// admitForwarded decides whether a peer's proposal enters this leader's log.
// The network may deliver it late or twice: only batches of the current term
// are taken, each once. A member leads a term at most once in its life, so
// what was taken before a restart cannot come again.
func (c *core) admitForwarded(m *raftpb.Message) bool {
	if !c.lead.isLeader || len(m.GetEntries()) != 1 {
		return false
	}
	e := m.GetEntries()[0]
	var org origin
	var err error
	switch e.GetType() {
	case raftpb.EntryNormal:
		org, _, err = cutFrame(e.GetData())
	case raftpb.EntryConfChangeV2:
		org, _, _, err = cutConfChange(e.GetData())
	default:
		return false
	}
	if err != nil || org.member != m.GetFrom() || org.term != c.hs.term {
		return false
	}
	run := [2]uint64{org.member, org.session}
	seen := c.fwdSeen[run]
	if seen == nil {
		if len(c.fwdSeen) >= maxFwdRuns {
			return false
		}
		seen = &seqWindow{}
		c.fwdSeen[run] = seen
	}
	return seen.first(org.seq)
}

// maxFwdRuns bounds the runs of members whose proposals a leader remembers in
// one term. The runs of a member that restarted must be kept: a late copy of
// an old run's batch is still a copy.
const maxFwdRuns = 1024

// seqWindow remembers which of the newest 64 sequence numbers were seen; older
// ones count as seen.
type seqWindow struct {
	max  uint64
	bits uint64 // bit k: max-k was seen
}

// first reports whether seq is seen for the first time.
func (s *seqWindow) first(seq uint64) bool {
	if seq > s.max {
		s.bits = s.bits<<(seq-s.max) | 1
		s.max = seq
		return true
	}
	bit := uint64(1) << (s.max - seq)
	if s.max-seq >= 64 || s.bits&bit != 0 {
		return false
	}
	s.bits |= bit
	return true
}

// settle resolves what the committed entry e means for the operations under
// way, and returns the batch that it is. Terms only grow along the log: when
// an entry of term t is committed, no entry of an earlier term will ever be.
// So a batch is dropped for certain as soon as the log has passed it by.
func (c *core) settle(e *raftpb.Entry) *batch {
	id := entryID{e.GetIndex(), e.GetTerm()}
	for c.fwd.len() > 0 && (*c.fwd.front()).id.term < id.term {
		c.dropFwd(0, ErrLeaderChanged)
	}
	for c.own.len() > 0 {
		b := *c.own.front()
		if b.id == id {
			c.own.pop()
			if b.conf && e.GetType() != raftpb.EntryConfChangeV2 {
				c.fx.drops = append(c.fx.drops, drop{b, ErrConfChangeRefused})
				return nil
			}
			return b
		}
		if b.id.term > id.term || (b.id.term == id.term && b.id.index > id.index) {
			break
		}
		c.own.pop()
		c.fx.drops = append(c.fx.drops, drop{b, ErrLeaderChanged})
	}
	return c.settleFwd(e)
}

// settleFwd finds the batch that this member forwarded and the leader made e.
func (c *core) settleFwd(e *raftpb.Entry) *batch {
	if c.fwd.len() == 0 || len(e.GetData()) == 0 {
		return nil
	}
	var org origin
	if e.GetType() == raftpb.EntryNormal {
		org, _, _ = cutFrame(e.GetData())
	} else {
		org, _, _, _ = cutConfChange(e.GetData())
	}
	if org.member != c.cfg.ID || org.session != c.cfg.Session {
		return nil
	}
	for i := 0; i < c.fwd.len(); i++ {
		if b := *c.fwd.at(i); b.seq == org.seq && b.id.term == org.term {
			c.fwd.remove(i)
			c.fwdOps -= len(b.waiters)
			return b
		}
	}
	return nil
}

func (c *core) dropFwd(i int, err error) {
	b := c.fwd.remove(i)
	c.fwdOps -= len(b.waiters)
	c.fx.drops = append(c.fx.drops, drop{b, err})
}

// dropCovered ends the wait for batches that a snapshot may or may not contain.
func (c *core) dropCovered(at entryID) {
	for c.own.len() > 0 && (*c.own.front()).id.term <= at.term {
		c.fx.drops = append(c.fx.drops, drop{c.own.pop(), ErrTimeout})
	}
	for c.fwd.len() > 0 && (*c.fwd.front()).id.term <= at.term {
		c.dropFwd(0, ErrTimeout)
	}
}

// expireProposals ends waits that have lasted too long. The batches are in
// order of age, near enough: those put back by a refusal are the exception.
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
		c.fx.drops = append(c.fx.drops, drop{b, err})
	}
	for c.own.len() > 0 && (*c.own.front()).tick < old {
		c.fx.drops = append(c.fx.drops, drop{c.own.pop(), ErrTimeout})
	}
	for c.fwd.len() > 0 && (*c.fwd.front()).tick < old {
		c.dropFwd(0, ErrTimeout)
	}
}

// dropAll ends all waits when the member stops.
func (c *core) dropAll(err error) {
	for c.own.len() > 0 {
		c.fx.drops = append(c.fx.drops, drop{c.own.pop(), err})
	}
	for c.fwd.len() > 0 {
		c.dropFwd(0, err)
	}
	for b := c.q.take(); b != nil; b = c.q.take() {
		c.fx.drops = append(c.fx.drops, drop{b, err})
	}
	c.failReads(err)
}
