package watchfanout

import (
	"errors"
	"fmt"
	"math"
)

// failed handles an error of History. A compaction that came in between is
// seen by Bounds in the next step.
func (h *Hub) failed(s *Stream, co *cohort, from int64, err error) (more bool) {
	if errors.Is(err, ErrCompacted) {
		if compact, _ := h.history.Bounds(); compact > from {
			return true
		}
		err = fmt.Errorf("history says revision %d is compacted but not its bounds: %w", from, err)
	}
	h.counts.historyErrors.Add(1)
	if h.opts.OnHistoryError != nil {
		h.opts.OnHistoryError(err)
	}
	return h.end(s, co, func(m *member, reached int64) (control, bool) {
		return control{kind: controlFailed, id: m.id, rev: h.Revision(), reason: err.Error()}, max(reached, m.floor) <= from
	})
}

// expire cancels the cohort's watchers that compaction has passed.
func (h *Hub) expire(s *Stream, co *cohort, compact int64) (more bool) {
	return h.end(s, co, func(m *member, reached int64) (control, bool) {
		return control{kind: controlCompacted, id: m.id, rev: compact}, max(reached, m.floor) < compact
	})
}

// end cancels those watchers of a cohort that verdict condemns, as far as the
// stream has room for the answers, and moves the cohort on to what the others
// need. The ids stay taken until the client cancels them, as in etcd.
func (h *Hub) end(s *Stream, co *cohort, verdict func(m *member, reached int64) (control, bool)) (more bool) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	var answers []control
	var spared []*cursor
	room := s.room()
	for _, c := range co.list {
		if c.cohort == co && len(answers) < room {
			answers, spared = s.condemn(c, verdict, answers, spared)
		}
	}
	for _, c := range spared {
		co.add(c)
	}
	lowest := int64(math.MaxInt64)
	for _, c := range co.list {
		if c.cohort == co {
			lowest = min(lowest, max(c.floor, co.pos))
		}
	}
	if co.count() > 0 && lowest > co.pos {
		co.rewind(lowest)
	}
	wake := false
	s.q.mu.Lock()
	for _, ctl := range answers {
		wake = s.q.pushControl(ctl) || wake
	}
	s.q.mu.Unlock()
	s.mu.Unlock()
	h.counts.compacted.Add(uint64(len(answers)))
	if wake {
		s.ready()
	}
	return true
}

// condemn ends those of a cursor's watchers that are condemned. The cursor
// keeps them, and is taken out of the cohort, so that they are given what is
// already queued for them before the answer: a notification that is queued too
// may have promised it. The others need none of that, for their floors are
// above what the cursor has reached: they become a cursor of their own.
func (s *Stream) condemn(c *cursor, verdict func(*member, int64) (control, bool), answers []control, spared []*cursor) ([]control, []*cursor) {
	reached := max(c.floor, c.cohort.pos)
	dead, alive := c.members[:0:0], c.members[:0:0]
	done := 0 // of those that go on being expanded
	lowest := int64(math.MaxInt64)
	for i, m := range c.members {
		if ctl, condemned := verdict(&m, reached); condemned {
			answers, dead = append(answers, ctl), append(dead, m)
			if i < s.cur.pos {
				done++
			}
		} else {
			alive, lowest = append(alive, m), min(lowest, max(reached, m.floor))
		}
	}
	if len(dead) == 0 {
		c.floor = max(c.floor, lowest) // the watchers that needed less have left
		return answers, spared
	}
	h := s.hub
	delete(s.index, c)
	c.members = dead
	if s.cur.item.c == c {
		s.cur.pos = done
	}
	for _, m := range dead {
		s.ids[m.id] = nil
		delete(s.progress, m.id)
	}
	s.live -= len(dead)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(alive) > 0 {
		o := &cursor{stream: s, group: c.group, variant: c.variant, state: stateCatchup, floor: lowest}
		for _, m := range alive {
			s.addMember(o, m)
		}
		o.n = int32(len(alive))
		c.n -= o.n
		s.unsynced++
		spared = append(spared, o)
	}
	h.forgetLocked(c, c.n)
	return answers, spared
}

// room is how many more answers the stream takes.
func (s *Stream) room() int {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	return s.hub.opts.MaxControls - s.q.answers
}
