package watchfanout

import (
	"cmp"
	"slices"
)

// victim is a stream whose queue keeps a batch alive.
type victim struct {
	s   *Stream
	seq uint64 // age of the oldest batch it keeps
}

// shed drops the queues of clients that do not read, those that hold the
// oldest events first, until what all queues keep alive is well within the
// budget. all is for tests: it takes readers for idle too.
func (h *Hub) shed(all bool) {
	low := h.opts.TotalPendingBytes / 4 * 3
	epoch := h.epoch.Add(1) - 1
	var victims []victim
	for _, s := range h.allStreams() {
		if seq, filled := s.oldest(); seq > 0 && (all || filled < epoch) {
			victims = append(victims, victim{s, seq})
		}
	}
	slices.SortFunc(victims, func(a, b victim) int { return cmp.Compare(a.seq, b.seq) })
	for _, v := range victims {
		if !all && h.retained.Load() <= low {
			break
		}
		v.s.shed()
		h.counts.sheds.Add(1)
	}
	h.checkBudget()
}

func (h *Hub) allStreams() []*Stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	streams := make([]*Stream, 0, len(h.streams))
	for s := range h.streams {
		streams = append(streams, s)
	}
	return streams
}

// oldest is the age of the oldest batch the stream keeps, 0 if it keeps none,
// and the epoch of its last Fill.
func (s *Stream) oldest() (seq, filled uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur.item.c != nil {
		return s.cur.item.seg.batch.seq, s.filled
	}
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	for i := s.q.head; i < len(s.q.items); i++ {
		if s.q.items[i].c != nil {
			return s.q.items[i].seg.batch.seq, s.filled
		}
	}
	return 0, s.filled
}

// shed drops the stream's queued events. Their cursors go back to the first
// revision that was dropped and wait for the client to read again. Answers
// stay; progress notifications go, for they would overtake the events.
func (s *Stream) shed() {
	h := s.hub
	var t tally
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	h.mu.Lock()
	back := s.dropQueue(&t)
	if c := s.splitCurrent(&t); c != nil {
		back[c] = c.floor
	}
	var joining []*cursor
	for c, rev := range back {
		if h.goBackLocked(c, rev) {
			joining = append(joining, c)
		}
	}
	h.mu.Unlock()
	for _, c := range joining {
		s.join(c)
	}
	s.mu.Unlock()
	t.settle(h)
}

// dropQueue empties the queue of events and notifications and returns the
// first revision that each cursor has lost.
func (s *Stream) dropQueue(t *tally) map[*cursor]int64 {
	q := &s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	back := map[*cursor]int64{}
	items, controls := q.items[q.head:], q.controls
	q.items, q.head, q.controls, q.pending = nil, 0, nil, 0
	q.answers, q.progress, q.ticked = 0, false, false
	q.starved = !q.armed // an armed stream has read everything and will not call Fill by itself
	for i := range items {
		it := &items[i]
		if it.c == nil {
			if c := controls[0]; c.kind != controlProgress && c.kind != controlInterval {
				q.pushControl(c)
			}
			controls = controls[1:]
			continue
		}
		rev := max(it.from, it.seg.first)
		if old, ok := back[it.c]; !ok || rev < old {
			back[it.c] = rev
		}
		t.drop(s.hub, it)
	}
	return back
}

// goBackLocked makes the cursor need history from rev on. It is true if the
// caller must find a cohort for it. h.mu and s.mu are held.
func (h *Hub) goBackLocked(c *cursor, rev int64) bool {
	switch c.state {
	case stateSynced:
		h.synced.detach(c)
		c.stream.unsynced++
		h.slow.Add(int64(c.n))
	case stateCatchup:
		if c.cohort != nil {
			c.cohort.remove(c)
		}
	case stateDemoted:
		c.floor = min(c.floor, rev)
		return false
	case stateDead:
		return false
	}
	c.state, c.floor = stateCatchup, rev
	return true
}

// splitCurrent gives up the item under expansion: the watchers that have not
// had it become a cursor of their own, to be sent back to the item's first
// revision. A response that is being sent in fragments is not given up.
func (s *Stream) splitCurrent(t *tally) *cursor {
	x := &s.cur
	c := x.item.c
	if c == nil || x.within || x.pos >= len(c.members) {
		return nil
	}
	if c.state == stateDead { // passed by compaction: the answer is queued
		t.dropCurrent(s)
		return nil
	}
	seg := x.item.seg
	rest := c.members[x.pos:]
	if x.ev > 0 && x.ev < len(seg.idx) {
		rest[0].floor = max(rest[0].floor, seg.event(x.ev).rev)
	}
	split := &cursor{stream: s, variant: c.variant, group: c.group, state: stateCatchup, floor: max(x.item.from, seg.first)}
	moved := append([]member(nil), rest...)
	t.dropCurrent(s)
	for _, m := range moved {
		s.dropMember(c, s.memberAt(c, m.id))
		s.addMember(split, m)
	}
	n := int32(len(moved))
	c.n -= n
	split.n = n
	s.unsynced++
	if c.state == stateSynced {
		s.hub.slow.Add(int64(n))
	}
	if c.n == 0 {
		s.hub.buryLocked(c)
	}
	return split
}
