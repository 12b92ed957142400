package watchfanout

import (
	"cmp"
	"hash/maphash"
	"strings"
)

// interval is [lo, hi), or everything from lo on when unbounded. prefix keeps
// a prefix group apart from a range group that covers the same keys.
type interval struct {
	lo, hi    string
	unbounded bool
	prefix    bool
}

func intervalOf(k kind, key, end string) interval {
	if k == kindFrom {
		return interval{lo: key, unbounded: true}
	}
	return interval{lo: key, hi: end}
}

// prefixEnd is the first key after all keys with the prefix, if there is one.
func prefixEnd(prefix []byte) (end string, unbounded bool) {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return string(prefix[:i]) + string([]byte{prefix[i] + 1}), false
		}
	}
	return "", true
}

func (a interval) compare(b interval) int {
	if c := strings.Compare(a.lo, b.lo); c != 0 {
		return c
	}
	if c := strings.Compare(a.hi, b.hi); c != 0 {
		return c
	}
	return cmp.Compare(a.flags(), b.flags())
}

func (a interval) flags() int {
	n := 0
	if a.unbounded {
		n |= 1
	}
	if a.prefix {
		n |= 2
	}
	return n
}

// intervals is a treap ordered by lower bound in which each node knows the
// largest upper bound below it, so that a stab visits no subtree that ends
// before the key. Priorities are hashes under a random seed: no client can
// choose ranges that make it deep.
type intervals struct {
	root *intervalNode
}

type intervalNode struct {
	interval
	group       *group
	priority    uint64
	maxHi       string
	maxInf      bool
	left, right *intervalNode
}

var intervalSeed = maphash.MakeSeed()

func (t *intervals) find(iv interval) *group {
	n := t.root
	for n != nil {
		c := iv.compare(n.interval)
		if c == 0 {
			return n.group
		}
		if c < 0 {
			n = n.left
		} else {
			n = n.right
		}
	}
	return nil
}

func (t *intervals) insert(iv interval, g *group) {
	n := &intervalNode{interval: iv, group: g, priority: maphash.Comparable(intervalSeed, iv)}
	t.root = t.root.insert(n)
}

func (t *intervals) remove(iv interval) { t.root = t.root.remove(iv) }

// stab appends the groups of all intervals that contain key.
func (t *intervals) stab(dst []*group, key []byte) []*group {
	if t.root == nil {
		return dst
	}
	return t.root.stab(dst, key)
}

func (n *intervalNode) insert(x *intervalNode) *intervalNode {
	if n == nil {
		x.update()
		return x
	}
	if x.compare(n.interval) < 0 {
		n.left = n.left.insert(x)
		if n.left.priority > n.priority {
			return n.rotateRight()
		}
	} else {
		n.right = n.right.insert(x)
		if n.right.priority > n.priority {
			return n.rotateLeft()
		}
	}
	n.update()
	return n
}

func (n *intervalNode) remove(iv interval) *intervalNode {
	if n == nil {
		return nil
	}
	switch c := iv.compare(n.interval); {
	case c < 0:
		n.left = n.left.remove(iv)
	case c > 0:
		n.right = n.right.remove(iv)
	default:
		return joinIntervals(n.left, n.right)
	}
	n.update()
	return n
}

// joinIntervals makes one treap of two, all of a being below all of b.
func joinIntervals(a, b *intervalNode) *intervalNode {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		a.right = joinIntervals(a.right, b)
		a.update()
		return a
	}
	b.left = joinIntervals(a, b.left)
	b.update()
	return b
}

func (n *intervalNode) rotateRight() *intervalNode {
	l := n.left
	n.left, l.right = l.right, n
	n.update()
	l.update()
	return l
}

func (n *intervalNode) rotateLeft() *intervalNode {
	r := n.right
	n.right, r.left = r.left, n
	n.update()
	r.update()
	return r
}

func (n *intervalNode) update() {
	n.maxHi, n.maxInf = n.hi, n.unbounded
	for _, c := range [2]*intervalNode{n.left, n.right} {
		if c != nil {
			n.maxInf = n.maxInf || c.maxInf
			n.maxHi = max(n.maxHi, c.maxHi)
		}
	}
}

func (n *intervalNode) stab(dst []*group, key []byte) []*group {
	if !n.maxInf && n.maxHi <= string(key) {
		return dst
	}
	if n.left != nil {
		dst = n.left.stab(dst, key)
	}
	if n.lo > string(key) {
		return dst
	}
	if n.unbounded || n.hi > string(key) {
		dst = append(dst, n.group)
	}
	if n.right != nil {
		dst = n.right.stab(dst, key)
	}
	return dst
}

func (n *intervalNode) appendGroups(dst []*group) []*group {
	if n == nil {
		return dst
	}
	dst = append(n.left.appendGroups(dst), n.group)
	return n.right.appendGroups(dst)
}
