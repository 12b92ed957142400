package watchfanout

// hit says that event (a position in the source events) matches the group at
// position group of collector.touched.
type hit struct{ group, event uint32 }

// collector turns events into one segment per matching group. It is scratch
// space, owned by whoever owns the matcher at the time, and keeps nothing
// between uses but capacity.
type collector struct {
	touched []*group
	hits    []hit
	found   []*group
	place   []uint32 // source event -> 1 + position in the batch
	source  []uint32 // position in the batch -> source event
	counts  []uint32
	lone    *lone // of the batch in the making
}

// lone is all that one event for one group needs, in one allocation: the usual
// batch by far.
type lone struct {
	batch  batch
	events [1]encoded
	segs   [1]segment
	idx    [1]uint32
	header [headerFieldBytes]byte
}

// headerFieldBytes is what a header with real ids takes, and some.
const headerFieldBytes = 48

// add matches the key of the event at position event of the source.
func (k *collector) add(m *matcher, key []byte, event int) {
	k.found = m.match(k.found[:0], key)
	for _, g := range k.found {
		if g.touched == 0 {
			k.touched = append(k.touched, g)
			g.touched = uint32(len(k.touched))
		}
		k.hits = append(k.hits, hit{g.touched - 1, uint32(event)})
	}
}

// compact makes the batch of those source events that matched anything.
func (k *collector) compact(evs []Event) *batch {
	k.place = zeroed(k.place, len(evs))
	k.source = k.source[:0]
	for i, h := range k.hits {
		if k.place[h.event] == 0 {
			k.source = append(k.source, h.event)
			k.place[h.event] = uint32(len(k.source))
		}
		k.hits[i].event = k.place[h.event] - 1
	}
	var b *batch
	if len(k.hits) == 1 {
		k.lone = new(lone)
		b = &k.lone.batch
		b.events = k.lone.events[:]
	} else {
		b = &batch{events: make([]encoded, len(k.source))}
	}
	for i, src := range k.source {
		b.events[i] = encodedOf(&evs[src])
	}
	return b
}

// encodedOf is a batch's record of an event before its forms are encoded.
func encodedOf(ev *Event) encoded {
	return encoded{rev: ev.Main, del: ev.Delete, lost: ev.Prev == nil && !ev.Created}
}

// segments returns one segment for each of k.touched, the events in order.
func (k *collector) segments(b *batch) []segment {
	var segs []segment
	var all []uint32
	if k.lone != nil {
		segs, all = k.lone.segs[:], k.lone.idx[:]
	} else {
		segs, all = make([]segment, len(k.touched)), make([]uint32, len(k.hits))
	}
	k.counts = zeroed(k.counts, len(k.touched))
	for _, h := range k.hits {
		k.counts[h.group]++
	}
	at := uint32(0)
	for i := range segs {
		n := k.counts[i]
		segs[i].batch, segs[i].idx = b, all[at:at:at+n]
		at += n
	}
	for _, h := range k.hits {
		g := &segs[h.group]
		g.idx = append(g.idx, h.event)
		e := &b.events[h.event]
		if e.del {
			g.dels++
		} else {
			g.puts++
		}
		g.lost = g.lost || e.lost
	}
	for i := range segs {
		g := &segs[i]
		g.first, g.last = g.event(0).rev, g.event(len(g.idx)-1).rev
	}
	return segs
}

// headerSpace is where to put the header of a segment.
func (k *collector) headerSpace() []byte {
	if k.lone != nil {
		return k.lone.header[:0]
	}
	return make([]byte, 0, headerFieldBytes)
}

// reset lets go of the groups.
func (k *collector) reset() {
	k.lone = nil
	for i, g := range k.touched {
		g.touched = 0
		k.touched[i] = nil
	}
	clear(k.found[:cap(k.found)])
	k.touched, k.hits, k.found = k.touched[:0], k.hits[:0], k.found[:0]
}

// zeroed returns n zeroes in s's space if it has it.
func zeroed(s []uint32, n int) []uint32 {
	if cap(s) < n {
		return make([]uint32, n, n+n/2)
	}
	s = s[:n]
	clear(s)
	return s
}
