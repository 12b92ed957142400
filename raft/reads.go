package raft

import (
	"sync"
	"sync/atomic"
)

// readQueue collects reads until the core starts a round for them.
type readQueue struct {
	waiting atomic.Int64
	mu      struct {
		sync.Mutex
		waiters []ReadWaiter
		tick    uint64 // of the oldest
		stopped bool
	}
	now *atomic.Uint64
}

// maxWaitingReads bounds the reads that wait for a round, some megabytes. A
// reader above it is told ErrTooManyRequests.
const maxWaitingReads = 1 << 17

func (q *readQueue) push(w ReadWaiter) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.stopped {
		return ErrStopped
	}
	if len(q.mu.waiters) >= maxWaitingReads {
		return ErrTooManyRequests
	}
	if len(q.mu.waiters) == 0 {
		q.mu.tick = q.now.Load()
	}
	q.mu.waiters = append(q.mu.waiters, w)
	q.waiting.Add(1)
	return nil
}

func (q *readQueue) take() (ws []ReadWaiter, tick uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	ws, tick = q.mu.waiters, q.mu.tick
	q.mu.waiters = nil
	q.waiting.Store(0)
	return ws, tick
}

func (q *readQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.stopped = true
}

// oldest returns the tick of the oldest waiting read.
func (q *readQueue) oldest() (tick uint64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.tick, len(q.mu.waiters) > 0
}

// readRound is a batch of reads that share one question to the cluster.
type readRound struct {
	seq     uint64 // identity of the question; never used again
	index   uint64 // once confirmed: readable when applied
	asked   uint64 // tick of the question
	since   uint64 // tick of the oldest read
	waiters []ReadWaiter
}

type readDone struct {
	waiters []ReadWaiter
	err     error
}

func (d readDone) run() {
	for _, w := range d.waiters {
		w.ReadReady(d.err)
	}
}

// maxRounds is how many questions are under way: one that is being answered
// and one for the reads that came since. More would only split the reads.
const maxRounds = 2

// startReads asks for the reads that wait. A leader must have committed an
// entry of its term, or its commit index may be older than what was
// acknowledged before; a single voter then knows the answer.
func (c *core) startReads() {
	if c.err != nil || c.reads.waiting.Load() == 0 || c.lead.lead == 0 || c.rounds.len() >= maxRounds {
		return
	}
	if c.lead.isLeader && c.hs.commit < c.termStart {
		return
	}
	ws, tick := c.reads.take()
	r := readRound{since: tick, waiters: ws}
	if c.single && c.lead.isLeader {
		r.index = c.hs.commit
		c.confirmed.push(r)
		c.readyReads()
		return
	}
	c.ask(r)
}

// ask puts the question for r, under a context that was never used before: an
// answer to an earlier question proves nothing about a later one.
func (c *core) ask(r readRound) {
	c.readSeq++
	r.seq, r.asked = c.readSeq, c.now
	c.rounds.push(r)
	c.rn.ReadIndex(appendU64s(make([]byte, 0, 24), c.cfg.ID, c.cfg.Session, r.seq))
	c.drain()
}

// readConfirmed takes an answer: everything up to index was committed when the
// question was put.
func (c *core) readConfirmed(index uint64, ctx []byte) {
	if len(ctx) != 24 || u64at(ctx, 0) != c.cfg.ID || u64at(ctx, 1) != c.cfg.Session {
		return
	}
	seq := u64at(ctx, 2)
	for i := 0; i < c.rounds.len(); i++ {
		if c.rounds.at(i).seq == seq {
			r := c.rounds.remove(i)
			r.index = index
			c.confirmed.push(r)
			c.readyReads()
			return
		}
	}
}

// readyReads releases the confirmed reads that the applied state covers.
func (c *core) readyReads() {
	for i := 0; i < c.confirmed.len(); {
		if c.confirmed.at(i).index > c.applied {
			i++
			continue
		}
		r := c.confirmed.remove(i)
		c.fx.reads = append(c.fx.reads, readDone{r.waiters, nil})
	}
}

// failRounds ends the questions under way. Reads that are confirmed stay: the
// answer holds whoever leads now.
func (c *core) failRounds(err error) {
	for c.rounds.len() > 0 {
		c.fx.reads = append(c.fx.reads, readDone{c.rounds.pop().waiters, err})
	}
}

// failReads ends all reads.
func (c *core) failReads(err error) {
	c.failRounds(err)
	for c.confirmed.len() > 0 {
		c.fx.reads = append(c.fx.reads, readDone{c.confirmed.pop().waiters, err})
	}
	if ws, _ := c.reads.take(); len(ws) > 0 {
		c.fx.reads = append(c.fx.reads, readDone{ws, err})
	}
}

// expireReads asks again where no answer came, and gives up on reads that have
// waited as long as a proposal may.
func (c *core) expireReads() {
	retry, limit := c.cfg.ticks(c.cfg.ReadRetryMillis), c.cfg.ticks(c.cfg.ProposalTimeoutMillis)
	for i := 0; i < c.confirmed.len(); {
		if c.now-c.confirmed.at(i).since <= limit {
			i++
			continue
		}
		c.fx.reads = append(c.fx.reads, readDone{c.confirmed.remove(i).waiters, ErrTimeout})
	}
	for n := c.rounds.len(); n > 0; n-- {
		r := c.rounds.pop()
		switch {
		case c.now-r.since > limit:
			c.fx.reads = append(c.fx.reads, readDone{r.waiters, ErrTimeout})
		case c.now-r.asked >= retry:
			c.ask(r)
		default:
			c.rounds.push(r)
		}
	}
	if tick, ok := c.reads.oldest(); ok && c.now-tick > limit {
		ws, _ := c.reads.take()
		c.fx.reads = append(c.fx.reads, readDone{ws, ErrTimeout})
	}
}
