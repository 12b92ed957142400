package simulation

import (
	"fmt"

	"quire/engine"
	"quire/raft"
	"quire/watchfanout"
)

// stateMachine is a member's engine as raft drives it, with the checks on the way.
type stateMachine member

// Apply implements raft.StateMachine.
func (s *stateMachine) Apply(index, term uint64, data []byte, waiters []interface{ Dropped(error) }) {
	m, w := (*member)(s), s.n.w
	w.ref.entry(m, index, term, data, nil)
	for i, x := range waiters {
		if op, ok := x.(*operation); ok {
			op.index, op.place = index, i
		}
	}
	m.engine.Apply(index, term, data, waiters)
	m.applied(index)
}

// ApplyConfChange implements raft.StateMachine.
func (s *stateMachine) ApplyConfChange(index, term uint64, cc []byte, waiter interface{ Dropped(error) }) []byte {
	m, w := (*member)(s), s.n.w
	w.ref.entry(m, index, term, nil, cc)
	conf := m.engine.ApplyConfChange(index, term, cc, waiter)
	m.applied(index)
	if conf != nil && m.isRemoved() {
		m.left = true
	}
	return conf
}

// isRemoved tells whether the membership, as far as it is applied here, has this
// member no more. One that has just joined has heard of nobody yet.
func (m *member) isRemoved() bool {
	ms := m.engine.Members()
	for _, x := range ms {
		if x.ID == m.n.id {
			return false
		}
	}
	return len(ms) > 0
}

// applied compares the state with the reference's at the same index, now and
// then.
func (m *member) applied(index uint64) {
	w := m.n.w
	w.mix(m.n.id, index)
	if index%printEvery != 0 || m.dead != nil || m.n.divergent {
		return
	}
	if got, want := w.fingerprint(m), w.ref.prints[index]; m.dead == nil && got != want {
		w.fail("member %d has another state at index %d than the reference:%s%s", m.n.id, index, portrait(m.engine), portrait(w.ref.engine))
	}
}

// portrait describes a state, for a failure.
func portrait(e *engine.Engine) string {
	hash, compact, rev, err := e.HashKV(0)
	s := fmt.Sprintf("\n  index %d, revision %d, compacted %d, hash %x, error %v, alarms %v, members %v, version %q, leases", e.AppliedIndex(), rev, compact, hash, err,
		e.Alarms(), e.Members(), e.ClusterVersion())
	for _, id := range e.Leases() {
		info, _ := e.LeaseTimeToLive(id, true)
		s += fmt.Sprintf(" %d: %d %q", id, info.GrantedTTL, info.Keys)
	}
	return s
}

// Flush implements raft.StateMachine.
func (s *stateMachine) Flush() { s.engine.Flush() }

// LeaderChanged implements raft.StateMachine.
func (s *stateMachine) LeaderChanged(lead, term uint64, isLeader bool) {
	w := s.n.w
	if isLeader {
		if was, ok := w.leaders[term]; ok && was != s.n.id {
			w.fail("members %d and %d both lead in term %d", was, s.n.id, term)
		}
		w.leaders[term] = s.n.id
		w.note("member %d leads in term %d", s.n.id, term)
	}
	s.engine.LeaderChanged(lead, term, isLeader)
}

// Snapshot implements raft.Snapshotter.
func (s *stateMachine) Snapshot(atLeast uint64) (index, term uint64, confState []byte, ok bool) {
	return s.engine.Transfers().Offer(atLeast)
}

// Restore implements raft.Snapshotter.
func (s *stateMachine) Restore(index, term uint64, confState []byte) error {
	m, w := (*member)(s), s.n.w
	if err := m.engine.Restore(index, term, confState); err != nil {
		return err
	}
	w.stats.Restores++
	m.n.divergent = false
	w.note("member %d takes over snapshot %d", m.n.id, index)
	if want, ok := w.cuts[index]; ok && w.fingerprint(m) != want && m.dead == nil {
		w.fail("member %d has another state at index %d than the member that made the snapshot", m.n.id, index)
	}
	if m.isRemoved() {
		m.left = true
	}
	return nil
}

var _ raft.Snapshotter = (*stateMachine)(nil)

// publisher hands the engine's events to the hub.
type publisher member

// Publish implements engine.Publisher.
func (p *publisher) Publish(events []engine.Event, rev int64) {
	if p.hub == nil {
		return
	}
	p.events = p.events[:0]
	for _, ev := range events {
		p.events = append(p.events, watchfanout.Event(ev))
	}
	p.hub.Publish(p.events, rev)
}

// Restored implements engine.Publisher.
func (p *publisher) Restored(rev int64) {
	if p.hub != nil {
		p.hub.Restored(rev)
	}
}

// WantsPrev implements engine.Publisher.
func (p *publisher) WantsPrev() bool { return p.hub != nil && p.hub.WantsPrev() }

// history lets the hub read past events.
type history struct{ e *engine.Engine }

func (h history) Bounds() (compactRev, rev int64) { return h.e.Bounds() }

func (h history) Events(dst []watchfanout.Event, from int64, maxBytes int, wantPrev bool) ([]watchfanout.Event, int64, error) {
	evs, next, err := h.e.Events(nil, from, maxBytes, wantPrev)
	if err == engine.ErrCompacted {
		err = watchfanout.ErrCompacted
	}
	for _, ev := range evs {
		dst = append(dst, watchfanout.Event(ev))
	}
	return dst, next, err
}
