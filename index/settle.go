package index

import (
	"slices"
	"sync"
	"sync/atomic"
)

// settle is the part of Finish that deals with chains. It returns the keys
// that remain, to be sorted.
//
// The arena is walked chunk by chunk, which reads memory in order; only the
// chains that need work are followed. Those are the keys with a version in a
// record of its own at or before the compact revision, the keys whose
// versions came out of order, and tombstones.
func (l *Loader) settle() ([]sortItem, error) {
	a := l.x.a
	if l.x.compact > 0 {
		l.eachChunk(versionKind, func(_ int, r ref) {
			if a.main(r) <= l.x.compact {
				atomic.OrUint64(a.word(a.keyRecord(r), 0), flagRework<<flagShift)
			}
		})
	}
	keys := 0
	for i := range l.x.table.shards {
		keys += l.x.table.shards[i].used
	}
	items := newGatherer[sortItem](keys, len(l.workers))
	rework := make([][]ref, len(l.workers))
	l.eachChunk(keyKind, func(worker int, r ref) {
		flags := a.flags(r)
		if flags&flagRework != 0 || flags&flagTombstone != 0 && a.main(r) < l.x.compact {
			rework[worker] = append(rework[worker], r)
			return
		}
		items.add(worker, sortItem{hintOf(a.key(r), 0), r})
	})
	c := chainBuilder{x: l.x, w: &l.workers[0]}
	for _, r := range slices.Concat(rework...) {
		kept, err := c.rebuild(r)
		if err != nil {
			return nil, err
		}
		if kept {
			items.add(0, sortItem{hintOf(a.key(r), 0), r})
		}
	}
	return items.all(), nil
}

// gatherer collects from several workers into one slice that is allocated
// once, in no particular order.
type gatherer[T any] struct {
	mu      sync.Mutex
	sum     []T
	buffers [][]T // one per worker
}

const gatherBuffer = 1024

// newGatherer makes one for at most n elements.
func newGatherer[T any](n, workers int) *gatherer[T] {
	g := &gatherer[T]{sum: make([]T, 0, n), buffers: make([][]T, workers)}
	for i := range g.buffers {
		g.buffers[i] = make([]T, 0, gatherBuffer)
	}
	return g
}

func (g *gatherer[T]) add(worker int, v T) {
	b := append(g.buffers[worker], v)
	if len(b) == gatherBuffer {
		b = g.flush(b)
	}
	g.buffers[worker] = b
}

func (g *gatherer[T]) flush(b []T) []T {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sum = append(g.sum, b...)
	return b[:0]
}

// all returns what was added, once all workers are done.
func (g *gatherer[T]) all() []T {
	for _, b := range g.buffers {
		g.flush(b)
	}
	return g.sum
}

// eachChunk calls fn, on all workers, for every record of a kind.
func (l *Loader) eachChunk(kind recordKind, fn func(worker int, r ref)) {
	a := l.x.a
	var next atomic.Uint32
	var wg sync.WaitGroup
	for worker := range l.workers {
		wg.Go(func() {
			for no := next.Add(1); no < a.numbers; no = next.Add(1) {
				if a.info[no].kind == kind {
					a.eachRecord(no, func(r ref) { fn(worker, r) })
				}
			}
		})
	}
	wg.Wait()
}

// eachRecord calls fn for every record that starts in a chunk. fn must not
// allocate or free records of its kind.
func (a *arena) eachRecord(no uint32, fn func(r ref)) {
	in := &a.info[no]
	start := ref(no << chunkUnitBits)
	switch in.state {
	case chunkJumbo:
		fn(start)
	case chunkSmall:
		for off := ref(0); off < ref(in.end); {
			if a.flags(start+off)&freeMark == freeMark {
				off += ref(*a.word(start+off, 0) & half)
				continue
			}
			_, size := classOf(a.units(start + off))
			fn(start + off)
			off += ref(size)
		}
	}
}

// chainBuilder rebuilds chains that are out of order or too long.
type chainBuilder struct {
	x     *Index
	w     *loadWorker // gets what is dropped
	chain []ref
}

// rebuild puts the chain of the key's record r in order, without duplicates
// and without what compaction removes, and says whether the key remains.
func (c *chainBuilder) rebuild(r ref) (kept bool, err error) {
	a := c.x.a
	*a.word(r, 0) &^= flagRework << flagShift
	c.chain = c.chain[:0]
	for v := a.older(r); v != 0; v = a.older(v) {
		c.chain = append(c.chain, v)
	}
	slices.SortFunc(c.chain, func(v, u ref) int { return a.event(u).compare(a.event(v)) })
	a.setOlder(r, 0)
	if err := c.unite(r); err != nil {
		return false, err
	}
	n := c.retained(r)
	for _, v := range c.chain[n:] {
		c.drop(v)
	}
	if !a.live(r) && a.main(r) < c.x.compact {
		c.x.table.remove(c.x.table.hash(a.key(r)), r)
		c.drop(r)
		return false, nil
	}
	c.relink(r, c.chain[:n])
	return true, nil
}

// unite drops duplicates. The key's record itself has none: they are found
// when they are added.
func (c *chainBuilder) unite(r ref) error {
	a := c.x.a
	kept := c.chain[:0]
	for _, v := range c.chain {
		n := len(kept)
		if n == 0 || a.event(kept[n-1]) != a.event(v) {
			kept = append(kept, v)
			continue
		}
		version := a.version(v)
		loc, err := a.twin(kept[n-1], &version)
		if err != nil {
			return err
		}
		a.setLoc(v, loc)
		c.drop(v)
	}
	c.chain = kept
	return nil
}

// retained returns how many versions of the chain compaction leaves behind r.
func (c *chainBuilder) retained(r ref) int {
	a, compact := c.x.a, c.x.compact
	newer := r
	for i, v := range c.chain {
		if a.main(v) < compact && (a.main(newer) <= compact || !a.live(v)) {
			return i
		}
		newer = v
	}
	return len(c.chain)
}

// relink strings the versions, newest first, together below the key's record.
func (c *chainBuilder) relink(r ref, chain []ref) {
	a := c.x.a
	older := ref(0)
	for _, v := range slices.Backward(chain) {
		if units := a.linkUnits(older); units != a.units(v) {
			n := a.alloc(versionKind, units)
			a.link(n, v, r, older, c.x.compact)
			a.release(versionKind, v, a.units(v))
			v = n
		} else {
			a.link(v, v, r, older, c.x.compact)
		}
		older = v
	}
	a.setOlder(r, older)
}

func (c *chainBuilder) drop(r ref) {
	c.x.versions--
	if v := c.x.a.drop(r); v.Loc != 0 {
		c.w.dropped = append(c.w.dropped, v)
	}
}
