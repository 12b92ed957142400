package engine

import (
	"bytes"
	"fmt"
	"sort"

	pb "quire/api/etcdserverpb"
	"quire/index"
	"quire/pagestore"
)

// Reads work on a revision, not on a lock: a range is scanned in chunks, and the
// revision makes the chunks one snapshot. Only compaction can take that snapshot
// away; it raises compactRev first, so a reader checks compactRev at its end and
// starts over (or reports ErrCompacted for a revision that the client named).

// readAttempts bounds how often a read of the newest state starts over because
// a compaction overtook it. Compactions are seconds apart.
const readAttempts = 8

// Range executes a read at the applied state and appends the body of the
// RangeResponse to dst. rev is the revision for its header.
func (e *Engine) Range(req *pb.RangeRequest, dst []byte) (body []byte, rev int64, err error) {
	if err := e.servable(); err != nil {
		return dst, 0, err
	}
	start := len(dst)
	k, pin := e.read()
	defer pin.Release()
	for range readAttempts {
		rev = k.visible.Load()
		dst, err = k.rangeAt(dst[:start], req, rev)
		if k.compactRev.Load() > rev {
			continue
		}
		return dst, rev, err
	}
	return dst[:start], 0, ErrCompacted
}

// rangeAt appends the body of the response of req to dst, with curRev as the
// newest revision there is.
func (k *keyspace) rangeAt(dst []byte, req *pb.RangeRequest, curRev int64) ([]byte, error) {
	rev := req.Revision
	switch {
	case rev > curRev:
		return dst, ErrFutureRev
	case rev <= 0:
		rev = curRev
	}
	if rev < k.compactRev.Load() {
		return dst, ErrCompacted
	}
	s := newSpan(req.Key, req.RangeEnd)
	var err error
	switch {
	case req.CountOnly:
		dst = appendInt(dst, 4<<3, k.countAt(s, rev))
	case plainOrder(req) && !revisionFilters(req):
		dst, _, err = k.rangeOrdered(dst, req, s, rev, wholeRange)
	default:
		dst, err = k.rangeSorted(dst, req, s, rev)
	}
	if err == nil && req.Revision > 0 && rev < k.compactRev.Load() {
		err = ErrCompacted // overtaken while reading
	}
	return dst, err
}

func plainOrder(req *pb.RangeRequest) bool {
	return req.SortOrder == pb.RangeRequest_NONE && req.SortTarget == pb.RangeRequest_KEY ||
		req.SortTarget == pb.RangeRequest_KEY && req.SortOrder == pb.RangeRequest_ASCEND
}

func revisionFilters(req *pb.RangeRequest) bool {
	return req.MinModRevision|req.MaxModRevision|req.MinCreateRevision|req.MaxCreateRevision != 0
}

// ordered is what rangeOrdered tells beside the bytes.
type ordered struct {
	n    int64  // keys appended
	more bool   // the limit cut the range
	last []byte // key of the last one
}

// wholeRange is no bound of bytes, and asks for the more and count fields.
const wholeRange = -1

// rangeOrdered appends up to limit keys in key order, and no further one once
// there are maxBytes; with wholeRange also the more and count fields.
func (k *keyspace) rangeOrdered(dst []byte, req *pb.RangeRequest, s span, rev int64, maxBytes int) ([]byte, ordered, error) {
	var o ordered
	var err error
	start := len(dst)
	want := int64(0)
	if req.Limit > 0 && req.Limit < scanChunk {
		want = req.Limit + 1
	}
	k.eachAt(s, rev, want, func(hit *index.Hit) bool {
		full := maxBytes >= 0 && o.n > 0 && len(dst)-start >= maxBytes
		if full || req.Limit > 0 && o.n == req.Limit {
			o.more = true
			return false
		}
		var kv []byte
		if dst, kv, err = k.appendHit(dst, hit, req); err != nil {
			return false
		}
		o.n, o.last = o.n+1, keyOf(kv)
		return true
	})
	if err != nil || maxBytes != wholeRange {
		return dst, o, err
	}
	total := o.n
	if o.more {
		dst = append(dst, 3<<3, 1)
		total = k.countAt(s, rev)
	}
	return appendInt(dst, 4<<3, total), o, nil
}

// appendHit appends one key as RangeResponse.kvs and returns its stored bytes.
func (k *keyspace) appendHit(dst []byte, hit *index.Hit, req *pb.RangeRequest) ([]byte, []byte, error) {
	rec, err := k.store.Read(pagestore.Ref(hit.Loc))
	if err != nil {
		return dst, nil, fmt.Errorf("engine: page store: %w", err)
	}
	kv := wireKV(rec)
	switch {
	case !req.KeysOnly:
		return appendMessage(dst, 2<<3|2, kv), kv, nil
	case req.SortTarget == pb.RangeRequest_VALUE:
		return appendMessage(dst, 2<<3|2, withoutValue(kv)), kv, nil // as etcd: this order keeps the lease
	}
	return appendMessage(dst, 2<<3|2, keyOnly(kv)), kv, nil
}

func withoutValue(kv []byte) []byte {
	var d keyValue
	if decodeKV(kv, &d) != nil {
		return kv
	}
	return appendInt(append([]byte(nil), keyOnly(kv)...), tagLease, d.lease)
}

// rangeSorted filters and sorts the whole range before the limit cuts it.
func (k *keyspace) rangeSorted(dst []byte, req *pb.RangeRequest, s span, rev int64) ([]byte, error) {
	var hits []sortHit
	var err error
	total := int64(0)
	// As in etcd, a target without an order sorts only what the limit takes
	// in key order, and one more.
	cut := req.SortOrder == pb.RangeRequest_NONE && req.Limit > 0 && !revisionFilters(req)
	byValue := req.SortTarget == pb.RangeRequest_VALUE
	k.eachAt(s, rev, 0, func(hit *index.Hit) bool {
		total++
		if !passes(req, hit) {
			return true
		}
		h := sortHit{Hit: *hit}
		if byValue {
			var kv keyValue
			if err = k.readKV(hit.Loc, &kv); err != nil {
				return false
			}
			h.value = kv.value
		}
		hits = append(hits, h)
		return !cut || int64(len(hits)) <= req.Limit
	})
	if err != nil {
		return dst, err
	}
	if cut {
		total = k.countAt(s, rev)
	}
	sortHits(hits, req)
	more := req.Limit > 0 && int64(len(hits)) > req.Limit
	if more {
		hits = hits[:req.Limit]
	}
	for i := range hits {
		if dst, _, err = k.appendHit(dst, &hits[i].Hit, req); err != nil {
			return dst, err
		}
	}
	if more {
		dst = append(dst, 3<<3, 1)
	}
	return appendInt(dst, 4<<3, total), nil
}

func passes(req *pb.RangeRequest, h *index.Hit) bool {
	return (req.MaxModRevision == 0 || h.Main <= req.MaxModRevision) &&
		(req.MinModRevision == 0 || h.Main >= req.MinModRevision) &&
		(req.MaxCreateRevision == 0 || h.Create <= req.MaxCreateRevision) &&
		(req.MinCreateRevision == 0 || h.Create >= req.MinCreateRevision)
}

type sortHit struct {
	index.Hit
	value []byte
}

type hitSorter struct {
	hits []sortHit
	less func(a, b *sortHit) bool
}

func (s *hitSorter) Len() int           { return len(s.hits) }
func (s *hitSorter) Swap(i, j int)      { s.hits[i], s.hits[j] = s.hits[j], s.hits[i] }
func (s *hitSorter) Less(i, j int) bool { return s.less(&s.hits[i], &s.hits[j]) }

// sortHits orders hits that come in key order. sort.Sort is not stable, on
// purpose: with the same start and the same comparisons it leaves equal
// elements where etcd leaves them.
func sortHits(hits []sortHit, req *pb.RangeRequest) {
	order := req.SortOrder
	if req.SortTarget != pb.RangeRequest_KEY && order == pb.RangeRequest_NONE {
		order = pb.RangeRequest_ASCEND
	}
	if order == pb.RangeRequest_NONE || req.SortTarget == pb.RangeRequest_KEY && order == pb.RangeRequest_ASCEND {
		return
	}
	s := &hitSorter{hits: hits}
	switch req.SortTarget {
	case pb.RangeRequest_KEY:
		// The hits are in key order and keys differ.
		for i, j := 0, len(hits)-1; i < j; i, j = i+1, j-1 {
			hits[i], hits[j] = hits[j], hits[i]
		}
		return
	case pb.RangeRequest_VERSION:
		s.less = func(a, b *sortHit) bool { return a.Ver < b.Ver }
	case pb.RangeRequest_CREATE:
		s.less = func(a, b *sortHit) bool { return a.Create < b.Create }
	case pb.RangeRequest_MOD:
		s.less = func(a, b *sortHit) bool { return a.Main < b.Main }
	default:
		s.less = func(a, b *sortHit) bool { return bytes.Compare(a.value, b.value) < 0 }
	}
	if order == pb.RangeRequest_DESCEND {
		sort.Sort(sort.Reverse(s))
		return
	}
	sort.Sort(s)
}

// readKV decodes the record at loc.
func (k *keyspace) readKV(loc index.Loc, kv *keyValue) error {
	rec, err := k.store.Read(pagestore.Ref(loc))
	if err != nil {
		return fmt.Errorf("engine: page store: %w", err)
	}
	return decodeRecord(rec, kv)
}
