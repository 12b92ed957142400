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

// putBack returns reads whose question was put to a leader that is none any
// more. They were admitted before, so the bound does not apply.
func (q *readQueue) putBack(ws []ReadWaiter, tick uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.mu.waiters) == 0 || tick < q.mu.tick {
		q.mu.tick = tick
	}
	q.mu.waiters = append(q.mu.waiters, ws...)
	q.waiting.Add(int64(len(ws)))
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

// permits: should the reads that wait be asked for now? With a question under way
// another one is worth its messages, to and from each voter, if it carries its
// share of the reads, as with the writes of the log; or if the one under way may
// have been lost.
func (r *readRounds) permits(waiting int, now uint64) bool {
	n := r.asked.len()
	return n == 0 || n < maxRounds && (waiting >= len(r.asked.front().waiters) || now > r.asked.front().asked+1)
}

// maxConfirmed bounds the rounds that wait for the state machine. Above, reads
// stay in the queue, which is bounded.
const maxConfirmed = 64

// readRounds are the reads that have left the queue.
type readRounds struct {
	asked     fifo[readRound]
	confirmed fifo[readRound]
	seq       uint64     // of the newest question
	done      []readDone // to be told, without the core's lock
}

func (r *readRounds) tell(ws []ReadWaiter, err error) {
	r.done = append(r.done, readDone{ws, err})
}

// confirm takes the answer to question seq: everything up to index was
// committed when it was put.
func (r *readRounds) confirm(seq, index uint64) {
	for i := 0; i < r.asked.len(); i++ {
		if r.asked.at(i).seq == seq {
			round := r.asked.remove(i)
			round.index = index
			r.confirmed.push(round)
			return
		}
	}
}

// ready releases the confirmed reads that the applied state covers.
func (r *readRounds) ready(applied uint64) {
	for i := 0; i < r.confirmed.len(); {
		if r.confirmed.at(i).index > applied {
			i++
			continue
		}
		r.tell(r.confirmed.remove(i).waiters, nil)
	}
}

// failAsked ends the questions under way. Reads that are confirmed stay: the
// answer holds whoever leads now.
func (r *readRounds) failAsked(err error) {
	for r.asked.len() > 0 {
		r.tell(r.asked.pop().waiters, err)
	}
}

func (r *readRounds) failAll(err error) {
	r.failAsked(err)
	for r.confirmed.len() > 0 {
		r.tell(r.confirmed.pop().waiters, err)
	}
}

// expire gives up on reads that came before tick.
func (r *readRounds) expire(tick uint64) {
	for _, f := range []*fifo[readRound]{&r.confirmed, &r.asked} {
		for i := 0; i < f.len(); {
			if f.at(i).since >= tick {
				i++
				continue
			}
			r.tell(f.remove(i).waiters, ErrTimeout)
		}
	}
}

// startReads asks for the reads that wait. A leader must have committed an
// entry of its term, or its commit index may be older than what was
// acknowledged before; a single voter then knows the answer.
func (c *core) startReads() {
	if c.err != nil || c.reads.waiting.Load() == 0 || c.lead.lead == 0 || !c.rounds.permits(int(c.reads.waiting.Load()), c.now) {
		return
	}
	if c.lead.isLeader && c.hs.commit < c.termStart || c.rounds.confirmed.len() >= maxConfirmed {
		return
	}
	ws, tick := c.reads.take()
	r := readRound{since: tick, waiters: ws}
	if c.mem.single && c.lead.isLeader {
		r.index = c.hs.commit
		c.rounds.confirmed.push(r)
		c.rounds.ready(c.applied)
		return
	}
	c.ask(r)
}

// ask puts the question for r, under a context that was never used before: an
// answer to an earlier question proves nothing about a later one.
func (c *core) ask(r readRound) {
	c.rounds.seq++
	r.seq, r.asked = c.rounds.seq, c.now
	c.rounds.asked.push(r)
	c.rn.ReadIndex(appendU64s(make([]byte, 0, 24), c.cfg.ID, c.cfg.Session, r.seq))
	c.drain()
}

// askAgain puts reads back that a leader did not answer; the next one is asked.
func (c *core) askAgain() {
	for c.rounds.asked.len() > 0 {
		r := c.rounds.asked.pop()
		c.reads.putBack(r.waiters, r.since)
	}
}

// readConfirmed takes an answer from RawNode.
func (c *core) readConfirmed(index uint64, ctx []byte) {
	if len(ctx) == 24 && u64at(ctx, 0) == c.cfg.ID && u64at(ctx, 1) == c.cfg.Session {
		c.rounds.confirm(u64at(ctx, 2), index)
		c.rounds.ready(c.applied)
	}
}

// expireReads asks again where no answer came, and gives up on reads that have
// waited as long as a proposal may, or for two elections without a leader: then
// this member is likely to be cut off, and another one can answer.
func (c *core) expireReads() {
	retry, limit := c.cfg.ticks(c.cfg.ReadRetryMillis), c.cfg.ticks(c.cfg.ProposalTimeoutMillis)
	if c.now > limit {
		c.rounds.expire(c.now - limit)
		if tick, ok := c.reads.oldest(); ok && tick < c.now-limit {
			ws, _ := c.reads.take()
			c.rounds.tell(ws, ErrTimeout)
		}
	}
	if patience := 2 * uint64(c.cfg.electionTicks()); c.lead.lead == 0 && c.now > patience {
		if tick, ok := c.reads.oldest(); ok && tick < c.now-patience {
			ws, _ := c.reads.take()
			c.rounds.tell(ws, ErrNoLeader)
		}
	}
	for n := c.rounds.asked.len(); n > 0; n-- {
		r := c.rounds.asked.pop()
		if c.now-r.asked >= retry || c.leaderLost {
			c.ask(r)
		} else {
			c.rounds.asked.push(r)
		}
	}
}
