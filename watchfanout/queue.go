package watchfanout

import "sync"

// What one queued thing counts against the budgets besides the event bytes it
// refers to: its own size with the slack of a growing slice.
const (
	itemBytes    = 64
	controlBytes = 128
)

// keepQueueItems is the capacity an empty queue keeps.
const keepQueueItems = 64

// item is one segment for one cursor, or, with c nil, stands for the next of
// queue.controls. Events below from are not for this cursor.
type item struct {
	c    *cursor
	seg  *segment
	from int64
}

func (it *item) charge() int {
	if it.c == nil {
		return controlBytes
	}
	return itemBytes + it.seg.bytesFor(it.c.variant)
}

type controlKind uint8

const (
	controlCreated   controlKind = iota
	controlRefused               // created and canceled at once, watch id -1
	controlCanceled              // on request
	controlCompacted             // passed by compaction
	controlFailed                // history failed
	controlRevoked               // the right to watch is gone
	controlProgress              // manual: everything up to rev was sent
	controlInterval              // the same for each of ids
)

// control is an answer without events.
type control struct {
	kind   controlKind
	id     int64
	rev    int64 // header revision; compact revision for controlCompacted
	reason string
	ids    []int64
}

// queue is what a stream has to send, in order, and what the publisher and the
// workers need to know of the stream. Its lock is a leaf and held for a few
// instructions: the publisher takes it.
type queue struct {
	mu       sync.Mutex
	items    []item
	head     int
	controls []control
	pending  int       // charge of all items
	answers  int       // controls that a client's request made
	demoted  []*cursor // waiting for adoption
	armed    bool      // nothing to send, the transport waits for ready
	starved  bool      // the queue was shed: no catch-up before the next Fill
	progress bool      // a controlProgress is queued
	ticked   bool      // a controlInterval is queued
	busy     bool      // in the workers' list, or a worker is at it
	again    bool      // scheduled while busy
	closed   bool
}

// push appends and says whether ready must be called. The lock is held.
func (q *queue) push(it item, charge int) (wake bool) {
	if len(q.items) == cap(q.items) && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, it)
	q.pending += charge
	wake, q.armed = q.armed, false
	return wake
}

func (q *queue) pushControl(c control) (wake bool) {
	q.controls = append(q.controls, c)
	switch c.kind {
	case controlProgress:
		q.progress = true
	case controlInterval:
		q.ticked = true
	default:
		q.answers++
	}
	return q.push(item{}, controlBytes)
}

// pop takes the oldest item, and its control if it stands for one. An empty
// queue is armed. The client reads, so it is no longer starved. The lock is held.
func (q *queue) pop(ctl *control) (it item, ok bool) {
	q.starved = false
	if q.head == len(q.items) {
		q.armed = true
		if cap(q.items) > keepQueueItems {
			q.items = nil
		}
		q.items, q.head = q.items[:0], 0
		return item{}, false
	}
	it = q.items[q.head]
	q.items[q.head] = item{}
	q.head++
	q.pending -= it.charge()
	if it.c == nil {
		*ctl = q.popControl()
	}
	return it, true
}

func (q *queue) popControl() control {
	c := q.controls[0]
	q.controls[0] = control{}
	q.controls = q.controls[1:]
	switch c.kind {
	case controlProgress:
		q.progress = false
	case controlInterval:
		q.ticked = false
	default:
		q.answers--
	}
	if len(q.controls) == 0 {
		q.controls = nil
	}
	return c
}
