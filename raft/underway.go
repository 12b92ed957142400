package raft

import "go.etcd.io/raft/v3/raftpb"

// underway holds the batches that have left the queue and whose fate is open.
// It ends each in one of three ways: settle returns it with its committed
// entry, or it becomes a drop, or it is certain never to be committed as what
// it was and is to be proposed again.
type underway struct {
	member, session uint64

	own    fifo[*batch] // entries of this leader's log, in order of (term, index)
	fwd    fifo[*batch] // sent to a leader, in order of (term, seq)
	fwdOps int          // operations in fwd
	drops  []drop       // to be told, without the core's lock
	again  []*batch     // oldest first
}

func (u *underway) drop(b *batch, err error) { u.drops = append(u.drops, drop{b, err}) }

func (u *underway) forwarded(b *batch) {
	u.fwd.push(b)
	u.fwdOps += len(b.waiters)
}

// takeFwd takes the i-th forwarded batch out.
func (u *underway) takeFwd(i int) *batch {
	b := u.fwd.remove(i)
	u.fwdOps -= len(b.waiters)
	return b
}

// settle resolves what the committed entry e means for the batches, and returns
// the one that it is. Terms only grow along the log: when an entry of term t is
// committed, no entry of an earlier term will ever be. So as soon as the log has
// passed a batch by, it may be proposed again without being applied twice. Index
// and term together name one entry for ever; an index alone may have been used
// again by another leader.
func (u *underway) settle(e *raftpb.Entry) *batch {
	id := entryID{e.GetIndex(), e.GetTerm()}
	for u.fwd.len() > 0 && (*u.fwd.front()).id.term < id.term {
		u.again = append(u.again, u.takeFwd(0))
	}
	for u.own.len() > 0 {
		b := *u.own.front()
		if b.id == id {
			u.own.pop()
			if b.conf && e.GetType() != raftpb.EntryConfChangeV2 {
				u.drop(b, ErrConfChangeRefused)
				return nil
			}
			return b
		}
		if b.id.term > id.term || (b.id.term == id.term && b.id.index > id.index) {
			break
		}
		u.again = append(u.again, u.own.pop())
	}
	return u.settleFwd(e)
}

// settleFwd finds the batch that this member forwarded and the leader made e.
func (u *underway) settleFwd(e *raftpb.Entry) *batch {
	if u.fwd.len() == 0 || len(e.GetData()) == 0 {
		return nil
	}
	org, err := originOf(e)
	if err != nil || org.member != u.member || org.session != u.session {
		return nil
	}
	for i := 0; i < u.fwd.len(); i++ {
		if b := *u.fwd.at(i); b.seq == org.seq && b.id.term == org.term {
			return u.takeFwd(i)
		}
	}
	return nil
}

// covered ends the wait for batches that a snapshot may or may not contain.
func (u *underway) covered(at entryID) {
	for u.own.len() > 0 && (*u.own.front()).id.term <= at.term {
		u.drop(u.own.pop(), ErrTimeout)
	}
	for u.fwd.len() > 0 && (*u.fwd.front()).id.term <= at.term {
		u.drop(u.takeFwd(0), ErrTimeout)
	}
}

// expire ends the wait for batches opened before tick. They are in order of
// age, near enough: what was put back once may be late.
func (u *underway) expire(tick uint64) {
	for u.own.len() > 0 && (*u.own.front()).tick < tick {
		u.drop(u.own.pop(), ErrTimeout)
	}
	for u.fwd.len() > 0 && (*u.fwd.front()).tick < tick {
		u.drop(u.takeFwd(0), ErrTimeout)
	}
}

// all ends all waits.
func (u *underway) all(err error) {
	for u.own.len() > 0 {
		u.drop(u.own.pop(), err)
	}
	for u.fwd.len() > 0 {
		u.drop(u.takeFwd(0), err)
	}
}

// admission lets each forwarded batch into a leader's log once. The network may
// deliver it late or twice: only batches of the current term are taken, and
// those are remembered. A member leads a term at most once in its life, so what
// was taken before a restart cannot come again.
type admission struct {
	term uint64
	// seen is kept per run of a member: a late copy of an old run's batch is
	// still a copy.
	seen map[[2]uint64]*seqWindow
}

// maxRuns bounds admission.seen: the runs of members in one term.
const maxRuns = 1024

// admit decides whether a peer's proposal enters this leader's log of term.
func (a *admission) admit(m *raftpb.Message, term uint64) bool {
	if a.term != term {
		a.term, a.seen = term, map[[2]uint64]*seqWindow{}
	}
	if len(m.GetEntries()) != 1 {
		return false
	}
	org, err := originOf(m.GetEntries()[0])
	if err != nil || org.member != m.GetFrom() || org.term != term {
		return false
	}
	run := [2]uint64{org.member, org.session}
	w := a.seen[run]
	if w == nil {
		if len(a.seen) >= maxRuns {
			return false
		}
		w = &seqWindow{}
		a.seen[run] = w
	}
	return w.first(org.seq)
}

// undo makes room for a batch that was admitted and did not enter the log.
func (a *admission) undo(m *raftpb.Message) {
	org, err := originOf(m.GetEntries()[0])
	if w := a.seen[[2]uint64{org.member, org.session}]; err == nil && w != nil && w.max-org.seq < 64 {
		w.bits &^= 1 << (w.max - org.seq)
	}
}

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
