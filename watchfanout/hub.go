package watchfanout

import (
	"sync"
	"sync/atomic"
)

// Hub knows every watcher of the member and is told every event.
type Hub struct {
	history History
	opts    Options

	mu      sync.Mutex // guards what follows up to the blank line; after stream.mu, before queue.mu
	synced  matcher
	streams map[*Stream]struct{}

	collect collector // scratch of the apply goroutine
	wake    []*Stream // scratch of the apply goroutine

	rev      atomic.Int64 // newest published revision; written under mu
	prevs    atomic.Int64 // watchers that want prev_kv
	retained atomic.Int64 // bytes that queues keep alive
	batches  atomic.Uint64
	epoch    atomic.Uint64 // of shedding: a stream that filled in this one reads
	rights   atomic.Uint64 // how often Recheck was called
	closed   atomic.Bool

	watchers      atomic.Int64 // written under mu
	slow          atomic.Int64 // watchers that are not synced; written under mu
	pendingEvents atomic.Int64
	counts        counters

	work  workList
	cache chunkCache
	ticks ticker
	check chan struct{} // wakes recheckLoop
	done  chan struct{} // closed by Close
	wg    sync.WaitGroup
}

// NewHub starts the catch-up workers, the progress ticker and the loop that
// checks rights again. The hub's
// revision is what h says it is; the next Publish continues from there.
func NewHub(h History, o Options) *Hub {
	hub := &Hub{history: h, opts: o.withDefaults(), streams: map[*Stream]struct{}{}, check: make(chan struct{}, 1), done: make(chan struct{})}
	_, rev := h.Bounds()
	hub.rev.Store(rev)
	hub.work.init(hub.opts.Inline)
	hub.ticks.init()
	if hub.opts.Inline {
		return hub
	}
	hub.wg.Add(hub.opts.Workers + 2)
	for range hub.opts.Workers {
		go (&worker{hub: hub}).run()
	}
	go hub.tickLoop()
	go hub.recheckLoop()
	return hub
}

// Close stops the goroutines and waits for them. Streams stay usable but get
// no more history and no notifications; the owner closes them.
func (h *Hub) Close() {
	if h.closed.Swap(true) {
		return
	}
	h.work.close()
	h.ticks.close()
	close(h.done)
	h.wg.Wait()
}

// RunPending does a piece of the work that is due, on the calling goroutine, and
// says whether there was any. For a hub with Options.Inline.
func (h *Hub) RunPending() bool {
	select {
	case <-h.check:
		h.recheckAll()
		return true
	default:
	}
	s, ok := h.work.next()
	if ok {
		(&worker{hub: h}).serve(s)
	}
	return ok
}

// WantsPrev says whether any watcher asked for previous values.
func (h *Hub) WantsPrev() bool { return h.prevs.Load() > 0 }

// Revision is the newest revision that was published.
func (h *Hub) Revision() int64 { return h.rev.Load() }

// Publish offers the events of whole revisions up to rev to all synced
// watchers. Only the apply goroutine calls it, in revision order, after
// History can serve the revisions and before their writes are acknowledged.
func (h *Hub) Publish(evs []Event, rev int64) {
	h.mu.Lock()
	if rev < h.rev.Load() {
		h.mu.Unlock()
		panic("watchfanout: revision published backwards")
	}
	if h.synced.groups > 0 {
		for i := range evs {
			h.collect.add(&h.synced, evs[i].Key, i)
		}
	}
	if len(h.collect.touched) > 0 {
		h.fanOut(evs)
	}
	h.rev.Store(rev)
	h.mu.Unlock()

	for i, s := range h.wake {
		s.ready()
		h.wake[i] = nil
	}
	h.wake = h.wake[:0]
	if h.overBudget() {
		h.work.planShed()
	}
}

// publishing is one Publish under way.
type publishing struct {
	evs    []Event
	source []uint32
	batch  *batch
	items  int64
	events int64
}

// guardRefs keeps a batch referenced while its items are being queued.
const guardRefs = 1 << 32

func (h *Hub) fanOut(evs []Event) {
	k := &h.collect
	p := publishing{evs: evs, batch: k.compact(evs), source: k.source}
	p.batch.seq = h.batches.Add(1)
	p.batch.refs.Store(guardRefs)
	segs := k.segments(p.batch)
	defer k.reset()
	for i, g := range k.touched {
		seg := &segs[i]
		seg.rev = seg.last
		seg.header = appendHeaderField(k.headerSpace(), h.opts.Header, seg.rev)
		for j := 0; j < len(g.cursors); {
			c := g.cursors[j]
			if h.offerLocked(&p, c, seg) {
				j++
				continue
			}
			h.demoteLocked(c, max(c.floor, seg.first)) // another takes its place at j
		}
	}
	h.retained.Add(p.items*itemBytes + p.batch.bytes.Load())
	h.pendingEvents.Add(p.events)
	h.release(p.batch, guardRefs-p.items)
}

// offerLocked queues the segment for the cursor. It is false if the cursor
// must read these events from history instead.
func (h *Hub) offerLocked(p *publishing, c *cursor, seg *segment) bool {
	if c.floor > seg.last || !seg.concerns(c.variant) {
		return true
	}
	if c.variant&wantPrev != 0 {
		if seg.lost {
			return false
		}
		if seg.fullBytes == 0 {
			p.batch.bytes.Add(int64(seg.encodeFull(p.evs, p.source)))
		}
	} else if seg.plainBytes == 0 {
		p.batch.bytes.Add(int64(seg.encodePlain(p.evs, p.source)))
	}
	charge := itemBytes + seg.bytesFor(c.variant)
	limit := h.opts.StreamPendingBytes
	if h.overBudget() {
		limit = 0
	}
	q := &c.stream.q
	q.mu.Lock()
	if q.starved || q.pending > 0 && q.pending+charge > limit {
		q.mu.Unlock()
		return false
	}
	wake := q.push(item{c: c, seg: seg, from: c.floor}, charge)
	q.mu.Unlock()
	if wake {
		h.wake = append(h.wake, c.stream)
	}
	p.items++
	p.events += int64(len(seg.idx))
	return true
}

// concerns is false if the variant filters out all of the segment.
func (g *segment) concerns(v variant) bool {
	return g.puts > 0 && v&noPut == 0 || g.dels > 0 && v&noDelete == 0
}

// demoteLocked makes a synced cursor read history from revision next on.
func (h *Hub) demoteLocked(c *cursor, next int64) {
	s := c.stream
	h.synced.detach(c)
	c.state, c.floor = stateDemoted, next
	s.unsynced++
	h.slow.Add(int64(c.n))
	h.counts.demotions.Add(1)
	s.q.mu.Lock()
	s.q.demoted = append(s.q.demoted, c)
	s.q.mu.Unlock()
	h.schedule(s)
}

// acquire takes n references to a batch.
func (h *Hub) acquire(b *batch, n int64) {
	if n > 0 && b.refs.Add(n) == n {
		h.retained.Add(b.bytes.Load())
	}
}

// release gives n references to a batch back.
func (h *Hub) release(b *batch, n int64) {
	if b.refs.Add(-n) == 0 {
		h.retained.Add(-b.bytes.Load())
	}
}

// Restored tells that the store was replaced by a snapshot whose newest
// revision is rev: no watcher saw what lies between, so all read history, or
// are canceled if the snapshot's compaction has passed them. It is called on
// the apply goroutine.
func (h *Hub) Restored(rev int64) {
	h.cache.clear()
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.rev.Load() + 1
	h.rev.Store(max(rev, next-1))
	for _, g := range h.synced.appendGroups(nil) {
		for len(g.cursors) > 0 {
			c := g.cursors[len(g.cursors)-1]
			h.demoteLocked(c, max(c.floor, next))
		}
	}
}
