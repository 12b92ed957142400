package watchfanout

import (
	"container/heap"
	"slices"
	"sync"
	"time"
)

// ticker knows when each stream with watchers that want interval progress
// notifications is due next. Its lock is a leaf.
type ticker struct {
	mu     sync.Mutex
	due    dueHeap
	at     map[*Stream]*due
	wake   chan struct{}
	closed chan struct{}
}

type due struct {
	when time.Time
	s    *Stream
	pos  int
}

func (t *ticker) init() {
	t.at = map[*Stream]*due{}
	t.wake = make(chan struct{}, 1)
	t.closed = make(chan struct{})
}

func (t *ticker) close() { close(t.closed) }

func (t *ticker) add(s *Stream, when time.Time) {
	t.mu.Lock()
	d := t.at[s]
	if d == nil {
		d = &due{when: when, s: s}
		t.at[s] = d
		heap.Push(&t.due, d)
	}
	first := t.due[0] == d
	t.mu.Unlock()
	if first {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

func (t *ticker) remove(s *Stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.at[s]; d != nil {
		heap.Remove(&t.due, d.pos)
		delete(t.at, s)
	}
}

// next returns a stream that is due, taken out, or else how long to wait.
func (t *ticker) next(now time.Time) (s *Stream, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.due) == 0 {
		return nil, time.Hour
	}
	d := t.due[0]
	if d.when.After(now) {
		return nil, d.when.Sub(now)
	}
	heap.Pop(&t.due)
	delete(t.at, d.s)
	return d.s, 0
}

type dueHeap []*due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].when.Before(h[j].when) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h *dueHeap) Push(x any) {
	d := x.(*due)
	d.pos = len(*h)
	*h = append(*h, d)
}

func (h *dueHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return d
}

// tickLoop is the goroutine that sends interval progress notifications.
func (h *Hub) tickLoop() {
	defer h.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		s, wait := h.ticks.next(now)
		if s != nil {
			if s.tick() {
				h.ticks.add(s, s.nextTick(now))
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-h.ticks.wake:
		case <-h.ticks.closed:
			return
		}
	}
}

// nextTick is the end of the stream's period that now is in.
func (s *Stream) nextTick(now time.Time) time.Time {
	return s.opened.Add((now.Sub(s.opened)/s.period + 1) * s.period)
}

// addProgress notes a watcher that wants notifications. It is true if the
// stream must be given to the ticker.
func (s *Stream) addProgress(id int64) bool {
	if s.progress == nil {
		s.progress = map[int64]struct{}{}
	}
	s.progress[id] = struct{}{}
	first := !s.ticking
	s.ticking = true
	return first
}

// tick queues a notification for each watcher that wants one, was sent no
// event since the last tick, and is synced. It is false if the stream needs no
// more ticks.
func (s *Stream) tick() bool {
	s.mu.Lock()
	if s.closed || len(s.progress) == 0 {
		s.ticking = false
		s.mu.Unlock()
		return false
	}
	h := s.hub
	h.mu.Lock()
	rev := h.rev.Load()
	var ids []int64
	for id := range s.progress {
		c := s.ids[id]
		m := &c.members[s.memberAt(c, id)]
		future := m.flags&memberFuture != 0 && m.floor > rev
		if m.flags&memberIdle != 0 && c.state == stateSynced && !future {
			ids = append(ids, id)
		}
		m.flags |= memberIdle
	}
	slices.Sort(ids)
	wake := false
	s.q.mu.Lock()
	if len(ids) > 0 && !s.q.ticked {
		wake = s.q.pushControl(control{kind: controlInterval, rev: rev, ids: ids})
	}
	s.q.mu.Unlock()
	h.mu.Unlock()
	s.mu.Unlock()
	if wake {
		s.ready()
	}
	return true
}
