package pagestore

import (
	"sync"
	"sync/atomic"
)

// frame is one page in memory. Its bytes, once a record has been published,
// never change and are left to the garbage collector: whoever got a record of it
// may keep it although the frame was evicted.
type frame struct {
	data    []byte // the page; of an open page the whole buffer
	seg     *segment
	head    pageHeader // of a page that is, or was, waiting to be written
	touched atomic.Bool
}

func (f *frame) page() pageNo { return pageNo(f.head.off / unitBytes) }

// cache bounds the memory of the pages that are also on the disk. Lookups do not
// come here: they go through the segments' slots. The cache only decides which
// slots to empty, by CLOCK: a frame that was read since the hand passed gets
// another round; a new one does not, so that a scan flushes only itself.
//
// Pages not yet written are not in it. They are bounded by DirtyBytes.
type cache struct {
	limit int64
	mu    struct {
		sync.Mutex
		ring      []*frame
		hand      int
		bytes     int64
		evictions uint64
	}
}

// add makes f, which is in its slot already, subject to eviction.
func (c *cache) add(f *frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.bytes += int64(len(f.data))
	for c.mu.bytes > c.limit && len(c.mu.ring) > 0 {
		c.evictLocked()
	}
	c.mu.ring = append(c.mu.ring, f)
	if c.mu.bytes > c.limit { // larger than the whole cache
		c.mu.hand = len(c.mu.ring) - 1
		f.touched.Store(false)
		c.evictLocked()
	}
}

// evictLocked empties the slot of the first frame from the hand on that was not
// read since the hand's last visit.
func (c *cache) evictLocked() {
	ring := c.mu.ring
	for {
		if c.mu.hand >= len(ring) {
			c.mu.hand = 0
		}
		f := ring[c.mu.hand]
		if !f.touched.Load() {
			break
		}
		f.touched.Store(false)
		c.mu.hand++
	}
	f := ring[c.mu.hand]
	if cell := f.seg.slot(f.page(), false); cell != nil {
		cell.CompareAndSwap(f, nil)
	}
	last := len(ring) - 1
	ring[c.mu.hand], ring[last] = ring[last], nil
	c.mu.ring = ring[:last]
	c.mu.bytes -= int64(len(f.data))
	c.mu.evictions++
}

// forget drops all frames of a segment that is about to go.
func (c *cache) forget(seg *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.mu.ring[:0]
	for _, f := range c.mu.ring {
		if f.seg == seg {
			c.mu.bytes -= int64(len(f.data))
			continue
		}
		kept = append(kept, f)
	}
	clear(c.mu.ring[len(kept):])
	c.mu.ring, c.mu.hand = kept, 0
}

func (c *cache) usage() (bytes int64, evictions uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.bytes, c.mu.evictions
}
