package index

import (
	"bytes"
	"math/bits"
)

// tree is the one ordered structure: a B+tree over all keys with a retained
// version. Inner nodes count the keys and the live keys below each child, so
// the rank of a key, and with it the size of a range, costs one descent.
//
// Keys are removed when compaction takes their last version. A removal merges
// the node with a neighbour under the same parent if both fit into mergeTo
// entries; a split may leave a small node beside a small one, but any three
// neighbours hold more than mergeTo. So memory follows the number of keys.
// Freed nodes go to free lists.
type tree struct {
	a      *arena
	leaves slab[leaf]
	inners slab[inner]
	root   uint32
	height int    // 0: the root is a leaf
	shape  uint64 // changes whenever a key enters or leaves
}

func newTree(a *arena) *tree {
	t := &tree{a: a}
	t.root = t.leaves.alloc()
	return t
}

// counts are numbers of keys: all, and those whose newest version is a put.
type counts struct {
	keys, live uint32
}

func (c *counts) add(keys, live uint32) {
	c.keys += keys
	c.live += live
}

// totals counts what lies below a node.
func (t *tree) totals(node uint32, height int) (c counts) {
	if height == 0 {
		l := t.leaves.at(node)
		return counts{uint32(l.n), uint32(bits.OnesCount64(l.live))}
	}
	return t.inners.at(node).before(fan)
}

// before counts what lies below the children ahead of i.
func (x *inner) before(i int) (c counts) {
	for j := range min(i, int(x.n)) {
		c.keys += x.keys[j&(fan-1)]
		c.live += x.live[j&(fan-1)]
	}
	return c
}

// low returns the lowest key's record below a node.
func (t *tree) low(node uint32, height int) ref {
	if height == 0 {
		return t.leaves.at(node).ref[0]
	}
	return t.inners.at(node).ref[0]
}

// setLive flips whether the newest version of the key's record r is a put.
func (t *tree) setLive(r ref, live bool) {
	one := uint32(1)
	if !live {
		one = ^uint32(0)
	}
	key := t.a.key(r)
	cur := t.root
	for range t.height {
		x := t.inners.at(cur)
		i := x.childOf(t.a, key)
		x.live[i] += one
		cur = x.child[i]
	}
	l := t.leaves.at(cur)
	i, _ := l.search(t.a, key)
	l.live ^= 1 << i
}

// insert adds the key's record r, whose key is absent.
func (t *tree) insert(r ref, live bool) {
	t.shape++
	in := insertion{r: r, key: t.a.key(r), live: live}
	right := t.insertBelow(t.root, t.height, &in)
	if right == 0 {
		return
	}
	no := t.inners.alloc()
	x := t.inners.at(no)
	t.openChild(x, t.height, 0, t.root)
	t.openChild(x, t.height, 1, right)
	t.root = no
	t.height++
}

// insertion is a key on its way into the tree, or out of it.
type insertion struct {
	r      ref
	key    []byte
	live   bool
	inside bool // not at the right edge of the tree
}

// insertBelow inserts below a node. If that was full it is split, and the
// new node on its right is returned.
func (t *tree) insertBelow(node uint32, height int, in *insertion) (right uint32) {
	if height == 0 {
		return t.insertLeaf(node, in)
	}
	x := t.inners.at(node)
	i, equal := x.search(t.a, in.key)
	if !equal {
		i--
	}
	if i < 0 {
		i = 0
		x.set(t.a, 0, in.r, in.key)
	}
	if height == 1 {
		i = t.spill(x, i, in)
	}
	in.inside = in.inside || i != int(x.n)-1
	x.keys[i]++
	if in.live {
		x.live[i]++
	}
	child := x.child[i]
	split := t.insertBelow(child, height-1, in)
	if split == 0 {
		return 0
	}
	c := t.totals(child, height-1)
	x.keys[i], x.live[i] = c.keys, c.live
	if x.n == fan {
		right = t.inners.alloc()
		y := t.inners.at(right)
		y.take(t.a, x, splitAt(i+1 == fan && !in.inside))
		if i+1 > int(x.n) {
			i -= int(x.n)
			x = y
		}
	}
	t.openChild(x, height-1, i+1, split)
	return right
}

func (t *tree) insertLeaf(node uint32, in *insertion) (right uint32) {
	l := t.leaves.at(node)
	i, _ := l.search(t.a, in.key)
	if l.n == fan {
		right = t.leaves.alloc()
		y := t.leaves.at(right)
		y.next, y.prev = l.next, node
		if l.next != 0 {
			t.leaves.at(l.next).prev = right
		}
		l.next = right
		y.take(t.a, l, splitAt(i == fan))
		if i > int(l.n) {
			i -= int(l.n)
			l = y
		}
	}
	l.open(t.a, i, in.r, in.key)
	l.live = insertBit(l.live, i, in.live)
	return right
}

// splitAt says how many entries stay in a full node. If the new one goes to
// its end, keys probably come in ascending order, and it is left nearly full.
func splitAt(ascending bool) int {
	if ascending {
		return fan - 4
	}
	return fan / 2
}

// spill decides where a key goes that belongs at the end of the leaf at i of
// x, if that is full: to the start of the next leaf, provided there is room.
// Else keys that come in ascending groups, but the groups in descending
// order, would make a small leaf for each group.
func (t *tree) spill(x *inner, i int, in *insertion) int {
	l := t.leaves.at(x.child[i])
	if l.n < fan || i+1 == int(x.n) || bytes.Compare(in.key, t.a.key(l.ref[fan-1])) < 0 {
		return i
	}
	if int(t.leaves.at(x.child[i+1]).n) >= mergeTo {
		return i
	}
	x.set(t.a, i+1, in.r, in.key)
	return i + 1
}

// openChild makes node the child at i of x.
func (t *tree) openChild(x *inner, height, i int, node uint32) {
	n := int(x.n)
	copy(x.child[i+1:n+1], x.child[i:n])
	copy(x.keys[i+1:n+1], x.keys[i:n])
	copy(x.live[i+1:n+1], x.live[i:n])
	c := t.totals(node, height)
	x.child[i], x.keys[i], x.live[i] = node, c.keys, c.live
	low := t.low(node, height)
	x.open(t.a, i, low, t.a.key(low))
}

// shutChild removes the child at i of x.
func (x *inner) shutChild(i int) {
	n := int(x.n)
	copy(x.child[i:n-1], x.child[i+1:n])
	copy(x.keys[i:n-1], x.keys[i+1:n])
	copy(x.live[i:n-1], x.live[i+1:n])
	x.shut(i)
}

// take appends from's children from i on to x and removes them there.
func (x *inner) take(a *arena, from *inner, i int) {
	at, n := x.n, from.n
	copy(x.child[at:], from.child[i:n])
	copy(x.keys[at:], from.keys[i:n])
	copy(x.live[at:], from.live[i:n])
	x.entries.take(a, &from.entries, i)
}

// take appends from's keys from i on to l and removes them there.
func (l *leaf) take(a *arena, from *leaf, i int) {
	l.live |= from.live >> i << l.n
	from.live &= 1<<i - 1
	l.entries.take(a, &from.entries, i)
}

// remove takes out the key's record r, which must still be readable.
func (t *tree) remove(r ref) {
	t.shape++
	t.removeBelow(t.root, t.height, &insertion{r: r, key: t.a.key(r)})
	for t.height > 0 {
		x := t.inners.at(t.root)
		if x.n > 1 {
			return
		}
		t.inners.release(t.root)
		t.height--
		if x.n == 0 {
			t.root, t.height = t.leaves.alloc(), 0
			return
		}
		t.root = x.child[0]
	}
}

// removeBelow removes out.key and sets out.live to whether it was live.
func (t *tree) removeBelow(node uint32, height int, out *insertion) {
	if height == 0 {
		l := t.leaves.at(node)
		i, _ := l.search(t.a, out.key)
		out.live = l.live>>i&1 != 0
		l.live = removeBit(l.live, i)
		l.shut(i)
		return
	}
	x := t.inners.at(node)
	i := x.childOf(t.a, out.key)
	child := x.child[i]
	t.removeBelow(child, height-1, out)
	x.keys[i]--
	if out.live {
		x.live[i]--
	}
	if x.keys[i] == 0 {
		x.shutChild(i)
		t.releaseNode(child, height-1)
		if x.n == 0 {
			return
		}
		i = min(i, int(x.n)-1) // two children have become neighbours
	} else if x.ref[i] == out.r {
		low := t.low(child, height-1)
		x.set(t.a, i, low, t.a.key(low))
	}
	for merged := true; merged; {
		i, merged = t.mergeChild(x, height-1, i)
	}
}

// mergeChild merges the child at i of x with one beside it, if both fit into
// mergeTo, and returns the position of the result.
func (t *tree) mergeChild(x *inner, height, i int) (int, bool) {
	n := t.size(x.child[i], height)
	switch {
	case i+1 < int(x.n) && n+t.size(x.child[i+1], height) <= mergeTo:
	case i > 0 && n+t.size(x.child[i-1], height) <= mergeTo:
		i--
	default:
		return i, false
	}
	left, right := x.child[i], x.child[i+1]
	if height == 0 {
		t.leaves.at(left).take(t.a, t.leaves.at(right), 0)
	} else {
		t.inners.at(left).take(t.a, t.inners.at(right), 0)
	}
	x.keys[i] += x.keys[i+1]
	x.live[i] += x.live[i+1]
	x.shutChild(i + 1)
	t.releaseNode(right, height)
	return i, true
}

func (t *tree) size(node uint32, height int) int {
	if height == 0 {
		return int(t.leaves.at(node).n)
	}
	return int(t.inners.at(node).n)
}

// releaseNode frees an empty node; a leaf leaves the list of leaves.
func (t *tree) releaseNode(node uint32, height int) {
	if height > 0 {
		t.inners.release(node)
		return
	}
	l := t.leaves.at(node)
	if l.prev != 0 {
		t.leaves.at(l.prev).next = l.next
	}
	if l.next != 0 {
		t.leaves.at(l.next).prev = l.prev
	}
	t.leaves.release(node)
}

// spot is a position among the leaves. i may be one past a leaf's last key.
type spot struct {
	leaf uint32
	i    int
}

// seek returns the spot of the first key ≥ key and what lies before it.
func (t *tree) seek(key []byte) (spot, counts) {
	var c counts
	cur := t.root
	for range t.height {
		x := t.inners.at(cur)
		i := x.childOf(t.a, key)
		b := x.before(i)
		c.add(b.keys, b.live)
		cur = x.child[i]
	}
	l := t.leaves.at(cur)
	i, _ := l.search(t.a, key)
	c.add(uint32(i), uint32(bits.OnesCount64(l.live&(1<<i-1))))
	return spot{cur, i}, c
}

// end returns the spot behind the last key.
func (t *tree) end() spot {
	cur := t.root
	for range t.height {
		x := t.inners.at(cur)
		cur = x.child[x.n-1]
	}
	return spot{cur, int(t.leaves.at(cur).n)}
}

// span counts the keys in [lo, hi), hi nil meaning no bound.
func (t *tree) span(lo, hi []byte) counts {
	_, from := t.seek(lo)
	var to counts
	if hi == nil {
		to = t.totals(t.root, t.height)
	} else {
		_, to = t.seek(hi)
	}
	if to.keys <= from.keys {
		return counts{}
	}
	return counts{to.keys - from.keys, to.live - from.live}
}

func (t *tree) memBytes() int64 {
	const leafBytes, innerBytes = 840, 1616
	return slabNodes * (int64(len(t.leaves.blocks))*leafBytes + int64(len(t.inners.blocks))*innerBytes)
}
