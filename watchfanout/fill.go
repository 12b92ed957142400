package watchfanout

import (
	"encoding/binary"
	"sort"
)

// FrameFunc is called before each message is appended, with the message's
// size: it may append a prefix and note where the message starts.
type FrameFunc func(dst []byte, messageBytes int) []byte

// expansion is the item that is being written: one segment for each watcher of
// a cursor, in messages. It survives between Fills.
type expansion struct {
	item item
	pos  int // watchers that are done
	ev   int // next position in the segment for the watcher at pos
	unit unit
	// within says that unit is being sent in fragments, from ev on, to the
	// watcher of id fragmented. Clients lose what comes between fragments, so
	// they are sent to the end even if the watcher is canceled meanwhile: then
	// it is an orphan, and the watcher at pos is one that has had nothing.
	within     bool
	orphan     bool
	fragmented int64
}

// leave is told that the watcher at pos is no longer there.
func (x *expansion) leave() {
	if x.within {
		x.orphan = true
		return
	}
	x.ev = 0
}

// unit is what goes into one response: segment positions [start, end), whole
// revisions.
type unit struct {
	start, end int
	count      int // events that the variant lets through
	bytes      int
	header     []byte
}

// tally collects what leaves the queues, to settle it in one go.
type tally struct {
	bytes, events int64
}

// take counts an item that left a queue but still refers to its batch.
func (t *tally) take(it *item) {
	if it.c != nil {
		t.bytes += itemBytes
		t.events += int64(len(it.seg.idx))
	}
}

func (t *tally) drop(h *Hub, it *item) {
	if it.c != nil {
		t.take(it)
		h.release(it.seg.batch, 1)
	}
}

// dropCurrent ends the stream's expansion.
func (t *tally) dropCurrent(s *Stream) {
	if s.cur.item.c != nil {
		s.hub.release(s.cur.item.seg.batch, 1)
	}
	s.cur = expansion{}
}

func (t *tally) settle(h *Hub) {
	if t.bytes != 0 {
		h.retained.Add(-t.bytes)
		h.pendingEvents.Add(-t.events)
		h.checkBudget()
	}
}

// filler is one call of Fill.
type filler struct {
	s     *Stream
	dst   []byte
	limit int
	frame FrameFunc
	tally tally
	sent  uint64
	ctl   control
}

// Fill appends the next messages to dst until maxBytes are appended; the last
// one may go beyond. more says that Fill should be called again; without it
// the queue is drained and Ready will be called when there is more. One
// goroutine calls it at a time. frame may be nil.
func (s *Stream) Fill(dst []byte, maxBytes int, frame FrameFunc) (out []byte, more bool) {
	f := filler{s: s, dst: dst, limit: len(dst) + max(maxBytes, 1), frame: frame}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return dst, false
	}
	s.filled = s.hub.epoch.Load()
	more, lagging := f.run()
	lagging = lagging || len(s.cohorts) > 0
	s.given += f.sent
	s.mu.Unlock()
	f.tally.settle(s.hub)
	if f.sent > 0 {
		s.hub.counts.eventsSent.Add(f.sent)
	}
	if lagging {
		s.hub.schedule(s)
	}
	return f.dst, more
}

// Given returns how many events Fill has given out. Only who calls Fill may ask.
func (s *Stream) Given() uint64 { return s.given }

func (f *filler) run() (more, lagging bool) {
	s := f.s
	for len(f.dst) < f.limit {
		if len(s.interval.ids) > 0 {
			f.intervalProgress()
			continue
		}
		if s.cur.item.c == nil {
			s.q.mu.Lock()
			it, ok := s.q.pop(&f.ctl)
			lagging = len(s.q.demoted) > 0
			s.q.mu.Unlock()
			if !ok {
				return false, lagging
			}
			if it.c == nil {
				f.control(&f.ctl)
				continue
			}
			f.tally.take(&it)
			s.cur.item = it
		}
		if f.expand() {
			s.hub.release(s.cur.item.seg.batch, 1)
			s.cur = expansion{}
		}
	}
	return true, lagging
}

// expand writes the current item until it is done or the limit is reached.
func (f *filler) expand() (done bool) {
	x := &f.s.cur
	c := x.item.c
	for x.within || x.pos < len(c.members) {
		if len(f.dst) >= f.limit {
			return false
		}
		switch {
		case x.within:
			f.fragment(x)
		case !f.member(x, &c.members[x.pos]):
			continue
		}
		if x.within {
			continue
		}
		if x.orphan {
			x.orphan, x.ev = false, 0
		} else if x.ev == len(x.item.seg.idx) {
			x.pos, x.ev = x.pos+1, 0
		}
	}
	return true
}

// member writes the watcher's next response, or the first fragment of it. It
// is false if there was nothing to write and there may be later.
func (f *filler) member(x *expansion, m *member) bool {
	seg := x.item.seg
	low := max(x.item.from, m.floor)
	if low > seg.last {
		x.ev = len(seg.idx)
		return true
	}
	if x.ev == 0 && low > seg.first {
		x.ev = sort.Search(len(seg.idx), func(i int) bool { return seg.event(i).rev >= low })
	}
	f.measure(x)
	u := &x.unit
	if u.count == 0 {
		x.ev = u.end
		return x.ev == len(seg.idx)
	}
	m.flags &^= memberIdle
	size := len(u.header) + watchIDBytes(m.id) + u.bytes
	if m.flags&memberFragment != 0 && u.count > 1 && size >= f.s.hub.opts.FragmentBytes {
		x.fragmented = m.id
		f.fragment(x)
		return true
	}
	f.begin(size, u.header, m.id)
	f.events(x, x.ev, u.end)
	x.ev = u.end
	return true
}

// measure finds the response that starts at x.ev.
func (f *filler) measure(x *expansion) {
	u, seg, v := &x.unit, x.item.seg, x.item.c.variant
	if u.end != 0 && u.start == x.ev {
		return
	}
	*u = unit{start: x.ev}
	i, limit := x.ev, f.s.hub.opts.ResponseBytes
	for ; i < len(seg.idx); i++ {
		e := seg.event(i)
		if u.bytes >= limit && e.rev != seg.event(i-1).rev {
			break
		}
		if v.sees(e.del) {
			u.count++
			u.bytes += len(e.form(v))
		}
	}
	u.end, u.header = i, seg.header
	if i < len(seg.idx) {
		u.header = appendHeaderField(nil, f.s.hub.opts.Header, seg.event(i-1).rev)
	}
}

func (e *encoded) form(v variant) []byte {
	if v&wantPrev != 0 {
		return e.full
	}
	return e.plain
}

// begin writes what precedes the events of a message of size bytes.
func (f *filler) begin(size int, header []byte, id int64) {
	if f.frame != nil {
		f.dst = f.frame(f.dst, size)
	}
	f.dst = append(f.dst, header...)
	f.dst = appendWatchID(f.dst, id)
}

// events writes those of segment positions [from, to) that the variant sees.
func (f *filler) events(x *expansion, from, to int) {
	seg, v := x.item.seg, x.item.c.variant
	for i := from; i < to; i++ {
		if e := seg.event(i); v.sees(e.del) {
			f.dst = append(f.dst, e.form(v)...)
			f.sent++
		}
	}
}

// fragment writes the next part of a response that is too large. As in etcd a
// part is below FragmentBytes if it has more than one event, counted with the
// fragment field, which all but the last part carry.
func (f *filler) fragment(x *expansion) {
	seg, v, u := x.item.seg, x.item.c.variant, &x.unit
	size := len(u.header) + watchIDBytes(x.fragmented) + fragmentFieldBytes
	n, i := 0, x.ev
	for ; i < u.end; i++ {
		e := seg.event(i)
		if !v.sees(e.del) {
			continue
		}
		b := len(e.form(v))
		if n > 0 && size+b >= f.s.hub.opts.FragmentBytes {
			break
		}
		size += b
		n++
	}
	x.within = i < u.end
	if !x.within {
		size -= fragmentFieldBytes
	}
	f.begin(size, u.header, x.fragmented)
	if x.within {
		f.dst = append(f.dst, tagFragment, 1)
	}
	f.events(x, x.ev, i)
	x.ev = i
}

// control writes an answer without events.
func (f *filler) control(c *control) {
	switch c.kind {
	case controlInterval:
		f.s.interval = *c
		return
	case controlCompacted:
		f.answer(c, 0)
	default:
		f.answer(c, c.rev)
	}
}

func (f *filler) answer(c *control, rev int64) {
	b := appendHeaderField(f.s.scratch[:0], f.s.hub.opts.Header, rev)
	b = appendWatchID(b, c.id)
	if c.kind == controlCreated || c.kind == controlRefused {
		b = append(b, tagCreated, 1)
	}
	if c.kind != controlCreated && c.kind != controlProgress && c.kind != controlInterval {
		b = append(b, tagCanceled, 1)
	}
	if c.kind == controlCompacted {
		b = append(b, tagCompactRevision)
		b = binary.AppendUvarint(b, uint64(c.rev))
	}
	if c.reason != "" {
		b = append(b, tagCancelReason)
		b = binary.AppendUvarint(b, uint64(len(c.reason)))
		b = append(b, c.reason...)
	}
	f.s.scratch = b
	if f.frame != nil {
		f.dst = f.frame(f.dst, len(b))
	}
	f.dst = append(f.dst, b...)
}

// intervalProgress notifies the next watcher of those that were idle.
func (f *filler) intervalProgress() {
	iv := &f.s.interval
	id := iv.ids[0]
	iv.ids = iv.ids[1:]
	if c := f.s.ids[id]; c != nil {
		one := control{kind: controlInterval, id: id}
		f.answer(&one, iv.rev)
	}
	if len(iv.ids) == 0 {
		*iv = control{}
	}
}
