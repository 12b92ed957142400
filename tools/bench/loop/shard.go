package loop

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	lowestNanos  = 1
	highestNanos = int64(2 * time.Minute) // longer is recorded as this
	// significantDigits 3 keeps the error of a quantile below 0.1 %.
	significantDigits = 3
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(lowestNanos, highestNanos, significantDigits)
}

// shard records the operations of some of the workers.
type shard struct {
	sync.Mutex
	latency  *hdrhistogram.Histogram
	lateness *hdrhistogram.Histogram
	ops      int64
	units    int64
	errors   int64
	sample   error
}

func newShard() *shard {
	return &shard{latency: newHistogram(), lateness: newHistogram()}
}

// observation is one ended operation; times are since the run began.
type observation struct {
	due, start, end time.Duration
	units           int64
	err             error
}

// record puts the observation where it belongs; see the package comment for
// what counts as in the window.
func (s *shard) record(o observation, r *Run) {
	endsIn := o.end >= r.opens && (o.end < r.closes || r.plan.MaxOps > 0)
	measured := endsIn
	if r.plan.Rate > 0 {
		measured = o.due >= r.opens && o.due < r.closes
	}
	s.Lock()
	defer s.Unlock()
	if o.err != nil {
		if s.sample == nil {
			s.sample = o.err
		}
		if o.end >= r.opens { // also what was cancelled after the window
			s.errors++
		}
	}
	if measured {
		observe(s.latency, o.end-o.due)
		observe(s.lateness, max(o.start-o.due, 0))
	}
	if endsIn && o.err == nil {
		s.ops++
		s.units += o.units
	}
}

// observe cannot fail: the value is bounded first.
func observe(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d), lowestNanos), highestNanos))
}
