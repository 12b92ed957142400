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

func (h *histogram) observe(d time.Duration) { h.observeN(d, 1) }

// observeN is n observations of d.
func (h *histogram) observeN(d time.Duration, n int) {
	if n <= 0 {
		return
	}
	// The bound is inclusive: exactly 1 ms belongs to the first bucket.
	i := bits.Len64(uint64(max(d-1, 0)) / uint64(time.Millisecond))
	h.buckets[min(i, histogramBuckets)].Add(uint64(n))
	h.sumNanos.Add(int64(d) * int64(n))
}

// counts is what Prometheus wants of a histogram: cumulative counts by bound.
type counts struct {
	count      uint64
	sumSeconds float64
	byBound    map[float64]uint64
}

func (h *histogram) snapshot() counts {
	c := counts{byBound: make(map[float64]uint64, histogramBuckets), sumSeconds: time.Duration(h.sumNanos.Load()).Seconds()}
	for i := range h.buckets {
		c.count += h.buckets[i].Load()
		if i < histogramBuckets {
			c.byBound[0.001*math.Ldexp(1, i)] = c.count
		}
	}
	return c
}

// fineHistogram serves two of etcd's histograms with one observation: bounds
// that double from 0.1 ms (of ranges) and from 1 ms (of requests). Between two of
// the former lies at most one of the latter, in the middle; so bucket 2i is the
// part below it of the i-th interval and 2i+1 the part above.
type fineHistogram struct {
	buckets  [2*fineBuckets + 2]atomic.Uint64 // the last two have no bound
	sumNanos atomic.Int64
}

const (
	fineBuckets = 20
	fineUnit    = 100 * time.Microsecond
	// fineShift is where the bounds from 1 ms lie: 10·2^j units are between
	// 2^(j+3) and 2^(j+4).
	fineShift = 4
)

func (h *fineHistogram) observe(d time.Duration) {
	i := min(bits.Len64(uint64(max(d-1, 0))/uint64(fineUnit)), fineBuckets)
	above := 0
	if i >= fineShift && d > 10*fineUnit<<(i-fineShift) {
		above = 1
	}
	h.buckets[2*i+above].Add(1)
	h.sumNanos.Add(int64(d))
}

// fine returns the histogram with the bounds from 0.1 ms.
func (h *fineHistogram) fine() counts {
	c := counts{byBound: make(map[float64]uint64, fineBuckets), sumSeconds: time.Duration(h.sumNanos.Load()).Seconds()}
	for i := 0; i < len(h.buckets); i += 2 {
		c.count += h.buckets[i].Load() + h.buckets[i+1].Load()
		if i < 2*fineBuckets {
			c.byBound[0.0001*math.Ldexp(1, i/2)] = c.count
		}
	}
	return c
}

// coarse returns the histogram with the bounds from 1 ms.
func (h *fineHistogram) coarse() counts {
	c := counts{byBound: make(map[float64]uint64, histogramBuckets), sumSeconds: time.Duration(h.sumNanos.Load()).Seconds()}
	for i := range h.buckets {
		c.count += h.buckets[i].Load()
		if j := i/2 - fineShift; i%2 == 0 && j >= 0 && j < histogramBuckets {
			c.byBound[0.001*math.Ldexp(1, j)] = c.count
		}
	}
	return c
}
