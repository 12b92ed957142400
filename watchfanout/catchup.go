package watchfanout

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// shedInterval is how long a stream may hold events without reading before it
// is shed, while the total budget is exceeded: between one and two of these.
const shedInterval = 50 * time.Millisecond

// workList is the streams that need history, in turn, and the call to shed.
// Its lock is a leaf.
type workList struct {
	mu      sync.Mutex
	cond    *sync.Cond
	fifo    []*Stream
	head    int
	parked  []*Stream // wait for the total budget
	nParked atomic.Int64
	planned *time.Timer // for the next shed
	shed    bool
	closed  bool
}

func (w *workList) init() { w.cond = sync.NewCond(&w.mu) }

func (w *workList) add(s *Stream) {
	w.mu.Lock()
	w.addLocked(s)
	w.mu.Unlock()
	w.cond.Signal()
}

func (w *workList) addLocked(s *Stream) {
	if w.head > 64 && w.head > len(w.fifo)/2 {
		n := copy(w.fifo, w.fifo[w.head:])
		clear(w.fifo[n:])
		w.fifo, w.head = w.fifo[:n], 0
	}
	w.fifo = append(w.fifo, s)
}

// park keeps a stream until unpark.
func (w *workList) park(s *Stream) {
	w.mu.Lock()
	w.parked = append(w.parked, s)
	w.nParked.Store(int64(len(w.parked)))
	w.mu.Unlock()
}

func (w *workList) unpark() {
	w.mu.Lock()
	for i, s := range w.parked {
		w.addLocked(s)
		w.parked[i] = nil
	}
	w.parked = w.parked[:0]
	w.nParked.Store(0)
	w.mu.Unlock()
	w.cond.Broadcast()
}

// planShed has a worker shed within shedInterval.
func (w *workList) planShed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.planned != nil || w.closed {
		return
	}
	w.planned = time.AfterFunc(shedInterval, func() {
		w.mu.Lock()
		w.planned, w.shed = nil, true
		w.mu.Unlock()
		w.cond.Signal()
	})
}

func (w *workList) close() {
	w.mu.Lock()
	w.closed = true
	if w.planned != nil {
		w.planned.Stop()
	}
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

func (h *Hub) overBudget() bool { return h.retained.Load() > h.opts.TotalPendingBytes }

// checkBudget is called after what the queues keep has changed. Over the
// budget nothing is added to them that is not needed to wake a client up:
// Publish demotes, workers park. Streams that do not read are shed.
func (h *Hub) checkBudget() {
	if h.overBudget() {
		h.work.planShed()
	} else if h.work.nParked.Load() > 0 {
		h.work.unpark()
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
			h.shed(false)
			continue
		}
		if h.overBudget() {
			h.work.park(s)
			h.checkBudget()
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
	if !s.adopt() {
		s.mu.Unlock()
		return false
	}
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
		want.compact = compact
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
	if h.overBudget() {
		h.work.planShed()
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
	if w.items = w.items[:0]; cap(w.items) > keepChunkEvents {
		w.items = nil
	}
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
