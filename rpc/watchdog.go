package rpc

import (
	"sync"
	"sync/atomic"
	"time"
)

// watchdog ends calls that wait longer than the request timeout or whose client
// has gone. All calls have the same timeout, so each shard is a list in order of
// age: a call costs two short critical sections and neither a timer nor a
// channel of its own. A look at all waiting calls per tick finds the clients
// that went away; nobody waits for their answers, so a tick later is no loss.
type watchdog struct {
	timeout time.Duration
	now     func() time.Time
	shards  [watchdogShards]watchdogShard
	adopted atomic.Uint32 // spreads the calls over the shards
	stop    chan struct{}
	done    chan struct{}
}

const (
	// watchdogShards keeps the lists' locks uncontended on the core counts
	// that the server is tuned for.
	watchdogShards = 16
	// watchdogTick is how late a timeout may be noticed.
	watchdogTick = 100 * time.Millisecond
)

type watchdogShard struct {
	mu   sync.Mutex
	head watchEntry // sentinel of a ring; next is the oldest
	_    [64]byte   // keeps neighbours off this shard's cache line
}

// watchEntry links a call into its shard; a zero prev means not linked.
type watchEntry struct {
	prev, next *watchEntry
	call       *Call
	shard      *watchdogShard
}

func newWatchdog(timeout time.Duration, now func() time.Time) *watchdog {
	d := &watchdog{timeout: timeout, now: now, stop: make(chan struct{}), done: make(chan struct{})}
	for i := range d.shards {
		h := &d.shards[i].head
		h.prev, h.next = h, h
	}
	return d
}

// run expires calls until close. It is the watchdog's goroutine.
func (d *watchdog) run() {
	defer close(d.done)
	t := time.NewTicker(watchdogTick)
	defer t.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-t.C:
			d.expire(d.now())
		}
	}
}

func (d *watchdog) close() {
	close(d.stop)
	<-d.done
}

// adopt assigns c, which is new, to a shard for all its lives.
func (d *watchdog) adopt(c *Call) {
	c.watch.call = c
	c.watch.shard = &d.shards[d.adopted.Add(1)%watchdogShards]
}

// add watches c until remove. Only the goroutine that runs c's handler calls
// it, before that goroutine gives c back to the transport.
func (d *watchdog) add(c *Call) {
	s := c.watch.shard
	s.mu.Lock()
	e, h := &c.watch, &s.head
	if e.prev == nil {
		e.prev, e.next = h.prev, h
		h.prev.next = e
		h.prev = e
	}
	s.mu.Unlock()
	// The call may have ended between the hand-over to raft and now; then its
	// claimer's remove came too early.
	if c.ended() {
		d.remove(c)
	}
}

// remove is harmless for a call that is not watched.
func (d *watchdog) remove(c *Call) {
	s := c.watch.shard
	s.mu.Lock()
	e := &c.watch
	if e.prev != nil {
		e.prev.next, e.next.prev = e.next, e.prev
		e.prev, e.next = nil, nil
	}
	s.mu.Unlock()
}

// expire ends every call older than the timeout and every call whose client has
// gone.
func (d *watchdog) expire(now time.Time) {
	limit := now.Add(-d.timeout)
	var dead []*Call
	for i := range d.shards {
		dead = d.shards[i].collect(dead[:0], limit)
		for _, c := range dead {
			if err := c.Ctx.Err(); err != nil {
				c.Fail(err)
			} else {
				c.Fail(errTimeout)
			}
			c.release()
		}
	}
}

// collect takes the calls to be ended out of the shard, with a reference each:
// while a call is linked, it is certainly alive.
func (s *watchdogShard) collect(dead []*Call, limit time.Time) []*Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next *watchEntry
	for e := s.head.next; e != &s.head; e = next {
		next = e.next
		if c := e.call; !c.start.After(limit) || c.Ctx.Err() != nil {
			e.prev.next, e.next.prev = e.next, e.prev
			e.prev, e.next = nil, nil
			c.hold()
			dead = append(dead, c)
		}
	}
	return dead
}
