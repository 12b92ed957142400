package watchfanout

import (
	"fmt"
	"sort"
	"sync"
)

// chunkWant is the history a cohort needs next, and in which forms.
type chunkWant struct {
	from        int64
	compact     int64 // compact revision when it was asked for
	plain, full bool
}

// chunk is a run of history, encoded: every event of revisions [from, next).
// It is immutable and refers to nothing of the store's.
type chunk struct {
	from, next  int64
	plain, full bool // which forms are encoded
	keys        [][]byte
	batch       *batch
}

// search is the position of the first event at or after rev.
func (ch *chunk) search(rev int64) int {
	return sort.Search(len(ch.batch.events), func(i int) bool { return ch.batch.events[i].rev >= rev })
}

// cachedChunks is how many chunks are kept for streams that come along the
// same stretch of history, as when a whole set of clients reconnects.
const cachedChunks = 4

// chunkCache is the chunks read last. Its lock is a leaf.
type chunkCache struct {
	mu     sync.Mutex
	chunks [cachedChunks]*chunk
	turn   int
}

func (c *chunkCache) find(want chunkWant) *chunk {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.chunks {
		if ch != nil && ch.from <= want.from && want.from < ch.next && (ch.plain || !want.plain) && (ch.full || !want.full) {
			return ch
		}
	}
	return nil
}

func (c *chunkCache) put(ch *chunk) {
	c.mu.Lock()
	c.chunks[c.turn] = ch
	c.turn = (c.turn + 1) % cachedChunks
	c.mu.Unlock()
}

func (c *chunkCache) clear() {
	c.mu.Lock()
	c.chunks = [cachedChunks]*chunk{}
	c.mu.Unlock()
}

// chunk returns history from want.from on and not beyond rev, which is what
// was published: no watcher runs ahead of the publisher.
func (w *worker) chunk(want chunkWant, rev int64) (*chunk, error) {
	h := w.hub
	if ch := h.cache.find(want); ch != nil {
		h.counts.historyReuses.Add(1)
		return ch, nil
	}
	h.counts.historyReads.Add(1)
	evs, next, err := h.history.Events(w.events[:0], want.from, h.opts.ChunkBytes, want.full)
	defer func() {
		clear(evs)
		if cap(evs) <= keepChunkEvents {
			w.events = evs[:0]
		}
	}()
	if err != nil {
		return nil, err
	}
	if next <= want.from {
		return nil, fmt.Errorf("watchfanout: history gave nothing for revision %d of %d", want.from, rev)
	}
	// As in etcd the previous value is looked for one revision back, and so is
	// absent from events at the compact revision, whether or not it still exists.
	for i := range evs {
		if evs[i].Main > want.compact {
			break
		}
		evs[i].Prev = nil
	}
	read := evs[:sort.Search(len(evs), func(i int) bool { return evs[i].Main > rev })]
	ch := w.encode(read, want)
	ch.next = min(next, rev+1)
	ch.batch.seq = h.batches.Add(1)
	if ch.batch.bytes.Load() <= int64(4*h.opts.ChunkBytes) {
		h.cache.put(ch)
	}
	return ch, nil
}

// keepChunkEvents is the capacity a worker keeps between chunks.
const keepChunkEvents = 16 << 10

// encode makes a chunk of events, in the forms that are wanted.
func (w *worker) encode(evs []Event, want chunkWant) *chunk {
	ch := &chunk{from: want.from, plain: want.plain, full: want.full}
	b := &batch{events: make([]encoded, len(evs))}
	ch.batch, ch.keys = b, make([][]byte, len(evs))
	keyBytes := 0
	w.all = w.all[:0]
	for i := range evs {
		b.events[i] = encodedOf(&evs[i])
		keyBytes += len(evs[i].Key)
		w.all = append(w.all, uint32(i))
	}
	keys := make([]byte, 0, keyBytes)
	for i := range evs {
		keys = append(keys, evs[i].Key...)
		ch.keys[i] = keys[len(keys)-len(evs[i].Key):]
	}
	whole := segment{batch: b, idx: w.all}
	size := keyBytes
	if want.plain {
		size += whole.encodePlain(evs, w.all)
	}
	if want.full {
		size += whole.encodeFull(evs, w.all)
	}
	b.bytes.Store(int64(size))
	return ch
}
