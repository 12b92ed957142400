package index

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"sync"
)

// loadFill is how many entries Finish gives each node: full enough that the
// memory is used, with room for what is inserted next.
const loadFill = 56

// buildTree makes the tree of the sorted keys, level by level.
func (l *Loader) buildTree(items []sortItem) {
	t := l.x.tree
	if len(items) == 0 {
		return
	}
	t.leaves.release(t.root)
	level := make([]uint32, (len(items)+loadFill-1)/loadFill)
	for i := range level {
		level[i] = t.leaves.alloc()
	}
	l.inParallel(len(level), func(i int) {
		t.buildLeaf(level, i, part(items, len(level), i))
	})
	t.height = 0
	for len(level) > 1 {
		below := level
		level = make([]uint32, (len(below)+loadFill-1)/loadFill)
		for i := range level {
			level[i] = t.inners.alloc()
		}
		l.inParallel(len(level), func(i int) {
			t.buildInner(level[i], part(below, len(level), i))
		})
		t.height++
	}
	t.root = level[0]
}

// part returns the i-th of n parts of s, whose lengths differ by one at most.
func part[T any](s []T, n, i int) []T {
	return s[len(s)*i/n : len(s)*(i+1)/n]
}

// inParallel calls fn for 0 to n-1 on all workers.
func (l *Loader) inParallel(n int, fn func(i int)) {
	var wg sync.WaitGroup
	workers := len(l.workers)
	for w := range workers {
		wg.Go(func() {
			for i := n * w / workers; i < n*(w+1)/workers; i++ {
				fn(i)
			}
		})
	}
	wg.Wait()
}

// buildLeaf fills the i-th leaf.
func (t *tree) buildLeaf(leaves []uint32, i int, items []sortItem) {
	l := t.leaves.at(leaves[i])
	if i > 0 {
		l.prev = leaves[i-1]
	}
	if i+1 < len(leaves) {
		l.next = leaves[i+1]
	}
	l.n = uint16(len(items))
	for j, it := range items {
		l.ref[j] = it.r
		if t.a.live(it.r) {
			l.live |= 1 << j
		}
	}
	l.rehint(t.a)
}

// buildInner fills an inner node one above the current height.
func (t *tree) buildInner(no uint32, children []uint32) {
	x := t.inners.at(no)
	x.n = uint16(len(children))
	for j, child := range children {
		c := t.totals(child, t.height)
		x.child[j], x.keys[j], x.live[j] = child, c.keys, c.live
		x.ref[j] = t.low(child, t.height)
	}
	x.rehint(t.a)
}

// buildLog makes the revision log of the versions at and after the compact
// revision. newest is the latest version that was added, retained or not.
func (l *Loader) buildLog(newest event) error {
	refs := l.inOrder(newest.main)
	x := l.x
	a, g := x.a, &x.log
	for i, r := range refs {
		if i > 0 && a.event(refs[i-1]) == a.event(r) {
			return fmt.Errorf("%w: two keys at %+v", ErrConflict, a.event(r))
		}
		older := a.older(r)
		wasLive := older != 0 && a.live(older)
		g.append(a.main(r), a.sub(r), wasLive != a.live(r), r)
	}
	g.lastMain, g.lastSub = newest.main, newest.sub
	return nil
}

// inOrder returns the records of the versions from the compact revision to
// last, in order.
func (l *Loader) inOrder(last int64) []ref {
	x := l.x
	first := max(x.compact, 1)
	versions := newGatherer[packed](int(x.versions), len(l.workers))
	wide := last-first > half
	add := func(worker int, r ref) {
		if main := x.a.main(r); main >= first {
			d := uint64(main - first)
			if wide {
				d = 0
			}
			versions.add(worker, packed(d<<32|uint64(r)))
		}
	}
	l.eachChunk(keyKind, add)
	l.eachChunk(versionKind, add)
	all := versions.all()
	if !wide {
		all = radixSort(all, bits.Len64(uint64(max(last-first, 0))))
	}
	refs := make([]ref, len(all))
	for i, p := range all {
		refs[i] = ref(p)
	}
	compare := func(r, s ref) int { return x.a.event(r).compare(x.a.event(s)) }
	if wide {
		slices.SortFunc(refs, compare)
		return refs
	}
	// Within a revision the order is still that of the arena.
	for from := 0; from < len(all); {
		to := from + 1
		for to < len(all) && all[to]>>32 == all[from]>>32 {
			to++
		}
		if to > from+1 {
			slices.SortFunc(refs[from:to], compare)
		}
		from = to
	}
	return refs
}

// packed is a main, as the distance from a first one, and a record's ref.
type packed uint64

// radixSort sorts by the lower mainBits of the main; equal mains stay in
// order. It returns all or another slice.
func radixSort(all []packed, mainBits int) []packed {
	byMain := func(p, q packed) int { return cmp.Compare(p>>32, q>>32) }
	if slices.IsSortedFunc(all, byMain) {
		return all
	}
	const digitBits = 11
	other := make([]packed, len(all))
	for shift := 32; shift < 32+mainBits; shift += digitBits {
		var next [1 << digitBits]int
		for _, p := range all {
			next[p>>shift&(1<<digitBits-1)]++
		}
		sum := 0
		for d, n := range next {
			next[d] = sum
			sum += n
		}
		for _, p := range all {
			d := p >> shift & (1<<digitBits - 1)
			other[next[d]] = p
			next[d]++
		}
		all, other = other, all
	}
	return all
}
