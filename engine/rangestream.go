package engine

import (
	"math"

	pb "quire/api/etcdserverpb"
	"quire/index"
)

// firstStreamChunk is how many keys the first chunk of a RangeStream holds; the
// following ones grow towards the byte target, as in etcd 3.7.
const firstStreamChunk = 10

// RangeCursor is a range that is answered in chunks, all of one revision. It
// holds nothing between two calls of Next: a client that does not read costs
// no memory, and a compaction that passes it ends it with ErrCompacted.
type RangeCursor struct {
	e          *Engine
	req        pb.RangeRequest
	limit      int64 // of the whole answer
	sent       int64
	chunk      int64
	chunkBytes int
	headerRev  int64
}

// RangeStream starts a streamed range. chunkBytes is the size in bytes that
// chunks aim at.
func (e *Engine) RangeStream(req *pb.RangeRequest, chunkBytes int) *RangeCursor {
	c := &RangeCursor{e: e, limit: req.Limit, chunk: firstStreamChunk, chunkBytes: chunkBytes}
	c.req = pb.RangeRequest{Key: req.Key, RangeEnd: req.RangeEnd, Revision: req.Revision,
		KeysOnly: req.KeysOnly, CountOnly: req.CountOnly, SortTarget: req.SortTarget, SortOrder: req.SortOrder}
	switch {
	case c.limit < 0: // as in etcd: no limit, and everything in one chunk
		c.limit, c.chunk = math.MaxInt64, math.MaxInt64
	case c.limit == 0:
		c.limit = math.MaxInt64
	}
	return c
}

// Next appends the body of the next chunk's RangeResponse to dst. On the last
// chunk, which alone carries a header, rev is that header's revision.
func (c *RangeCursor) Next(dst []byte) (body []byte, rev int64, done bool, err error) {
	if c.req.CountOnly {
		body, rev, err = c.e.Range(&c.req, dst)
		return body, rev, true, err
	}
	if err := c.e.servable(); err != nil {
		return dst, 0, true, err
	}
	k, pin := c.e.read()
	defer pin.Release()
	if c.headerRev == 0 {
		c.headerRev = k.visible.Load()
	}
	at := c.req.Revision
	switch {
	case at > c.headerRev:
		return dst, 0, true, ErrFutureRev
	case at <= 0:
		at = c.headerRev
		c.req.Revision = at
	}
	if at < k.compactRev.Load() {
		return dst, 0, true, ErrCompacted
	}
	c.req.Limit = min(c.chunk, c.limit-c.sent)
	s := newSpan(c.req.Key, c.req.RangeEnd)
	start := len(dst)
	read := k.rangeOrdered
	if !plainOrder(&c.req) {
		read = k.rangeChunkSorted
	}
	maxBytes := 2 * c.chunkBytes // a few large values must not make a chunk of any size
	if c.chunk == math.MaxInt64 {
		maxBytes = math.MaxInt
	}
	dst, o, err := read(dst, &c.req, s, at, maxBytes)
	if err == nil && at < k.compactRev.Load() {
		err = ErrCompacted
	}
	if err != nil {
		return dst[:start], 0, true, err
	}
	c.sent += o.n
	if o.more {
		c.req.Key = append(append([]byte(nil), o.last...), 0)
	}
	if done = !o.more || c.sent == c.limit; !done {
		c.grow(len(dst) - start)
		return dst, 0, false, nil
	}
	total := c.sent
	if o.more {
		dst = append(dst, 3<<3, 1)
		total += k.countAt(newSpan(c.req.Key, c.req.RangeEnd), at)
	}
	return appendInt(dst, 4<<3, total), c.headerRev, true, nil
}

// rangeChunkSorted is rangeOrdered for a sort target without an order, which a
// stream permits as in etcd: the chunks are in key order, and what is in a chunk
// is sorted by the target. (etcd goes on behind the last key of the sorted chunk,
// and so leaves out keys and repeats others.)
func (k *keyspace) rangeChunkSorted(dst []byte, req *pb.RangeRequest, s span, rev int64, _ int) ([]byte, ordered, error) {
	var o ordered
	var hits []sortHit
	var err error
	k.eachAt(s, rev, req.Limit, func(hit *index.Hit) bool {
		if o.more = o.n == req.Limit; o.more {
			return false
		}
		var kv keyValue
		if err = k.readKV(hit.Loc, &kv); err != nil {
			return false
		}
		hits = append(hits, sortHit{Hit: *hit, value: kv.value})
		o.n, o.last = o.n+1, kv.key
		return true
	})
	sortHits(hits, req)
	for i := 0; i < len(hits) && err == nil; i++ {
		dst, _, err = k.appendHit(dst, &hits[i].Hit, req)
	}
	return dst, o, err
}

// grow adapts the number of keys of the next chunk: doubled below half the
// target, halved above twice the target.
func (c *RangeCursor) grow(size int) {
	switch {
	case size < c.chunkBytes/2:
		c.chunk *= 2
	case size > c.chunkBytes*2:
		c.chunk = max(c.chunk/2, 1)
	}
}
