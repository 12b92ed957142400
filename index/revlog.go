package index

import "slices"

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
	chunks []*[logChunkLen]slot
	spans  []span // what is in each chunk
	base   uint64 // position of chunks[0][0]
	head   uint64 // first event's position
	tail   uint64 // position behind the last event

	headMain    int64 // main of the last event dropped
	headDropped int   // how many events of headMain have been dropped
	lastMain    int64
	lastSub     int32
	spare       *[logChunkLen]slot
}

const (
	logChunkBits = 12
	logChunkLen  = 1 << logChunkBits // 32 KiB of slots
	logChunkMask = logChunkLen - 1
	edgeBit      = 1 << 31
	maxDelta     = edgeBit - 1
)

// slot is an event in its chunk.
type slot struct {
	delta uint32 // main - the chunk's first main, and edgeBit
	ref   ref
}

func (s slot) past() uint32 { return s.delta & maxDelta }

// span describes the slots of a chunk.
type span struct {
	first int64 // main of the first event
	n     int32 // slots in use, dropped ones included
	edges int32 // events in [head, tail) with edgeBit
}

// entry is an event as the log knows it.
type entry struct {
	main int64
	ref  ref
	edge bool
}

// chunkNo returns the chunk that holds pos, and where in it.
func (g *revLog) chunkNo(pos uint64) (int, int) {
	return int((pos - g.base) >> logChunkBits), int(pos & logChunkMask)
}

// at returns the event at pos, which must be in [head, tail) and no gap.
func (g *revLog) at(pos uint64) entry {
	no, i := g.chunkNo(pos)
	s := g.chunks[no][i]
	return entry{g.spans[no].first + int64(s.past()), s.ref, s.delta&edgeBit != 0}
}

// skipGap returns the first position ≥ pos that has an event, or tail.
func (g *revLog) skipGap(pos uint64) uint64 {
	for pos < g.tail {
		no, i := g.chunkNo(pos)
		if i < int(g.spans[no].n) {
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
	no := len(g.chunks) - 1
	if no < 0 || g.spans[no].n == logChunkLen || main-g.spans[no].first > maxDelta {
		no = g.addChunk(main)
	}
	sp := &g.spans[no]
	d := uint32(main - sp.first)
	if edge {
		d |= edgeBit
		sp.edges++
	}
	g.chunks[no][sp.n] = slot{d, r}
	sp.n++
	g.tail = g.base + uint64(no)<<logChunkBits + uint64(sp.n)
}

// addChunk starts a chunk with an event of main first to come.
func (g *revLog) addChunk(first int64) int {
	c := g.spare
	g.spare = nil
	if c == nil {
		c = new([logChunkLen]slot)
	}
	if len(g.chunks) == 0 {
		g.base = (g.tail + logChunkMask) &^ logChunkMask
		g.head = g.base
	}
	g.chunks = append(g.chunks, c)
	g.spans = append(g.spans, span{first: first})
	return len(g.chunks) - 1
}

// seek returns the position of the first event with main ≥ main.
func (g *revLog) seek(main int64) uint64 {
	lo, hi := 0, len(g.spans)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if g.spans[m].first < main {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo == 0 {
		return g.head
	}
	i := g.seekChunk(lo-1, main)
	pos := g.base + uint64(lo-1)<<logChunkBits + uint64(i)
	return g.skipGap(max(pos, g.head))
}

// seekChunk returns the index of the first event with main ≥ main in a chunk
// whose first main is lower, or the number of its slots.
func (g *revLog) seekChunk(no int, main int64) int {
	c, sp := g.chunks[no], &g.spans[no]
	n := int(sp.n)
	if main-sp.first > maxDelta {
		return n
	}
	d := uint32(main - sp.first)
	// With one event per revision it is d itself.
	if i := int(d); i < n && c[i].past() == d && c[i-1].past() < d {
		return i
	}
	lo, hi := 0, n
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if c[m&logChunkMask].past() < d {
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
	if guess >= pos && guess < g.tail && g.repointAt(guess, main, from, to) {
		return
	}
	// Only a revision whose subs have gaps gets here.
	for ; pos < g.tail; pos = g.skipGap(pos + 1) {
		if g.at(pos).main != main || g.repointAt(pos, main, from, to) {
			return
		}
	}
}

// repointAt does it if the event at pos is the one.
func (g *revLog) repointAt(pos uint64, main int64, from, to ref) bool {
	no, i := g.chunkNo(pos)
	s := &g.chunks[no][i]
	if i >= int(g.spans[no].n) || s.ref != from || g.spans[no].first+int64(s.past()) != main {
		return false
	}
	s.ref = to
	return true
}

// dropFirst removes the first event.
func (g *revLog) dropFirst() {
	e := g.at(g.head)
	if e.main != g.headMain {
		g.headMain, g.headDropped = e.main, 0
	}
	g.headDropped++
	if e.edge {
		g.spans[0].edges--
	}
	g.head = g.skipGap(g.head + 1)
	for len(g.chunks) > 0 && (g.head-g.base >= logChunkLen || g.head == g.tail) {
		g.spare = g.chunks[0]
		g.chunks = slices.Delete(g.chunks, 0, 1)
		g.spans = slices.Delete(g.spans, 0, 1)
		g.base += logChunkLen
	}
}

// after returns the number of events at positions ≥ pos and about how many of
// them changed their key's being live.
func (g *revLog) after(pos uint64) (events, edges int) {
	for no := len(g.chunks) - 1; no >= 0; no-- {
		start, sp := g.base+uint64(no)<<logChunkBits, &g.spans[no]
		if start < pos {
			n := max(0, int(sp.n)-int(pos-start))
			return events + n, edges + int(sp.edges)*n/int(sp.n)
		}
		events += int(sp.n)
		edges += int(sp.edges)
	}
	return events, edges
}

func (g *revLog) memBytes() int64 {
	return int64(len(g.chunks)) * logChunkLen * 8
}
