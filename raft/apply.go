package raft

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// group is one run of committed entries on its way through the state machine.
// It is reused; applyMu guards it.
type group struct {
	ents    []*raftpb.Entry
	batches []*batch // per entry: its waiters are ours, or nil
	msg     *raftpb.Message
	// reported is how many entries RawNode knows to be applied.
	reported int
	lead     *leadEvent
	snap     *raftpb.Snapshot
}

// flushBytes is how much is applied between two Flushes of one group: after a
// restart a group can be the whole log.
const flushBytes = 4 << 20

// takeCommitted fills g with the next thing for the state machine.
func (c *core) takeCommitted(g *group) bool {
	clear(g.batches)
	*g = group{batches: g.batches[:0]}
	if c.err != nil || c.committed.len() == 0 {
		return false
	}
	it := c.committed.pop()
	g.msg, g.lead, g.snap = it.msg, it.lead, it.snap
	if it.msg == nil {
		return true
	}
	g.ents = it.msg.GetEntries()
	for _, e := range g.ents {
		g.batches = append(g.batches, c.under.settle(e))
	}
	c.proposeAgain()
	return true
}

// completionLoop is the hot path of a batch after its write: the log says how
// far it is durable, the core turns that into committed entries, and the same
// goroutine applies them. A hop to another goroutine would cost 5 µs a batch.
func (n *Node) completionLoop() {
	defer n.wg.Done()
	for {
		pos, err := n.log.Wait()
		if err != nil {
			n.logEnded(err)
			return
		}
		n.durable(pos)
	}
}

// durable lets the core know, takes what is committed in the same go, and
// applies it, unless the applier is at it: that one looks again before it rests.
func (n *Node) durable(pos Pos) {
	free := n.applyMu.TryLock()
	n.mu.Lock()
	n.mu.c.logDurable(pos)
	more := free && n.mu.c.takeCommitted(&n.g)
	n.exit(false)
	if free {
		for more {
			more = n.applyGroup(&n.g)
		}
		n.applyMu.Unlock()
	}
	n.applyCommitted()
}

// logEnded: Wait has no more to say. After Stop that is expected.
func (n *Node) logEnded(err error) {
	n.mu.Lock()
	n.mu.c.fail(err)
	n.exit(false)
}

// applierLoop applies what is committed without a local write: a follower
// learns of it from a message, a leader from a follower's answer.
func (n *Node) applierLoop() {
	defer n.wg.Done()
	for {
		select {
		case <-n.applyC:
			n.applyCommitted()
		case <-n.stopC:
			return
		case <-n.fatal.done:
			return
		}
	}
}

// applyCommitted runs the state machine until nothing is left for it. If
// another goroutine is at it, that one takes what came in the meantime.
func (n *Node) applyCommitted() {
	for n.unapplied.Load() > 0 {
		if !n.applyMu.TryLock() {
			return
		}
		n.mu.Lock()
		more := n.mu.c.takeCommitted(&n.g)
		n.exit(false)
		for more {
			more = n.applyGroup(&n.g)
		}
		n.applyMu.Unlock()
	}
}

// applyHere applies what a message has committed on the goroutine that brought
// it, if that is little: to hand it to the applier costs a change of goroutine,
// for each batch on each member, but a reader of messages must not be away for
// long. Whatever else is committed is the applier's.
func (n *Node) applyHere() {
	if n.unapplied.Load() == 0 || !n.applyMu.TryLock() {
		return
	}
	n.mu.Lock()
	some := n.mu.c.isSmall() && n.mu.c.takeCommitted(&n.g)
	n.exit(false)
	if some {
		n.runGroup(&n.g)
		n.mu.Lock()
		n.mu.c.groupApplied(&n.g)
		n.exit(false)
	}
	n.applyMu.Unlock()
	if n.unapplied.Load() > 0 {
		n.wakeApplier()
	}
}

// smallGroup is what is applied at once where a message has come in: a fraction
// of a millisecond.
const smallGroup = 128 << 10

// isSmall: the next thing for the state machine takes little time.
func (c *core) isSmall() bool {
	if c.err != nil || c.committed.len() == 0 {
		return false
	}
	it := c.committed.front()
	if it.msg == nil {
		return it.snap == nil
	}
	bytes := 0
	for _, e := range it.msg.GetEntries() {
		if bytes += entryMemBytes(e); bytes > smallGroup {
			return false
		}
	}
	return true
}

// applyGroup applies one group and takes the next.
func (n *Node) applyGroup(g *group) (more bool) {
	n.runGroup(g)
	n.mu.Lock()
	c := n.mu.c
	c.groupApplied(g)
	more = c.takeCommitted(g)
	n.exit(false)
	return more
}

// runGroup hands one group to the state machine. applyMu is held.
func (n *Node) runGroup(g *group) {
	switch {
	case g.lead != nil:
		n.sm.LeaderChanged(g.lead.lead, g.lead.term, g.lead.isLeader)
	case g.snap != nil:
		n.restore(g.snap)
	default:
		n.applyEntries(g)
	}
}

// groupApplied notes that the state machine is done with g.
func (c *core) groupApplied(g *group) {
	if g.msg != nil {
		c.reportApplied(g, len(g.ents))
		c.appliedTo(g.ents[len(g.ents)-1].GetIndex())
	}
}

func (n *Node) applyEntries(g *group) {
	bytes := 0
	for i, e := range g.ents {
		if bytes > flushBytes {
			bytes = 0
			n.sm.Flush()
			n.mu.Lock()
			n.mu.c.appliedTo(g.ents[i-1].GetIndex())
			n.exit(false)
		}
		bytes += entryMemBytes(e)
		if e.GetType() == raftpb.EntryConfChangeV2 {
			n.applyConfChange(g, i)
		} else {
			n.applyEntry(e, g.batches[i])
		}
	}
	n.sm.Flush()
	for _, b := range g.batches {
		if b != nil {
			n.q.release(b)
		}
	}
}

func (n *Node) applyEntry(e *raftpb.Entry, b *batch) {
	_, ops, err := cutFrame(e.GetData())
	if err != nil {
		panic(fmt.Sprintf("raft: entry %d of term %d: %v", e.GetIndex(), e.GetTerm(), err))
	}
	var ws []Waiter
	if b != nil {
		ws = b.waiters
	}
	n.sm.Apply(e.GetIndex(), e.GetTerm(), ops, ws)
}

func (n *Node) applyConfChange(g *group, i int) {
	e, b := g.ents[i], g.batches[i]
	_, v, cc, err := cutConfChange(e.GetData())
	if err != nil {
		panic(fmt.Sprintf("raft: membership change %d of term %d: %v", e.GetIndex(), e.GetTerm(), err))
	}
	var w Waiter
	if b != nil {
		w = b.waiters[0]
	}
	state := n.sm.ApplyConfChange(e.GetIndex(), e.GetTerm(), cc, w)
	n.mu.Lock()
	n.mu.c.confChanged(e.GetIndex(), v, state)
	n.mu.c.reportApplied(g, i+1)
	n.exit(false)
}

// restore lets the state machine take a snapshot over. Its failure is as final
// as the log's: the state on disk is in between.
func (n *Node) restore(sn *raftpb.Snapshot) {
	meta := sn.GetMetadata()
	conf := EncodeConfState(meta.GetConfState().GetVoters(), meta.GetConfState().GetLearners())
	err := n.sm.(Snapshotter).Restore(meta.GetIndex(), meta.GetTerm(), conf)
	if err == nil {
		n.sm.Flush()
	}
	n.mu.Lock()
	if err != nil {
		n.mu.c.fail(fmt.Errorf("take over the snapshot at index %d: %w", meta.GetIndex(), err))
	} else {
		n.mu.c.restored()
	}
	n.exit(false)
}
