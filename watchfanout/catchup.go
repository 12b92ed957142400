package watchfanout

import (
	"errors"
	"fmt"
	"sync"
)

// workList is the streams that need history, and the call to shed.
type workList struct {
	mu     sync.Mutex
	cond   *sync.Cond
	fifo   []*Stream
	head   int
	shed   bool
	closed bool
}

func (w *workList) init() { w.cond = sync.NewCond(&w.mu) }

func (w *workList) add(s *Stream) {
	w.mu.Lock()
	if w.head > 64 && w.head > len(w.fifo)/2 {
		n := copy(w.fifo, w.fifo[w.head:])
		clear(w.fifo[n:])
		w.fifo, w.head = w.fifo[:n], 0
	}
	w.fifo = append(w.fifo, s)
	w.mu.Unlock()
	w.cond.Signal()
}

func (w *workList) requestShed() {
	w.mu.Lock()
	already := w.shed
	w.shed = true
	w.mu.Unlock()
	if !already {
		w.cond.Signal()
	}
}

func (w *workList) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cond.Broadcast()
}

// next waits for work: a stream, or nil for shedding.
func (w *workList) next() (s *Stream, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.closed && !w.shed && w.head == len(w.fifo) {
		w.cond.Wait()
	}
	switch {
	case w.closed:
		return nil, false
	case w.shed:
		w.shed = false
		return nil, true
	}
	s = w.fifo[w.head]
	w.fifo[w.head] = nil
	w.head++
	return s, true
}

// schedule hands the stream to the workers if it has room for what they bring.
// A stream without room is scheduled by the Fill that makes it.
func (h *Hub) schedule(s *Stream) {
	q := &s.q
	q.mu.Lock()
	run := false
	switch {
	case q.closed || q.starved:
	case q.busy:
		q.again = true
	case q.pending < h.opts.StreamPendingBytes/2 && q.answers < h.opts.MaxControls:
		q.busy, run = true, true
	}
	q.mu.Unlock()
	if run {
		h.work.add(s)
	}
}

// worker is the scratch space of one catch-up goroutine.
type worker struct {
	events  []Event
	all     []uint32
	collect collector
	items   []item
}

// catchUp is a worker goroutine: one chunk for one cohort of one stream at a
// time, so that no stream waits for another's whole history.
func (h *Hub) catchUp() {
	defer h.wg.Done()
	var w worker
	for {
		s, ok := h.work.next()
		if !ok {
			return
		}
		if s == nil {
			h.shed()
			continue
		}
		more := h.step(s, &w)
		s.q.mu.Lock()
		more = more || s.q.again
		s.q.busy, s.q.again = false, false
		s.q.mu.Unlock()
		if more {
			h.schedule(s)
		}
	}
}

// step brings one cohort of the stream a chunk further. History is read with
// no lock held. It says whether there is more to do.
func (h *Hub) step(s *Stream, w *worker) (more bool) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.adopt()
	co := s.nextCohort()
	if co == nil {
		s.mu.Unlock()
		return false
	}
	co.started = true
	want := chunkWant{from: co.pos, plain: co.plain > 0, full: co.full > 0}
	s.mu.Unlock()

	var ch *chunk
	if rev := h.rev.Load(); want.from <= rev {
		compact, _ := h.history.Bounds()
		if want.from < compact {
			return h.expire(s, co, compact)
		}
		var err error
		if ch, err = h.chunk(want, rev, w); err != nil {
			return h.failed(s, co, want.from, err)
		}
	}
	return h.deliver(s, co, want, ch, w)
}

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
// stream has room for the answers, and moves the cohort to what the others
// need. The ids stay taken until the client cancels them, as in etcd.
func (h *Hub) end(s *Stream, co *cohort, verdict func(m *member, reached int64) (control, bool)) (more bool) {
	s.mu.Lock()
	wake, room := false, true
	lowest := int64(-1)
	for _, c := range co.list {
		if c.cohort != co || !room {
			continue
		}
		reached := max(c.floor, co.pos)
		for i := 0; i < len(c.members) && room; {
			m := c.members[i]
			ctl, dead := verdict(&m, reached)
			if !dead {
				if need := max(reached, m.floor); lowest < 0 || need < lowest {
					lowest = need
				}
				i++
				continue
			}
			s.removeMember(c, i)
			s.ids[m.id] = nil
			h.counts.compacted.Add(1)
			s.q.mu.Lock()
			wake = s.q.pushControl(ctl) || wake
			room = s.q.answers < h.opts.MaxControls
			s.q.mu.Unlock()
		}
	}
	if room && lowest > co.pos {
		co.rewind(lowest)
	}
	s.mu.Unlock()
	if wake {
		s.ready()
	}
	return true
}

// deliver gives a chunk to the cohort's cursors and promotes them if it
// reached the newest revision. ch is nil if there was nothing to read.
func (h *Hub) deliver(s *Stream, co *cohort, want chunkWant, ch *chunk, w *worker) (more bool) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	if co.pos != want.from || co.plain > 0 && !want.plain || co.full > 0 && !want.full {
		s.mu.Unlock() // cursors joined that need more than was read
		return true
	}
	wake := false
	if ch != nil {
		wake = h.distribute(s, co, ch, w)
		co.pos = ch.next
	}
	more = !h.promote(s, co) || s.nextCohort() != nil
	s.mu.Unlock()
	if wake {
		s.ready()
	}
	if h.retained.Load() > h.opts.TotalPendingBytes {
		h.work.requestShed()
	}
	return more
}

// distribute queues the chunk's events from co.pos on for the cohort's cursors.
func (h *Hub) distribute(s *Stream, co *cohort, ch *chunk, w *worker) (wake bool) {
	k := &w.collect
	for i := ch.search(co.pos); i < len(ch.keys); i++ {
		k.add(&co.matcher, ch.keys[i], i)
	}
	if len(k.touched) == 0 {
		return false
	}
	segs := k.segments(ch.batch)
	header := appendHeaderField(nil, h.opts.Header, ch.next-1)
	events := int64(0)
	for i, g := range k.touched {
		seg := &segs[i]
		seg.rev, seg.header = ch.next-1, header
		seg.sum(ch.plain, ch.full)
		for _, c := range g.cursors {
			from := max(c.floor, co.pos)
			if from > seg.last || !seg.concerns(c.variant) {
				continue
			}
			w.items = append(w.items, item{c: c, seg: seg, from: from})
			events += int64(len(seg.idx))
		}
	}
	k.reset()
	h.acquire(ch.batch, int64(len(w.items)))
	h.retained.Add(int64(len(w.items)) * itemBytes)
	h.pendingEvents.Add(events)
	s.q.mu.Lock()
	for i := range w.items {
		wake = s.q.push(w.items[i], w.items[i].charge()) || wake
	}
	s.q.mu.Unlock()
	clear(w.items)
	w.items = w.items[:0]
	return wake
}

// promoteStep is how many cursors are promoted per hold of hub.mu, which the
// publisher waits for.
const promoteStep = 256

// promote makes the cohort's cursors synced if the cohort has read everything
// that was published. It is false if there is more to read first.
func (h *Hub) promote(s *Stream, co *cohort) bool {
	for len(co.list) > 0 {
		h.mu.Lock()
		if co.pos <= h.rev.Load() {
			h.mu.Unlock()
			return false
		}
		for range min(promoteStep, len(co.list)) {
			last := len(co.list) - 1
			c := co.list[last]
			co.list[last] = nil
			co.list = co.list[:last]
			if c.cohort != co {
				continue
			}
			sp := c.group.span()
			co.remove(c)
			c.floor = max(c.floor, co.pos)
			c.state = stateSynced
			h.synced.attach(h.synced.add(sp), c)
			s.unsynced--
			h.slow.Add(-int64(c.n))
		}
		h.mu.Unlock()
	}
	return true
}
