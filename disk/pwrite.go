package disk

import (
	"runtime"
	"sync"
)

// The engines that Dir.Engine names.
const (
	EngineUring  = "io_uring"
	EnginePwrite = "pwrite"
)

// pwriteQueue is a Queue of goroutines that block in pwrite(2) on an O_DSYNC
// descriptor. Channels are as deep as the queue, so that nothing blocks in Submit.
//
// A write that is alone in flight is done by the goroutine that sits in Wait,
// which spares the way to a worker and back: two wake-ups, which cost as much as
// the write on a fast disk. It delays no other completion that the owner of a log
// could use, because that write is the oldest one.
type pwriteQueue struct {
	work  chan Write // for the workers
	alone chan Write // for the goroutine in Wait
	done  chan Completion
	wg    sync.WaitGroup // the workers, and a write that is alone

	mu     sync.Mutex
	flying int  // submitted and not yet given out by Wait
	parked bool // a goroutine sits in Wait and has no write
	depth  int
	closed bool
}

func newPwriteQueue(depth int) *pwriteQueue {
	q := &pwriteQueue{
		work:  make(chan Write, depth),
		alone: make(chan Write, 1),
		done:  make(chan Completion, depth),
		depth: depth,
	}
	q.wg.Add(depth)
	for range depth {
		go q.worker()
	}
	return q
}

func (q *pwriteQueue) worker() {
	defer q.wg.Done()
	for w := range q.work {
		q.done <- w.perform()
	}
}

// perform writes. It yields first: the write blocks its processor until the
// scheduler's monitor takes it away, and goroutines that could run now and add
// to the next batch would have to wait for that. With 16, 100 and 400 writers it
// makes 4, 23 and 87 records per write out of 1.4, 6 and 35.
func (w *Write) perform() Completion {
	runtime.Gosched()
	return Completion{Token: w.Token, Err: w.File.WriteAt(w.Buf, w.Off)}
}

// Submit implements Queue.
func (q *pwriteQueue) Submit(w Write) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return wrap("submit", w.File.Name(), w.Off, ErrClosed)
	}
	if q.flying >= q.depth {
		return wrap("submit", w.File.Name(), w.Off, ErrQueueFull)
	}
	to := q.work // has room: at most depth are flying
	if q.flying == 0 && q.parked {
		to = q.alone // is empty: who is parked has taken what was there
		q.parked = false
		q.wg.Add(1)
	}
	q.flying++
	to <- w
	return nil
}

// Wait implements Queue. After Close it still gives out what had completed.
func (q *pwriteQueue) Wait(done []Completion) (int, error) {
	n := q.take(done)
	if n == 0 {
		c, ok := q.next()
		if !ok {
			return 0, wrap("wait", "", 0, ErrClosed)
		}
		done[0] = c
		n = 1 + q.take(done[1:])
	}
	q.mu.Lock()
	q.flying -= n
	q.mu.Unlock()
	return n, nil
}

// take fills done with what has completed already.
func (q *pwriteQueue) take(done []Completion) int {
	for n := range done {
		select {
		case c, ok := <-q.done:
			if !ok {
				return n
			}
			done[n] = c
		default:
			return n
		}
	}
	return len(done)
}

// next waits for a completion, or does a write that is alone.
func (q *pwriteQueue) next() (Completion, bool) {
	q.mu.Lock()
	q.parked = !q.closed
	q.mu.Unlock()
	select {
	case w := <-q.alone:
		defer q.wg.Done()
		return w.perform(), true
	case c, ok := <-q.done:
		q.mu.Lock()
		q.parked = false
		q.mu.Unlock()
		return c, ok
	}
}

// Close implements Queue.
func (q *pwriteQueue) Close() error {
	q.mu.Lock()
	closed := q.closed
	q.closed = true
	q.mu.Unlock()
	if closed {
		return wrap("close", "", 0, ErrClosed)
	}
	close(q.work)
	q.wg.Wait()
	close(q.done)
	return nil
}
