package index

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

const (
	fan       = 64 // entries of a node: one word of liveness bits
	maxPrefix = 1<<16 - 1
	inlinePre = 48 // bytes of the common prefix kept in a node
	// Neighbours that fit into this many entries are merged: what is left
	// free lets the node grow again without a split.
	mergeTo = fan * 3 / 4
)

// entries are what leaves and inner nodes have in common: sorted keys, each
// by its record and by a hint, the eight bytes that follow the prefix which
// all keys of the node share. A search compares hints and looks at records
// only where hints are equal, and at the first one for the rest of a prefix
// that is longer than inlinePre. The prefix may be shorter than the longest
// common one: removals do not lengthen it.
type entries struct {
	hint        [fan]uint64
	ref         [fan]ref
	n           uint16
	prefixBytes uint16
	pre         [inlinePre]byte
}

// leaf holds keys' records. Bit i of live says that key i's newest version is
// a put.
type leaf struct {
	entries
	live       uint64
	next, prev uint32
}

// inner holds the lowest key of each child, exactly, and how many keys, and
// how many live ones, lie below it.
type inner struct {
	entries
	child [fan]uint32
	keys  [fan]uint32
	live  [fan]uint32
}

// hintOf returns the eight bytes of key behind a prefix, zeroes beyond its end.
func hintOf(key []byte, prefixBytes int) uint64 {
	if len(key)-prefixBytes >= 8 {
		return binary.BigEndian.Uint64(key[prefixBytes:])
	}
	var b [8]byte
	if len(key) > prefixBytes {
		copy(b[:], key[prefixBytes:])
	}
	return binary.BigEndian.Uint64(b[:])
}

// commonPrefix returns the number of leading bytes that a and b share.
func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for i+8 <= n {
		x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:])
		if x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
		i += 8
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// comparePrefix compares as much of key as the common prefix has with it.
func (e *entries) comparePrefix(a *arena, key []byte) int {
	prefix := int(e.prefixBytes)
	inline := min(prefix, inlinePre)
	c := bytes.Compare(key[:min(inline, len(key))], e.pre[:inline])
	if c != 0 || prefix == inline {
		return c
	}
	return bytes.Compare(key[inline:min(prefix, len(key))], a.key(e.ref[0])[inline:prefix])
}

// search returns the first position whose key is ≥ key, and whether it is equal.
func (e *entries) search(a *arena, key []byte) (int, bool) {
	n, prefix := int(e.n), int(e.prefixBytes)
	if prefix > 0 {
		if c := e.comparePrefix(a, key); c != 0 {
			if c < 0 {
				return 0, false
			}
			return n, false
		}
	}
	h := hintOf(key, prefix)
	lo, hi := 0, n
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if e.hint[m&(fan-1)] < h {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo == n || e.hint[lo&(fan-1)] != h {
		return lo, false
	}
	hi = lo + 1
	for hi < n && e.hint[hi] == h {
		hi++
	}
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		c := bytes.Compare(a.key(e.ref[m]), key)
		if c == 0 {
			return m, true
		}
		if c < 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, false
}

// childOf returns the position of the child that key belongs below: the last
// whose lowest key is ≤ key, or the first.
func (e *entries) childOf(a *arena, key []byte) int {
	i, equal := e.search(a, key)
	if !equal && i > 0 {
		i--
	}
	return i
}

// rehint computes the prefix and every hint anew.
func (e *entries) rehint(a *arena) {
	n := int(e.n)
	if n == 0 {
		e.prefixBytes = 0
		return
	}
	first, last := a.key(e.ref[0]), a.key(e.ref[n-1])
	prefix := min(commonPrefix(first, last), maxPrefix)
	e.prefixBytes = uint16(prefix)
	copy(e.pre[:], first[:prefix])
	for i := range n {
		e.hint[i] = hintOf(a.key(e.ref[i]), prefix)
	}
}

// open makes room for an entry at i and puts r, whose key is key, there.
func (e *entries) open(a *arena, i int, r ref, key []byte) {
	n := int(e.n)
	fits := n > 0 && e.comparePrefix(a, key) == 0
	copy(e.ref[i+1:n+1], e.ref[i:n])
	copy(e.hint[i+1:n+1], e.hint[i:n])
	e.n++
	e.put(a, i, r, key, fits)
}

// set makes r, whose key is key, the entry at i.
func (e *entries) set(a *arena, i int, r ref, key []byte) {
	e.put(a, i, r, key, e.comparePrefix(a, key) == 0)
}

// put writes the entry at i; fits says whether key has the common prefix.
func (e *entries) put(a *arena, i int, r ref, key []byte, fits bool) {
	e.ref[i] = r
	if !fits {
		e.rehint(a)
		return
	}
	e.hint[i] = hintOf(key, int(e.prefixBytes))
}

// shut removes the entry at i.
func (e *entries) shut(i int) {
	n := int(e.n)
	copy(e.ref[i:n-1], e.ref[i+1:n])
	copy(e.hint[i:n-1], e.hint[i+1:n])
	e.n--
}

// take appends from's entries from i on to e and removes them there.
func (e *entries) take(a *arena, from *entries, i int) {
	e.n += uint16(copy(e.ref[e.n:], from.ref[i:from.n]))
	from.n = uint16(i)
	e.rehint(a)
	from.rehint(a)
}

// insertBit opens bit i of word and sets it to b; removeBit closes it.
func insertBit(word uint64, i int, b bool) uint64 {
	low := word & (1<<i - 1)
	word = low | (word&^low)<<1
	if b {
		word |= 1 << i
	}
	return word
}

func removeBit(word uint64, i int) uint64 {
	low := word & (1<<i - 1)
	return low | word>>1&^(1<<i-1)
}
