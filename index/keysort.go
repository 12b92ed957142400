package index

import (
	"bytes"
	"math/bits"
	"sync"
)

// sortItem is a key to be sorted: eight of its bytes, from a depth that the
// sorter knows, and its record.
type sortItem struct {
	cache uint64
	r     ref
}

// sortKeys sorts items, which cache the keys' first bytes, by key.
//
// It is a radix sort, most significant bits first and in place, over the
// cached bytes: each pass takes the eight bits from the highest one that
// differs within the group. When all cached bytes are equal the next eight are
// fetched. So a key's record is visited once per eight bytes that it shares
// with others, in nearly the order in which it lies in memory; a comparison
// sort would visit it twenty times, in random order.
func sortKeys(a *arena, items []sortItem, workers int) {
	s := keySorter{a: a, spare: make(chan struct{}, max(workers-1, 0))}
	s.sort(items, 0)
	s.wg.Wait()
}

type keySorter struct {
	a     *arena
	spare chan struct{} // goroutines that may be started: full when they all run
	wg    sync.WaitGroup
}

const (
	insertionSorted = 24      // groups up to this size are sorted by insertion
	forkItems       = 1 << 15 // groups from this size on may be sorted by another goroutine
)

// sort sorts items whose keys agree before depth and cache what follows it.
func (s *keySorter) sort(items []sortItem, depth int) {
	for len(items) > insertionSorted {
		diff := uint64(0)
		for i := range items {
			diff |= items[i].cache ^ items[0].cache
		}
		if diff != 0 {
			s.radix(items, depth, max(bits.Len64(diff)-8, 0))
			return
		}
		depth += 8
		items = s.deeper(items, depth)
	}
	s.insertion(items, depth)
}

// deeper sorts out the keys that end before depth, up to which all keys are
// equal but for zeroes at their ends, and caches what follows for the rest,
// which it returns.
func (s *keySorter) deeper(items []sortItem, depth int) []sortItem {
	ended := 0
	for i := range items {
		key := s.a.key(items[i].r)
		if len(key) > depth {
			items[i].cache = hintOf(key, depth)
			continue
		}
		items[i].cache = uint64(len(key))
		items[i], items[ended] = items[ended], items[i]
		for j := ended; j > 0 && items[j-1].cache > items[j].cache; j-- {
			items[j-1], items[j] = items[j], items[j-1]
		}
		ended++
	}
	return items[ended:]
}

// radix distributes items by the byte of their cache at shift, and sorts the
// groups.
func (s *keySorter) radix(items []sortItem, depth, shift int) {
	var end [256]int
	for i := range items {
		end[uint8(items[i].cache>>shift)]++
	}
	var next [256]int
	sum := 0
	for b, n := range end {
		next[b] = sum
		sum += n
		end[b] = sum
	}
	for b := range next {
		for next[b] < end[b] {
			it := items[next[b]]
			for to := uint8(it.cache >> shift); to != uint8(b); to = uint8(it.cache >> shift) {
				it, items[next[to]] = items[next[to]], it
				next[to]++
			}
			items[next[b]] = it
			next[b]++
		}
	}
	start := 0
	for _, e := range end {
		if e > start+1 {
			s.fork(items[start:e], depth)
		}
		start = e
	}
}

// fork sorts items here or, if they are many, on another goroutine.
func (s *keySorter) fork(items []sortItem, depth int) {
	if len(items) >= forkItems {
		select {
		case s.spare <- struct{}{}:
			s.wg.Go(func() {
				s.sort(items, depth)
				<-s.spare
			})
			return
		default:
		}
	}
	s.sort(items, depth)
}

func (s *keySorter) insertion(items []sortItem, depth int) {
	for i := 1; i < len(items); i++ {
		it := items[i]
		j := i
		for j > 0 && s.less(it, items[j-1], depth) {
			items[j] = items[j-1]
			j--
		}
		items[j] = it
	}
}

func (s *keySorter) less(x, y sortItem, depth int) bool {
	if x.cache != y.cache {
		return x.cache < y.cache
	}
	return bytes.Compare(s.a.key(x.r)[depth:], s.a.key(y.r)[depth:]) < 0
}
