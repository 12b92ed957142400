package index

import "bytes"

// Count returns the number of keys in [lo, hi), hi nil meaning no bound, that
// are live as of rev. If rev is below CompactRevision after the call, the
// answer means nothing.
//
// Cost: at the newest revision two descents of the tree. At an older one that
// and either a walk over the revision log, where each key created since counts
// one less and each deleted since one more, or a visit of every key of the
// range, whichever looks cheaper. Both hold the read lock in pieces.
func (x *Index) Count(lo, hi []byte, rev int64) int64 {
	return x.countIn(lo, hi, rev, false)
}

// CountLocked is Count for the writer.
func (x *Index) CountLocked(lo, hi []byte, rev int64) int64 {
	return x.countIn(lo, hi, rev, true)
}

// Relative costs of one step: an event of the log that says by itself that
// it does not matter, one whose key has to be looked at, a key visited.
const (
	eventCost = 1
	edgeCost  = 100
	visitCost = 40
	// eventsPerHold is how much of the log is walked under one hold of the
	// read lock.
	eventsPerHold = 4096
)

func (x *Index) countIn(lo, hi []byte, rev int64, locked bool) int64 {
	if hi != nil && bytes.Compare(lo, hi) >= 0 {
		return 0
	}
	c := counter{x: x, lo: lo, hi: hi, locked: locked}
	c.lock()
	now := x.tree.span(lo, hi)
	c.n = int64(now.live)
	if rev == Newest || rev >= x.log.lastMain || now.keys == 0 {
		c.unlock()
		return c.n
	}
	c.pos, c.end = x.log.seek(rev+1), x.log.tail
	events, edges := x.log.after(c.pos)
	c.unlock()
	if events*eventCost+edges*edgeCost > int(now.keys)*visitCost {
		return c.visit(rev)
	}
	for c.walk() {
	}
	return c.n
}

// counter counts the keys of a range that were live at an older revision.
type counter struct {
	x        *Index
	lo, hi   []byte
	locked   bool
	n        int64
	pos, end uint64 // events still to be taken into account
}

func (c *counter) lock() {
	if !c.locked {
		c.x.mu.RLock()
	}
}

func (c *counter) unlock() {
	if !c.locked {
		c.x.mu.RUnlock()
	}
}

// walk takes a number of events out of the count and says if there are more.
// Events that have been dropped meanwhile are missing: then the revision has
// been compacted.
func (c *counter) walk() bool {
	c.lock()
	defer c.unlock()
	g := &c.x.log
	if c.pos < g.head {
		return false
	}
	looked := 0
	for i := 0; i < eventsPerHold && looked < chunkKeys; i++ {
		c.pos = g.skipGap(c.pos)
		if c.pos >= c.end {
			return false
		}
		e := g.at(c.pos)
		c.pos++
		if e.edge {
			looked++
			c.undo(e.ref)
		}
	}
	return true
}

// undo takes the event that made the version r, a creation or a deletion, out
// of the count.
func (c *counter) undo(r ref) {
	a := c.x.a
	key := a.key(a.keyRecord(r))
	if bytes.Compare(key, c.lo) < 0 || c.hi != nil && bytes.Compare(key, c.hi) >= 0 {
		return
	}
	if a.live(r) {
		c.n--
	} else {
		c.n++
	}
}

// visit counts by looking at every key.
func (c *counter) visit(rev int64) int64 {
	var s Scanner
	s.Reset(c.x, Query{Lo: c.lo, Hi: c.hi, Rev: rev, Locked: c.locked})
	s.counting = true
	s.Next(chunkKeys) // there are no hits: it goes on to the end
	return s.counted
}
