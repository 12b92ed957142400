package simulation

import (
	"bytes"

	"quire/api/mvccpb"
	"quire/watchfanout"

	pb "quire/api/etcdserverpb"
)

// watcher follows a range at one member after the other.
type watcher struct {
	w      *world
	id     int
	m      *member
	stream *watchfanout.Stream
	req    *pb.WatchCreateRequest
	next   int64 // revision that it has not seen
	pos    int   // in the reference's events: the next that may match
	begun  bool  // created came
	moveAt int64
	ends   []int // of messages in a Fill
}

// turn is the watcher's share of a step.
func (x *watcher) turn() {
	w := x.w
	switch {
	case x.m == nil:
		if w.percent(5) {
			x.open()
		}
	case x.m.gone():
		x.m = nil
	case x.m.n.paused():
	case w.now >= x.moveAt && w.faulty:
		x.close()
	case w.percent(20):
		x.fill(1 + w.rng.IntN(4000))
	case w.percent(2):
		_ = x.stream.Progress()
	}
}

func (x *watcher) close() {
	x.stream.Close()
	x.m = nil
}

// open begins to watch, from where it was.
func (x *watcher) open() {
	w := x.w
	m := w.up()
	if m == nil {
		return
	}
	x.m, x.begun, x.moveAt = m, false, w.now+int64(w.rng.IntN(800))
	x.stream = m.hub.OpenStream(watchfanout.StreamOptions{})
	if x.next == 0 {
		x.next = 1
	}
	x.req = &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: w.percent(50), StartRevision: x.next}
	if x.id%2 == 0 {
		x.req.Key, x.req.RangeEnd = []byte("k00"), nil
	}
	x.pos = w.ref.firstEvent(x.next)
	w.check(x.stream.Create(x.req), "create a watcher")
	w.note("watcher %d at member %d from revision %d", x.id, m.n.id, x.next)
}

// fill takes messages.
func (x *watcher) fill(bytes int) {
	x.ends = x.ends[:0]
	frame := func(dst []byte, n int) []byte {
		x.ends = append(x.ends, len(dst)+n)
		return dst
	}
	out, _ := x.stream.Fill(nil, bytes, frame)
	from := 0
	for _, end := range x.ends {
		var r pb.WatchResponse
		x.w.check(r.UnmarshalVT(out[from:end]), "watch response")
		from = end
		if x.message(&r); x.m == nil {
			return
		}
	}
}

func (x *watcher) message(r *pb.WatchResponse) {
	w := x.w
	switch {
	case r.Created:
		x.begun = true
	case !x.begun:
		w.fail("watcher %d gets %v before it is created", x.id, r)
	case r.Canceled:
		x.canceled(r)
	case len(r.Events) == 0:
		if rev := r.Header.Revision; x.skipTo(rev+1) != nil {
			w.fail("watcher %d at member %d is told of progress to revision %d, but has not seen %d", x.id, x.m.n.id, rev, w.ref.events[x.pos].Main)
		}
	}
	for _, ev := range r.Events {
		x.event(ev)
	}
	if len(r.Events) > 0 {
		x.wholeRevision()
	}
}

// skipTo passes events that do not match, up to a revision; it stops at one that
// does, and returns it.
func (x *watcher) skipTo(rev int64) []byte {
	for evs := x.w.ref.events; x.pos < len(evs) && evs[x.pos].Main < rev; x.pos++ {
		if x.matches(evs[x.pos].Key) {
			return evs[x.pos].Key
		}
	}
	return nil
}

func (x *watcher) matches(key []byte) bool {
	if x.req.RangeEnd == nil {
		return bytes.Equal(key, x.req.Key)
	}
	return bytes.Compare(key, x.req.Key) >= 0 && bytes.Compare(key, x.req.RangeEnd) < 0
}

// event compares an event with the next one of the history that matches.
func (x *watcher) event(ev *mvccpb.Event) {
	w := x.w
	rev := ev.Kv.ModRevision
	x.skipTo(rev)
	for x.pos < len(w.ref.events) && w.ref.events[x.pos].Main == rev && !x.matches(w.ref.events[x.pos].Key) {
		x.pos++
	}
	if x.pos == len(w.ref.events) {
		w.fail("watcher %d at member %d gets revision %d, which does not exist", x.id, x.m.n.id, rev)
	}
	want := &w.ref.events[x.pos]
	got, err := ev.Kv.MarshalVT()
	w.check(err, "event")
	if want.Main != rev || want.Delete != (ev.Type == mvccpb.Event_DELETE) || !bytes.Equal(got, want.KV) {
		w.fail("watcher %d at member %d gets %v, the next event is %d.%d of %q", x.id, x.m.n.id, ev, want.Main, want.Sub, want.Key)
	}
	if x.req.PrevKv && ev.PrevKv != nil {
		prev, err := ev.PrevKv.MarshalVT()
		w.check(err, "event")
		if !bytes.Equal(prev, want.Prev) {
			w.fail("watcher %d at member %d gets a wrong previous value with revision %d", x.id, x.m.n.id, rev)
		}
	}
	x.pos++
	w.stats.Events++
	w.mix(uint64(x.id), uint64(rev))
}

// wholeRevision checks that a response does not end within a revision.
func (x *watcher) wholeRevision() {
	evs := x.w.ref.events
	x.next = evs[x.pos-1].Main + 1
	if x.skipTo(x.next) != nil {
		x.w.fail("watcher %d at member %d: revision %d comes in parts", x.id, x.m.n.id, x.next-1)
	}
}

// canceled: only what compaction has passed is.
func (x *watcher) canceled(r *pb.WatchResponse) {
	w := x.w
	if r.CompactRevision == 0 {
		if x.m.n.harmed() {
			x.close() // history could not be read
			return
		}
		w.fail("watcher %d at member %d is cancelled: %v", x.id, x.m.n.id, r)
	}
	if r.CompactRevision <= x.next || r.CompactRevision > w.ref.engine.CompactRevision() {
		w.fail("watcher %d at member %d, at revision %d, is cancelled for compaction %d", x.id, x.m.n.id, x.next, r.CompactRevision)
	}
	w.note("watcher %d was passed by compaction %d", x.id, r.CompactRevision)
	x.next = r.CompactRevision
	x.close()
}

// caughtUp tells whether it has seen everything.
func (x *watcher) caughtUp() bool {
	return x.m != nil && x.begun && x.skipTo(x.w.ref.engine.Revision()+1) == nil
}
