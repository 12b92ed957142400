package engine

import (
	"bytes"
	"sync"

	"quire/index"
)

// span is the set of keys that a key and a range_end name.
type span struct {
	lo, hi    []byte
	single    bool // lo alone
	unbounded bool // from lo on
}

// newSpan follows etcd: no range_end names one key, a single zero byte
// everything from key on.
func newSpan(key, rangeEnd []byte) span {
	switch {
	case len(rangeEnd) == 0:
		return span{lo: key, single: true}
	case len(rangeEnd) == 1 && rangeEnd[0] == 0:
		return span{lo: key, unbounded: true}
	}
	return span{lo: key, hi: rangeEnd}
}

// everything is the span of all keys.
var everything = span{unbounded: true}

var scanners = sync.Pool{New: func() any { return new(index.Scanner) }}

// scanChunk is how many keys are asked of the index at once.
const scanChunk = 256

// eachAt calls fn for the live keys of s as of rev, in key order, until fn
// returns false. No lock is held while fn runs. want is how many keys the
// caller expects at most, 0 if it does not know.
func (k *keyspace) eachAt(s span, rev int64, want int64, fn func(*index.Hit) bool) {
	if s.single {
		if v, ok := k.idx.Get(s.lo, rev); ok {
			fn(&index.Hit{Version: v})
		}
		return
	}
	if s.empty() {
		return
	}
	sc := scanners.Get().(*index.Scanner)
	defer scanners.Put(sc)
	sc.Reset(k.idx, index.Query{Lo: s.lo, Hi: s.hi, Rev: rev})
	chunk := scanChunk
	if want > 0 {
		chunk = int(min(want, scanChunk))
	}
	for hits := sc.Next(chunk); len(hits) > 0; hits = sc.Next(chunk) {
		for i := range hits {
			if !fn(&hits[i]) {
				return
			}
		}
	}
}

// countAt counts the live keys of s as of rev.
func (k *keyspace) countAt(s span, rev int64) int64 {
	switch {
	case s.single:
		if _, ok := k.idx.Get(s.lo, rev); ok {
			return 1
		}
		return 0
	case s.empty():
		return 0
	}
	return k.idx.Count(s.lo, s.hi, rev)
}

func (s *span) empty() bool {
	return !s.unbounded && bytes.Compare(s.lo, s.hi) >= 0
}
