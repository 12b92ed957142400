package rpc

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestHistograms compares the buckets with counting by hand, bounds included.
func TestHistograms(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var h histogram
	var f fineHistogram
	var all []time.Duration
	note := func(d time.Duration) {
		h.observe(d)
		f.observe(d)
		all = append(all, d)
	}
	for i := range 30 {
		for _, unit := range []time.Duration{time.Millisecond, 100 * time.Microsecond} {
			for _, off := range []time.Duration{-1, 0, 1} {
				note(unit<<i + off)
			}
		}
	}
	note(0)
	for range 10000 {
		note(time.Duration(rnd.Int64N(int64(1) << rnd.IntN(40))))
	}
	check := func(name string, c counts, buckets int) {
		t.Helper()
		if c.count != uint64(len(all)) || len(c.byBound) != buckets {
			t.Errorf("%s: count %d of %d, %d buckets", name, c.count, len(all), len(c.byBound))
		}
		for bound, got := range c.byBound {
			want, limit := uint64(0), time.Duration(bound*1e9+0.5)
			for _, d := range all {
				if d <= limit {
					want++
				}
			}
			if got != want {
				t.Errorf("%s: %d up to %v, want %d", name, got, limit, want)
			}
		}
	}
	check("coarse", h.snapshot(), 14)
	check("fine", f.fine(), 20)
	check("coarse of fine", f.coarse(), 14)
}
