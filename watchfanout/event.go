package watchfanout

import (
	"errors"
	"sync/atomic"
)

// Event is one change of one key, as the engine applied it. The byte slices
// are immutable and may be kept; the slice of Events handed to Publish is not.
type Event struct {
	Main    int64 // revision
	Sub     int32 // position within the revision
	Delete  bool
	Created bool   // a put that created the key: it has no previous value
	Key     []byte // what watchers are matched by
	KV      []byte // mvccpb.KeyValue in wire form; of a delete, key and mod_revision only
	Prev    []byte // previous mvccpb.KeyValue in wire form; nil if there is none or it was not loaded
}

// History serves the events that happened before a watcher was synced. It is
// called from the catch-up workers only, several at a time, with no lock held.
type History interface {
	// Bounds returns the compact revision and the newest revision.
	Bounds() (compactRev, rev int64)
	// Events appends whole revisions in order, starting with revision from,
	// until about maxBytes are there, at least one revision if from is not in
	// the future. next is the first revision not returned. It fails with
	// ErrCompacted if from is below the compact revision. wantPrev asks for
	// Event.Prev.
	Events(dst []Event, from int64, maxBytes int, wantPrev bool) (evs []Event, next int64, err error)
}

// ErrCompacted is what History.Events answers for a revision that was compacted.
var ErrCompacted = errors.New("watchfanout: revision was compacted")

// encoded is one event of a batch in the forms that go on the wire: the whole
// field 11 of WatchResponse, tag and length included. Both forms are written
// before the batch is handed to any stream and never changed afterwards.
type encoded struct {
	rev   int64
	del   bool
	lost  bool   // a previous value exists and was not loaded
	plain []byte // without prev_kv
	full  []byte // with prev_kv; shares plain when there is none
}

// batch is the events of one Publish or of one chunk of history, shared by all
// streams whose queues refer to it. refs counts those references so that the
// bytes are counted once in the budget however many streams keep them.
type batch struct {
	events []encoded
	seq    uint64       // order of creation: the age of what a queue holds
	bytes  atomic.Int64 // encoded bytes, counted in hub.retained while refs > 0
	refs   atomic.Int64
}

// segment is the part of a batch that one group of cursors is shown: events in
// order, all matching the group's range.
type segment struct {
	batch      *batch
	idx        []uint32 // positions in batch.events
	first      int64    // revision of the first event
	last       int64    // revision of the last event
	rev        int64    // header revision of a response that ends with this segment
	header     []byte   // field 1 of WatchResponse for rev
	plainBytes int      // sum of the plain forms, once they are encoded
	fullBytes  int      // sum of the full forms, once they are encoded
	puts, dels int
	lost       bool // some event's previous value was not loaded
}

func (g *segment) event(i int) *encoded { return &g.batch.events[g.idx[i]] }

// bytesFor is what the segment's events weigh for a variant, filters aside.
func (g *segment) bytesFor(v variant) int {
	if v&wantPrev != 0 {
		return g.fullBytes
	}
	return g.plainBytes
}

// sum weighs the segment in the forms that its batch has.
func (g *segment) sum(plain, full bool) {
	for _, i := range g.idx {
		e := &g.batch.events[i]
		if plain {
			g.plainBytes += len(e.plain)
		}
		if full {
			g.fullBytes += len(e.full)
		}
	}
}

// encodePlain encodes those of the segment's events that no earlier segment
// of the batch has encoded, and says how many bytes that took. Batch event i
// comes from evs[source[i]].
func (g *segment) encodePlain(evs []Event, source []uint32) int {
	need := 0
	for _, i := range g.idx {
		if g.batch.events[i].plain == nil {
			need += eventFieldBytes(&evs[source[i]], false)
		}
	}
	buf := make([]byte, 0, need)
	sum := 0
	for _, i := range g.idx {
		e := &g.batch.events[i]
		if e.plain == nil {
			start := len(buf)
			buf = appendEventField(buf, &evs[source[i]], false)
			e.plain = buf[start:len(buf):len(buf)]
		}
		sum += len(e.plain)
	}
	g.plainBytes = sum
	return need
}

// encodeFull is encodePlain for the form with prev_kv. An event without a
// previous value shares its plain form.
func (g *segment) encodeFull(evs []Event, source []uint32) int {
	need := 0
	for _, i := range g.idx {
		if e := &g.batch.events[i]; e.full == nil && (e.plain == nil || hasPrev(&evs[source[i]])) {
			need += eventFieldBytes(&evs[source[i]], true)
		}
	}
	buf := make([]byte, 0, need)
	sum := 0
	for _, i := range g.idx {
		e, ev := &g.batch.events[i], &evs[source[i]]
		if e.full == nil {
			e.full = e.plain
			if e.plain == nil || hasPrev(ev) {
				start := len(buf)
				buf = appendEventField(buf, ev, true)
				e.full = buf[start:len(buf):len(buf)]
			}
			if e.plain == nil && !hasPrev(ev) {
				e.plain = e.full
			}
		}
		sum += len(e.full)
	}
	g.fullBytes = sum
	return need
}

func hasPrev(ev *Event) bool { return len(ev.Prev) > 0 && !ev.Created }
