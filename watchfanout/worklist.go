package watchfanout

import (
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
	inline  bool // nobody waits in next, and no timer runs
}

func (w *workList) init(inline bool) {
	w.cond = sync.NewCond(&w.mu)
	w.inline = inline
}

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
	if w.inline {
		w.shed = true
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

// next waits for work: a stream, or nil for shedding. It is false when the list is
// closed, and inline when there is no work.
func (w *workList) next() (s *Stream, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.closed && !w.shed && w.head == len(w.fifo) {
		if w.inline {
			return nil, false
		}
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
