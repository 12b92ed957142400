package index

// revLog lists the events at and after the compact revision in order: for each
// its main, whether it changed its key's being live, and the record of the
// version it made. Eight bytes an event; everything else of the event is in
// that record and in the one older than it. When a version is superseded it
// moves out of its key's record, and repoint makes the log follow.
//
// Positions are sequence numbers that are never reused. Chunks hold logChunk
// of them; the rare chunk that is closed early (its mains span more than 31
// bits) leaves a gap of positions without events.
//
// The log is at the same time the queue of superseded versions: the event at
// a revision is what superseded the next older version of its key.
type revLog struct {
	chunks []*logChunk
	firsts []int64 // main of each chunk's first event
	base   uint64  // position of chunks[0][0]
	head   uint64  // first event's position
	tail   uint64  // position behind the last event

	headMain    int64 // main of the last event dropped
	headDropped int   // how many events of headMain have been dropped
	lastMain    int64
	lastSub     int32
	spare       *logChunk
}

const (
	logChunkBits = 12
	logChunkLen  = 1 << logChunkBits
	logChunkMask = logChunkLen - 1
	edgeBit      = 1 << 31
	maxDelta     = edgeBit - 1
)

type logChunk struct {
	first int64
	n     int
	edges int                 // entries with edgeBit
	delta [logChunkLen]uint32 // main - first, and edgeBit
	ref   [logChunkLen]ref    // 0: the version is gone before its event
}

// entry is an event as the log knows it.
type entry struct {
	main int64
	ref  ref
	edge bool
}

func (g *revLog) chunkAt(pos uint64) (*logChunk, int) {
	return g.chunks[(pos-g.base)>>logChunkBits], int(pos & logChunkMask)
}

// at returns the event at pos, which must be in [head, tail) and no gap.
func (g *revLog) at(pos uint64) entry {
	c, i := g.chunkAt(pos)
	d := c.delta[i]
	return entry{c.first + int64(d&maxDelta), c.ref[i], d&edgeBit != 0}
}

// skipGap returns the first position ≥ pos that has an event, or tail.
func (g *revLog) skipGap(pos uint64) uint64 {
	for pos < g.tail {
		c, i := g.chunkAt(pos)
		if i < c.n {
			break
		}
		pos = (pos | logChunkMask) + 1
	}
	return pos
}

// append adds the event (main, sub), which must be later than all before it.
func (g *revLog) append(main int64, sub int32, edge bool, r ref) {
	if main < g.lastMain || main == g.lastMain && sub <= g.lastSub {
		panic("index: revisions must increase")
	}
	g.lastMain, g.lastSub = main, sub
	var c *logChunk
	if n := len(g.chunks); n > 0 {
		c = g.chunks[n-1]
	}
	if c == nil || c.n == logChunkLen || main-c.first > maxDelta {
		c = g.addChunk(main)
	}
	d := uint32(main - c.first)
	if edge {
		d |= edgeBit
		c.edges++
	}
	c.delta[c.n], c.ref[c.n] = d, r
	c.n++
	g.tail = g.base + uint64(len(g.chunks)-1)<<logChunkBits + uint64(c.n)
}

func (g *revLog) addChunk(first int64) *logChunk {
	c := g.spare
	g.spare = nil
	if c == nil {
		c = new(logChunk)
	}
	c.first, c.n, c.edges = first, 0, 0
	if len(g.chunks) == 0 {
		g.base = (g.tail + logChunkMask) &^ logChunkMask
		g.head = g.base
	}
	g.chunks = append(g.chunks, c)
	g.firsts = append(g.firsts, first)
	return c
}

// seek returns the position of the first event with main ≥ main.
func (g *revLog) seek(main int64) uint64 {
	lo, hi := 0, len(g.firsts)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if g.firsts[m] < main {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo == 0 {
		return g.head
	}
	i := g.chunks[lo-1].seek(main)
	pos := g.base + uint64(lo-1)<<logChunkBits + uint64(i)
	return g.skipGap(max(pos, g.head))
}

// seek returns the index of the first event with main ≥ main > c.first, or c.n.
func (c *logChunk) seek(main int64) int {
	if main-c.first > maxDelta {
		return c.n
	}
	d := uint32(main - c.first)
	// With one event per revision it is d itself.
	if i := int(d); i < c.n && c.delta[i]&maxDelta == d && c.delta[i-1]&maxDelta < d {
		return i
	}
	lo, hi := 0, c.n
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if c.delta[m&logChunkMask]&maxDelta < d {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// repoint makes the event (main, sub), if the log still has it, refer to
// record to instead of from.
func (g *revLog) repoint(main int64, sub int32, from, to ref) {
	pos := g.seek(main)
	guess := pos + uint64(sub)
	if main == g.headMain {
		guess -= uint64(g.headDropped)
	}
	if guess >= pos && guess < g.tail {
		if c, i := g.chunkAt(guess); i < c.n && c.ref[i] == from && c.first+int64(c.delta[i]&maxDelta) == main {
			c.ref[i] = to
			return
		}
	}
	// Only a revision whose subs have gaps gets here.
	for ; pos < g.tail; pos = g.skipGap(pos + 1) {
		c, i := g.chunkAt(pos)
		if c.first+int64(c.delta[i]&maxDelta) != main {
			return
		}
		if c.ref[i] == from {
			c.ref[i] = to
			return
		}
	}
}

// dropFirst removes the first event.
func (g *revLog) dropFirst() {
	e := g.at(g.head)
	if e.main != g.headMain {
		g.headMain, g.headDropped = e.main, 0
	}
	g.headDropped++
	if e.edge {
		g.chunks[0].edges--
	}
	g.head = g.skipGap(g.head + 1)
	for len(g.chunks) > 0 && (g.head-g.base >= logChunkLen || g.head == g.tail) {
		g.spare = g.chunks[0]
		g.chunks = append(g.chunks[:0], g.chunks[1:]...)
		g.firsts = append(g.firsts[:0], g.firsts[1:]...)
		g.base += logChunkLen
	}
}

// events returns the number of events at positions ≥ pos, and of those that
// changed their key's being live at most.
func (g *revLog) after(pos uint64) (events, edges int) {
	for i := len(g.chunks) - 1; i >= 0; i-- {
		start := g.base + uint64(i)<<logChunkBits
		c := g.chunks[i]
		edges += c.edges
		if start <= pos {
			return events + max(0, c.n-int(pos-start)), edges
		}
		events += c.n
	}
	return events, edges
}

func (g *revLog) memBytes() int64 {
	return int64(len(g.chunks)) * logChunkLen * 8
}
