package main

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"quire/engine"
	"quire/raft"
	"quire/watchfanout"
)

// publisher hands the engine's events to the hub. The two packages do not know
// each other, so their event types are converted here; the bytes are shared.
type publisher member

// Publish implements engine.Publisher on the apply goroutine.
func (p *publisher) Publish(events []engine.Event, rev int64) {
	if p.hub == nil {
		return
	}
	p.events = appendEvents(p.events[:0], events)
	p.hub.Publish(p.events, rev)
	clear(p.events)
}

// Restored implements engine.Publisher.
func (p *publisher) Restored(rev int64) {
	if p.hub != nil {
		p.hub.Restored(rev)
	}
}

// WantsPrev implements engine.Publisher.
func (p *publisher) WantsPrev() bool { return p.hub != nil && p.hub.WantsPrev() }

func appendEvents(dst []watchfanout.Event, events []engine.Event) []watchfanout.Event {
	for i := range events {
		dst = append(dst, watchfanout.Event(events[i]))
	}
	return dst
}

// authListener tells the token table and the hub what was applied.
type authListener member

// Changed implements engine.AuthListener.
func (l *authListener) Changed() {
	if l.hub != nil && l.engine.Auth().Enabled() {
		l.hub.Recheck()
	}
}

// Issued implements engine.AuthListener.
func (l *authListener) Issued(index uint64, user, tok string) { l.tokens.Issued(index, user, tok) }

// Revoked implements engine.AuthListener.
func (l *authListener) Revoked(user string) { l.tokens.Revoked(user) }

// history lets the hub read past events.
type history struct{ e *engine.Engine }

func (h history) Bounds() (compactRev, rev int64) { return h.e.Bounds() }

func (h history) Events(dst []watchfanout.Event, from int64, maxBytes int, wantPrev bool) ([]watchfanout.Event, int64, error) {
	evs, next, err := h.e.Events(nil, from, maxBytes, wantPrev)
	if err == engine.ErrCompacted {
		err = watchfanout.ErrCompacted
	}
	return appendEvents(dst, evs), next, err
}

// counts are what the metrics know of raft's calls.
type counts struct {
	leaderChanges, slowApplys atomic.Uint64
	restoring                 atomic.Int32 // snapshots being taken over
}

// stateMachine is the engine as raft drives it, with a look at the clock and
// at the leader on the way.
type stateMachine struct {
	*engine.Engine
	m    *member
	lead uint64
}

// Apply implements raft.StateMachine.
func (s *stateMachine) Apply(index, term uint64, data []byte, waiters []interface{ Dropped(error) }) {
	start := time.Now()
	s.Engine.Apply(index, term, data, waiters)
	took := time.Since(start)
	s.m.applies.observe(s.Engine, took)
	if took > s.m.cfg.WarnApply {
		s.m.counts.slowApplys.Add(1)
		s.m.log.Warn("apply request took too long", zap.Duration("took", took), zap.Duration("expected-duration", s.m.cfg.WarnApply),
			zap.Uint64("index", index), zap.Int("bytes", len(data)))
	}
}

// Restore implements raft.Snapshotter: the transport follows the membership that
// came.
func (s *stateMachine) Restore(index, term uint64, confState []byte) error {
	s.m.counts.restoring.Add(1)
	defer s.m.counts.restoring.Add(-1)
	if err := s.Engine.Restore(index, term, confState); err != nil {
		return err
	}
	s.m.syncPeers()
	if s.Removed(s.m.id) {
		s.m.leave(leaveDelay)
	}
	return nil
}

// Snapshot implements raft.Snapshotter.
func (s *stateMachine) Snapshot(atLeast uint64) (index, term uint64, confState []byte, ok bool) {
	return s.Transfers().Offer(atLeast)
}

var _ raft.Snapshotter = (*stateMachine)(nil)

// ApplyConfChange implements raft.StateMachine: the transport follows the
// membership, and a member that is removed leaves.
func (s *stateMachine) ApplyConfChange(index, term uint64, cc []byte, waiter interface{ Dropped(error) }) []byte {
	state := s.Engine.ApplyConfChange(index, term, cc, waiter)
	if state != nil {
		s.m.syncPeers()
		if s.Removed(s.m.id) {
			s.m.leave(leaveDelay)
		}
	}
	return state
}

// LeaderChanged implements raft.StateMachine.
func (s *stateMachine) LeaderChanged(lead, term uint64, isLeader bool) {
	if lead != s.lead && lead != 0 {
		s.m.counts.leaderChanges.Add(1)
	}
	s.lead = lead
	s.m.leases.leaderChanged()
	s.Engine.LeaderChanged(lead, term, isLeader)
}
