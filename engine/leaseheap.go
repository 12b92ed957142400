package engine

// leaseHeap orders lease slots by the time at which they must be looked at
// next: a binary heap whose positions are noted in the slots, so that a renewal
// costs O(log n) and leaves nothing behind.
type leaseHeap struct {
	l     *lessor
	slots []uint32
	at    []int64 // nanoseconds on the lessor's clock, parallel to slots
}

// put inserts slot s or moves it to a new time.
func (h *leaseHeap) put(s uint32, at int64) {
	i := int(h.l.mu.slots[s].heapPos)
	if i < 0 {
		i = len(h.slots)
		h.slots = append(h.slots, s)
		h.at = append(h.at, at)
		h.l.mu.slots[s].heapPos = int32(i)
	} else {
		h.at[i] = at
	}
	if !h.up(i) {
		h.down(i)
	}
}

// remove takes slot s out, if it is in.
func (h *leaseHeap) remove(s uint32) {
	i := int(h.l.mu.slots[s].heapPos)
	if i < 0 {
		return
	}
	last := len(h.slots) - 1
	h.swap(i, last)
	h.slots, h.at = h.slots[:last], h.at[:last]
	h.l.mu.slots[s].heapPos = -1
	if i < last && !h.up(i) {
		h.down(i)
	}
}

func (h *leaseHeap) swap(i, j int) {
	h.slots[i], h.slots[j] = h.slots[j], h.slots[i]
	h.at[i], h.at[j] = h.at[j], h.at[i]
	h.l.mu.slots[h.slots[i]].heapPos = int32(i)
	h.l.mu.slots[h.slots[j]].heapPos = int32(j)
}

func (h *leaseHeap) up(i int) bool {
	moved := false
	for i > 0 {
		p := (i - 1) / 2
		if h.at[p] <= h.at[i] {
			break
		}
		h.swap(i, p)
		i, moved = p, true
	}
	return moved
}

func (h *leaseHeap) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h.slots) {
			return
		}
		if c+1 < len(h.slots) && h.at[c+1] < h.at[c] {
			c++
		}
		if h.at[i] <= h.at[c] {
			return
		}
		h.swap(i, c)
		i = c
	}
}
