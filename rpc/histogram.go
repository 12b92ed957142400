package rpc

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets whose bounds double from one
// millisecond to about eight seconds, as etcd's request histogram does. An
// observation is two atomic adds.
type histogram struct {
	buckets  [histogramBuckets + 1]atomic.Uint64 // the last one has no bound
	sumNanos atomic.Int64
}

const histogramBuckets = 14

func (h *histogram) observe(d time.Duration) {
	// The bound is inclusive: exactly 1 ms belongs to the first bucket.
	i := bits.Len64(uint64(max(d-1, 0)) / uint64(time.Millisecond))
	h.buckets[min(i, histogramBuckets)].Add(1)
	h.sumNanos.Add(int64(d))
}

// snapshot returns what Prometheus wants: cumulative counts by bound.
func (h *histogram) snapshot() (count uint64, sumSeconds float64, byBound map[float64]uint64) {
	byBound = make(map[float64]uint64, histogramBuckets)
	for i := range h.buckets {
		count += h.buckets[i].Load()
		if i < histogramBuckets {
			byBound[0.001*math.Ldexp(1, i)] = count
		}
	}
	return count, time.Duration(h.sumNanos.Load()).Seconds(), byBound
}
