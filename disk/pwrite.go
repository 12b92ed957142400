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

// pwriteQueue is a Queue of one goroutine per write in flight: depth workers
// take writes from a channel that is as deep, so that nothing ever blocks in
// Submit. A worker blocks its thread in pwrite(2) on an O_DSYNC descriptor.
type pwriteQueue struct {
	work chan Write
	done chan Completion
	wg   sync.WaitGroup

	mu     sync.Mutex
	flying int // submitted and not yet given out by Wait
	depth  int
	closed bool
}

func newPwriteQueue(depth int) *pwriteQueue {
	q := &pwriteQueue{work: make(chan Write, depth), done: make(chan Completion, depth), depth: depth}
	q.wg.Add(depth)
	for range depth {
		go q.worker()
	}
	return q
}

// worker yields before each write: the write blocks its processor until the
// scheduler's monitor takes it away, and goroutines that could run now and add to
// the next batch would have to wait for that. With 16 and 100 writers it makes 4
// and 23 records per write out of 1.3 and 2, for a half and a quarter of the CPU
// time per record (go test ./wal -bench Append/pwrite). Letting the goroutine in
// Wait do a write that is alone in flight was tried too and gained nothing more.
func (q *pwriteQueue) worker() {
	defer q.wg.Done()
	for w := range q.work {
		runtime.Gosched()
		q.done <- Completion{Token: w.Token, Err: w.File.WriteAt(w.Buf, w.Off)}
	}
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
	q.flying++
	q.work <- w // has room: at most depth are flying
	return nil
}

// Wait implements Queue. After Close it still gives out what had completed.
func (q *pwriteQueue) Wait(done []Completion) (int, error) {
	c, ok := <-q.done
	if !ok {
		return 0, wrap("wait", "", 0, ErrClosed)
	}
	done[0] = c
	n := 1
more:
	for n < len(done) {
		select {
		case c, ok := <-q.done:
			if !ok {
				break more
			}
			done[n] = c
			n++
		default:
			break more
		}
	}
	q.mu.Lock()
	q.flying -= n
	q.mu.Unlock()
	return n, nil
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
