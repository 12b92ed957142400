package watchfanout

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	pb "quire/api/etcdserverpb"
)

// Errors of a stream's requests.
var (
	// ErrBusy says that the client has not read the answers to its earlier
	// requests. Nothing was done. The transport keeps the request, reads no
	// further ones of this stream and tries again after a Fill.
	ErrBusy = errors.New("watchfanout: too many unread answers on the stream")
	// ErrClosed says that the stream was closed.
	ErrClosed = errors.New("watchfanout: stream is closed")
	// ErrPermissionDenied is for StreamOptions.Permit: its text is what etcd
	// puts into cancel_reason.
	ErrPermissionDenied = errors.New("rpc error: code = PermissionDenied desc = etcdserver: permission denied")
)

// Reasons of refusal that clients compare.
const (
	reasonCompacted   = "etcdserver: mvcc: required revision has been compacted"
	reasonEmptyRange  = "mvcc: watcher range is empty"
	reasonDuplicateID = "mvcc: duplicate watch ID provided on the WatchStream"
)

// invalidWatchID is the id in answers that are about no watcher.
const invalidWatchID = -1

// StreamOptions of one client stream.
type StreamOptions struct {
	// Ready is called when there is something to send after a Fill that
	// drained the queue, and after opening. It is called with no lock held
	// from any goroutine, the apply goroutine and callers of this stream's
	// methods among them, and must not block.
	Ready func()
	// Permit says whether the client may watch a range: key as matched (an
	// empty one is "\x00"), rangeEnd as sent. The error's text becomes the
	// cancel_reason. nil permits everything.
	Permit func(key, rangeEnd []byte) error
	// Keep is asked after Hub.Recheck which watchers may stay: it returns a
	// function that decides like Permit, or nil if all may. That function is
	// called under locks and must neither block nor call back. nil keeps
	// everything.
	Keep func() (may func(key, rangeEnd []byte) error)
}

// Stream is the watchers of one Watch call and what is to be sent to it.
type Stream struct {
	hub    *Hub
	ready  func()
	permit func(key, rangeEnd []byte) error
	keep   func() func(key, rangeEnd []byte) error
	opened time.Time
	period time.Duration // of interval progress notifications

	q queue

	mu       sync.Mutex                  // guards what follows up to the blank line; first in the lock order
	ids      map[int64]*cursor           // a nil cursor is a watcher passed by compaction whose id is still taken
	index    map[*cursor]map[int64]int32 // positions in the members of large cursors
	progress map[int64]struct{}          // watchers with memberProgress
	future   []futureStart               // watchers with memberFuture, and some that are past it
	cohorts  []*cohort                   // cursors that read history
	nextID   int64
	live     int // watchers
	turn     int // whose turn it is among the cohorts
	cur      expansion
	interval control // controlInterval under way
	scratch  []byte
	ticking  bool // in the ticker's heap
	closed   bool
	filled   uint64 // hub.epoch of the last Fill
	given    uint64 // events that Fill has given out; read by its caller without mu

	unsynced int // cursors that are demoted or catching up; hub.mu
}

// futureStart is a watcher that starts at a revision not there yet.
type futureStart struct{ id, rev int64 }

// OpenStream adds a stream without watchers.
func (h *Hub) OpenStream(o StreamOptions) *Stream {
	period := h.opts.ProgressInterval
	period += time.Duration(rand.Int64N(int64(period)/10 + 1))
	s := &Stream{hub: h, ready: o.Ready, permit: o.Permit, keep: o.Keep, ids: map[int64]*cursor{}, opened: time.Now(), period: period}
	s.q.armed = true
	if s.ready == nil {
		s.ready = func() {}
	}
	h.mu.Lock()
	h.streams[s] = struct{}{}
	h.mu.Unlock()
	return s
}

// Busy says whether Create and Cancel would answer ErrBusy.
func (s *Stream) Busy() bool { return s.admit() == ErrBusy }

// admit says whether one more answer may be queued.
func (s *Stream) admit() error {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	switch {
	case s.q.closed:
		return ErrClosed
	case s.q.answers >= s.hub.opts.MaxControls:
		return ErrBusy
	}
	return nil
}

// Create adds a watcher, or refuses it, as etcd does; either answer is queued.
// It keeps nothing of req.
func (s *Stream) Create(req *pb.WatchCreateRequest) error {
	if err := s.admit(); err != nil {
		return err
	}
	key := req.Key
	if len(key) == 0 {
		key = []byte{0}
	}
	if req.StartRevision < 0 {
		s.refuse(reasonCompacted)
		return nil
	}
	rights := s.hub.rights.Load()
	if s.permit != nil {
		if err := s.permit(key, req.RangeEnd); err != nil {
			s.refuse(err.Error())
			return nil
		}
	}
	sp, ok := spanOf(key, req.RangeEnd)
	if !ok {
		s.refuse(reasonEmptyRange)
		return nil
	}
	if err := s.create(req, sp); err != nil {
		return err
	}
	if s.hub.rights.Load() != rights {
		// The rights may have changed between the question and the watcher's
		// being there to be checked again.
		s.recheck()
	}
	return nil
}

func (s *Stream) create(req *pb.WatchCreateRequest, sp span) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	id, ok := s.takeID(req.WatchId)
	if !ok {
		s.mu.Unlock()
		s.refuse(reasonDuplicateID)
		return nil
	}
	m := member{id: id}
	if req.Fragment {
		m.flags |= memberFragment
	}
	if req.ProgressNotify {
		m.flags |= memberProgress | memberIdle
	}
	synced, wake := s.start(sp, variantOf(req), m, req.StartRevision)
	first := req.ProgressNotify && s.addProgress(id)
	s.mu.Unlock()

	if wake {
		s.ready()
	}
	if !synced {
		s.hub.schedule(s)
	}
	if first {
		s.hub.ticks.add(s, s.nextTick(time.Now()))
	}
	return nil
}

func variantOf(req *pb.WatchCreateRequest) variant {
	var v variant
	if req.PrevKv {
		v |= wantPrev
	}
	for _, f := range req.Filters {
		switch f {
		case pb.WatchCreateRequest_NOPUT:
			v |= noPut
		case pb.WatchCreateRequest_NODELETE:
			v |= noDelete
		}
	}
	return v
}

// takeID is the id to use for the one asked for; 0 asks for any.
func (s *Stream) takeID(asked int64) (id int64, ok bool) {
	if asked != 0 {
		_, taken := s.ids[asked]
		return asked, !taken
	}
	for {
		id = s.nextID
		s.nextID++
		if _, taken := s.ids[id]; !taken {
			return id, true
		}
	}
}

// start places the watcher and queues its created answer ahead of any event.
// start 0 is from now on.
func (s *Stream) start(sp span, v variant, m member, start int64) (synced, wake bool) {
	h := s.hub
	h.mu.Lock()
	rev := h.rev.Load()
	h.watchers.Add(1)
	if v&wantPrev != 0 {
		h.prevs.Add(1)
	}
	var c *cursor
	if synced = start == 0 || start > rev; synced {
		m.floor = max(start, rev+1)
		if start > rev {
			m.flags |= memberFuture
			if len(s.future) > 2*s.live+16 {
				s.startsAfter(rev)
			}
			s.future = append(s.future, futureStart{m.id, start})
		}
		c = h.syncedCursor(s, sp, v, m.floor)
	} else {
		m.floor = start
		h.slow.Add(1)
		c = s.catchupCursor(sp, v, start)
	}
	c.n++
	s.q.mu.Lock()
	wake = s.q.pushControl(control{kind: controlCreated, id: m.id, rev: rev})
	s.q.mu.Unlock()
	h.mu.Unlock()
	s.addMember(c, m)
	s.live++
	return synced, wake
}

// syncedCursor is the stream's cursor for a range, made if need be. h.mu is held.
func (h *Hub) syncedCursor(s *Stream, sp span, v variant, floor int64) *cursor {
	g := h.synced.add(sp)
	c := h.synced.cursor(g, s, v)
	if c == nil {
		c = &cursor{stream: s, variant: v, floor: floor}
		h.synced.attach(g, c)
	}
	c.floor = min(c.floor, floor)
	return c
}

// refuse queues the answer to a create request that made no watcher.
func (s *Stream) refuse(reason string) {
	s.answer(control{kind: controlRefused, id: invalidWatchID, rev: s.hub.Revision(), reason: reason})
}

func (s *Stream) answer(c control) {
	s.q.mu.Lock()
	wake := !s.q.closed && s.q.pushControl(c)
	s.q.mu.Unlock()
	if wake {
		s.ready()
	}
}

// Cancel ends a watcher: no event of it follows the answer. A cancel of a
// watcher that does not exist has no answer.
func (s *Stream) Cancel(watchID int64) error {
	if err := s.admit(); err != nil {
		return err
	}
	s.mu.Lock()
	c, ok := s.ids[watchID]
	if ok {
		delete(s.ids, watchID)
		if c != nil {
			s.removeMember(c, s.memberAt(c, watchID))
		}
	}
	s.mu.Unlock()
	if ok {
		s.answer(control{kind: controlCanceled, id: watchID, rev: s.hub.Revision()})
	}
	return nil
}

// removeMember takes the watcher at i out of its cursor, and the cursor away
// with its last watcher. The id is the caller's business.
func (s *Stream) removeMember(c *cursor, i int) {
	h := s.hub
	if c.members[i].flags&memberProgress != 0 {
		delete(s.progress, c.members[i].id)
	}
	s.dropMember(c, i)
	s.live--
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forgetLocked(c, 1)
}

// forgetLocked takes n watchers of a cursor out of the accounts. h.mu and
// stream.mu are held.
func (h *Hub) forgetLocked(c *cursor, n int32) {
	c.n -= n
	h.watchers.Add(-int64(n))
	if c.variant&wantPrev != 0 {
		h.prevs.Add(-int64(n))
	}
	if c.state != stateSynced {
		h.slow.Add(-int64(n))
	}
	if c.n > 0 {
		return
	}
	h.buryLocked(c)
}

// buryLocked takes a cursor without watchers out of wherever it is. h.mu and
// stream.mu are held.
func (h *Hub) buryLocked(c *cursor) {
	switch c.state {
	case stateSynced:
		h.synced.detach(c)
	case stateCatchup:
		c.cohort.remove(c)
		c.stream.unsynced--
	case stateDemoted:
		c.stream.unsynced--
	}
	c.state = stateDead
}

// Progress asks for a notification that everything up to the current revision
// was sent. As in etcd it is dropped when a watcher of the stream is not
// synced or starts in the future, and when there is none. One notification is
// queued at a time, behind all events up to its revision.
func (s *Stream) Progress() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	h := s.hub
	h.mu.Lock()
	rev := h.rev.Load()
	wake := false
	if s.unsynced == 0 && s.live > 0 && !s.startsAfter(rev) {
		s.q.mu.Lock()
		if !s.q.progress {
			wake = s.q.pushControl(control{kind: controlProgress, id: invalidWatchID, rev: rev})
		}
		s.q.mu.Unlock()
	}
	h.mu.Unlock()
	s.mu.Unlock()
	if wake {
		s.ready()
	}
	return nil
}

// startsAfter says whether a watcher starts after rev. It forgets those that
// do not any more.
func (s *Stream) startsAfter(rev int64) bool {
	kept := s.future[:0]
	for _, f := range s.future {
		c := s.ids[f.id]
		if f.rev <= rev || c == nil {
			continue
		}
		if i := s.memberAt(c, f.id); i >= 0 && c.members[i].floor == f.rev {
			kept = append(kept, f)
		}
	}
	clear(s.future[len(kept):])
	s.future = kept
	return len(kept) > 0
}

// closeStep is how many cursors Close removes per hold of hub.mu.
const closeStep = 256

// Close ends all watchers without an answer. It may be called more than once.
func (s *Stream) Close() {
	h := s.hub
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	h.ticks.remove(s)
	cursors := make(map[*cursor]struct{}, len(s.ids))
	for _, c := range s.ids {
		if c != nil {
			cursors[c] = struct{}{}
		}
	}
	h.mu.Lock()
	n := 0
	for c := range cursors {
		h.forgetLocked(c, c.n)
		if n++; n%closeStep == 0 {
			h.mu.Unlock()
			h.mu.Lock()
		}
	}
	delete(h.streams, s)
	h.mu.Unlock()
	s.discard()
}

// discard drops the queue of a closed stream.
func (s *Stream) discard() {
	s.q.mu.Lock()
	items := s.q.items[s.q.head:]
	s.q.items, s.q.head, s.q.controls, s.q.demoted = nil, 0, nil, nil
	s.q.pending, s.q.closed, s.q.armed = 0, true, false
	s.q.mu.Unlock()
	var t tally
	t.dropCurrent(s)
	for i := range items {
		t.drop(s.hub, &items[i])
	}
	t.settle(s.hub)
	s.ids, s.index, s.progress, s.future, s.cohorts = nil, nil, nil, nil, nil
}
