package watchfanout

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

// worker is one catch-up goroutine and its scratch space.
type worker struct {
	hub     *Hub
	events  []Event
	all     []uint32
	collect collector
	items   []item
}

// run is a worker goroutine: one chunk for one cohort of one stream at a time,
// so that no stream waits for another's whole history.
func (w *worker) run() {
	h := w.hub
	defer h.wg.Done()
	for {
		s, ok := h.work.next()
		if !ok {
			return
		}
		w.serve(s)
	}
}

// serve does what the work list says.
func (w *worker) serve(s *Stream) {
	h := w.hub
	switch {
	case s == nil:
		h.shed(false)
		return
	case h.overBudget():
		h.work.park(s)
		h.checkBudget()
		return
	}
	more := w.step(s)
	s.q.mu.Lock()
	more = more || s.q.again
	s.q.busy, s.q.again = false, false
	s.q.mu.Unlock()
	if more {
		h.schedule(s)
	}
}

// step brings one cohort of the stream a chunk further. History is read with
// no lock held. It says whether there is more to do.
func (w *worker) step(s *Stream) (more bool) {
	h := w.hub
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
		if ch, err = w.chunk(want, rev); err != nil {
			return h.failed(s, co, want.from, err)
		}
	}
	return w.deliver(s, co, want, ch)
}

// deliver gives a chunk to the cohort's cursors and promotes them if it
// reached the newest revision. ch is nil if there was nothing to read.
func (w *worker) deliver(s *Stream, co *cohort, want chunkWant, ch *chunk) (more bool) {
	h := w.hub
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
		wake = w.distribute(s, co, ch)
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
func (w *worker) distribute(s *Stream, co *cohort, ch *chunk) (wake bool) {
	h := w.hub
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
