package raft

// gate is the fair-share rule of log writes. A write costs about the same
// whatever its size, so with writes in flight another one is worth it only if
// it carries its share of the operations: with p waiting and f in flight,
// p·depth ≥ p+f. At depth 3 and 100 writers that measured 16–32 % faster than
// one write at a time; deeper or ungated pipelines were slower than either,
// because they shred the operations into small writes.
//
// The gate is here and not in the log because it decides when the open batch
// is closed and becomes a raft entry: one entry per write, not per operation.
type gate struct {
	depth    int
	inflight fifo[write] // submitted, in order of position
	ops      int         // in inflight
	bytes    int         // in inflight

	dirty     bool // something was appended and not submitted
	openOps   int  // operations in it
	openBytes int
}

type write struct {
	pos   Pos
	ops   int
	bytes int
	tick  uint64 // of the submission
}

// maxBacklog bounds the bytes that peers may add to a log which is not written.
// The log has buffers for 16 MiB, of which records that do not fit together waste
// half in the worst case, and the leader's own batches take up to 3 MiB. An append
// beyond them would wait for the disk with the core's lock, and heartbeats and the
// clock would stand still with it.
const maxBacklog = 4 << 20

// takes reports whether n more bytes find room in the log's buffers. What is
// alone may be of any size.
func (g *gate) takes(n int) bool {
	have := g.bytes + g.openBytes
	return have == 0 || have+n <= maxBacklog
}

// permits: should the operations that wait be proposed now?
func (g *gate) permits(waiting int) bool {
	n := g.inflight.len()
	return n == 0 || (n < g.depth && waiting*g.depth >= waiting+g.ops)
}

func (g *gate) maySubmit() bool { return g.dirty && g.inflight.len() < g.depth }

// submit notes that everything up to pos is being written.
func (g *gate) submit(pos Pos, tick uint64) (ops int) {
	ops = g.openOps
	g.inflight.push(write{pos, ops, g.openBytes, tick})
	g.ops += ops
	g.bytes += g.openBytes
	g.dirty, g.openOps, g.openBytes = false, 0, 0
	return ops
}

// durable notes that the log is durable up to pos.
func (g *gate) durable(pos Pos) {
	for g.inflight.len() > 0 && g.inflight.front().pos <= pos {
		w := g.inflight.pop()
		g.ops -= w.ops
		g.bytes -= w.bytes
	}
}

// waited returns for how many ticks the oldest write has been in flight.
func (g *gate) waited(now uint64) uint64 {
	if g.inflight.len() == 0 {
		return 0
	}
	return now - g.inflight.front().tick
}
