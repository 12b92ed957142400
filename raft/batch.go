package raft

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// batch is a run of operations that becomes one raft entry. While it is in the
// queue, queue.mu guards it; from take to release the core owns it.
type batch struct {
	data    []byte // frame head and operations; for a membership change: the change
	waiters []Waiter
	conf    bool
	bytes   int    // counted against the bound: the operations
	tick    uint64 // when it was opened
	id      entryID
	seq     uint64 // identity when it was forwarded to the leader
	sent    uint64 // tick at which it was forwarded last
}

const (
	// keepBatches and keepBatchBytes bound what the free list holds: QueueDepth
	// batches are in flight and as many being applied or filled.
	keepBatches    = 16
	keepBatchBytes = 2 << 20
	newBatchBytes  = 4 << 10
)

// queue collects operations in batches until the core takes them. It is full
// at its bounds of accepted and unfinished operations; then push refuses at
// once, because waiting would only move the queue into the callers.
type queue struct {
	// waiting is the number of operations not yet taken, for a look without
	// the lock.
	waiting atomic.Int64

	mu struct {
		sync.Mutex
		fifo       fifo[*batch]
		free       []*batch
		ops, bytes int // accepted and not finished
		stopped    bool
		idle       chan struct{} // closed when ops reaches 0 after stop
	}
	cfg *Config
	now *atomic.Uint64 // ticks
}

// push appends one operation, head and body, to the open batch.
func (q *queue) push(w Waiter, head, body []byte) error {
	n := len(head) + len(body)
	if n > q.cfg.MaxOpBytes {
		return ErrTooLarge
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.admitLocked(n); err != nil {
		return err
	}
	b := q.openLocked(n)
	b.data = binary.AppendUvarint(b.data, uint64(n))
	b.data = append(b.data, head...)
	b.data = append(b.data, body...)
	q.acceptLocked(b, w, n)
	return nil
}

// pushConf appends a membership change as a batch of its own.
func (q *queue) pushConf(w Waiter, cc []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.admitLocked(len(cc)); err != nil {
		return err
	}
	b := q.newLocked()
	b.conf = true
	b.data = append(b.data[:0], cc...)
	q.acceptLocked(b, w, len(cc))
	return nil
}

func (q *queue) admitLocked(n int) error {
	if q.mu.stopped {
		return ErrStopped
	}
	if q.mu.ops >= q.cfg.MaxPendingOps || (q.mu.ops > 0 && q.mu.bytes+n > q.cfg.MaxPendingBytes) {
		return ErrTooManyRequests
	}
	return nil
}

func (q *queue) acceptLocked(b *batch, w Waiter, n int) {
	b.waiters = append(b.waiters, w)
	b.bytes += n
	q.mu.ops++
	q.mu.bytes += n
	q.waiting.Add(1)
}

// openLocked returns the batch that takes n more bytes.
func (q *queue) openLocked(n int) *batch {
	if q.mu.fifo.len() > 0 {
		b := *q.mu.fifo.back()
		if !b.conf && len(b.waiters) < q.cfg.MaxBatchOps && len(b.data)+n <= q.cfg.MaxBatchBytes {
			return b
		}
	}
	return q.newLocked()
}

func (q *queue) newLocked() *batch {
	var b *batch
	if k := len(q.mu.free); k > 0 {
		b = q.mu.free[k-1]
		q.mu.free = q.mu.free[:k-1]
	} else {
		b = &batch{data: make([]byte, 0, newBatchBytes)}
	}
	b.data = append(b.data[:0], frameLocal)
	b.tick = q.now.Load()
	q.mu.fifo.push(b)
	return b
}

// take hands the oldest batch to the core.
func (q *queue) take() *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.fifo.len() == 0 {
		return nil
	}
	b := q.mu.fifo.pop()
	q.waiting.Add(-int64(len(b.waiters)))
	return b
}

// putBack returns a batch that could not be proposed.
func (q *queue) putBack(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.fifo.pushFront(b)
	q.waiting.Add(int64(len(b.waiters)))
}

// takeOld takes the oldest batch if it was opened before tick.
func (q *queue) takeOld(tick uint64) *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.fifo.len() == 0 || (*q.mu.fifo.front()).tick >= tick {
		return nil
	}
	b := q.mu.fifo.pop()
	q.waiting.Add(-int64(len(b.waiters)))
	return b
}

// release ends a batch whose waiters have been served.
func (q *queue) release(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.ops -= len(b.waiters)
	q.mu.bytes -= b.bytes
	if q.mu.ops == 0 && q.mu.stopped && q.mu.idle != nil {
		close(q.mu.idle)
		q.mu.idle = nil
	}
	if len(q.mu.free) >= keepBatches || cap(b.data) > keepBatchBytes {
		return
	}
	clear(b.waiters)
	*b = batch{data: b.data[:0], waiters: b.waiters[:0]}
	q.mu.free = append(q.mu.free, b)
}

// stop refuses new operations; the channel is closed when the last accepted
// one is finished.
func (q *queue) stop() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	idle := make(chan struct{})
	if q.mu.ops == 0 {
		close(idle)
	} else {
		q.mu.idle = idle
	}
	q.mu.stopped = true
	return idle
}

func (q *queue) pending() (ops, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.ops, q.mu.bytes
}

// drop tells the waiters of b that it will not be applied, or not known to be.
type drop struct {
	b   *batch
	err error
}

func (d drop) run(q *queue) {
	for _, w := range d.b.waiters {
		if w != nil {
			w.Dropped(d.err)
		}
	}
	q.release(d.b)
}
