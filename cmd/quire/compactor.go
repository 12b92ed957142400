package main

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// compactor forgets history by itself, as --auto-compaction-* says. Only the
// leader compacts; the others would propose the same again.
type compactor struct {
	keep     retention
	revision func() int64
	leads    func() bool
	// compact returns nil also for a revision that is compacted already.
	compact func(ctx context.Context, rev int64) error
	log     *zap.Logger
}

const (
	// revisionInterval is how often the revision mode looks, as in etcd.
	revisionInterval = 5 * time.Minute
	// samplesPerPeriod is how finely the periodic mode remembers revisions: a
	// compaction keeps at most a tenth of a period too much.
	samplesPerPeriod = 10
	// longestPeriod is the longest time between two periodic compactions.
	longestPeriod = time.Hour
)

// run compacts until ctx ends. Without a retention it returns at once.
func (c *compactor) run(ctx context.Context) {
	switch {
	case c.keep.period > 0:
		c.runPeriodic(ctx)
	case c.keep.revisions > 0:
		c.runByRevision(ctx)
	}
}

// runPeriodic compacts to what the revision was one period ago (and up to one
// sample more): at first after one period, then every period but at least every
// hour. A failure is tried again at the next sample.
func (c *compactor) runPeriodic(ctx context.Context) {
	every := min(c.keep.period, longestPeriod)
	sample := max(every/samplesPerPeriod, time.Nanosecond)
	tick := time.NewTicker(sample)
	defer tick.Stop()
	past := newRevisionWindow(int(c.keep.period/sample) + 1)
	due, compacted := time.Now().Add(c.keep.period), int64(0)
	for {
		past.add(c.revision())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		rev := past.oldest()
		if !c.leads() || time.Now().Before(due) || rev == compacted {
			continue
		}
		if c.try(ctx, rev, zap.Duration("compact-period", c.keep.period)) {
			compacted, due = rev, time.Now().Add(every)
		}
	}
}

// runByRevision keeps the newest revisions.
func (c *compactor) runByRevision(ctx context.Context) {
	tick := time.NewTicker(revisionInterval)
	defer tick.Stop()
	compacted := int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		rev := c.revision() - c.keep.revisions
		if !c.leads() || rev <= 0 || rev == compacted {
			continue
		}
		if c.try(ctx, rev, zap.Int64("revision-compaction-retention", c.keep.revisions)) {
			compacted = rev
		}
	}
}

func (c *compactor) try(ctx context.Context, rev int64, mode zap.Field) bool {
	start := time.Now()
	err := c.compact(ctx, rev)
	if err != nil {
		c.log.Warn("failed auto compaction", zap.Int64("revision", rev), mode, zap.Error(err))
		return false
	}
	c.log.Info("completed auto compaction", zap.Int64("revision", rev), mode, zap.Duration("took", time.Since(start)))
	return true
}

// revisionWindow remembers the last revisions that were seen, one per sample.
type revisionWindow struct {
	ring []int64
	at   int // where the next one goes once the ring is full
}

func newRevisionWindow(n int) *revisionWindow { return &revisionWindow{ring: make([]int64, 0, n)} }

func (w *revisionWindow) add(rev int64) {
	if len(w.ring) < cap(w.ring) {
		w.ring = append(w.ring, rev)
		return
	}
	w.ring[w.at] = rev
	w.at = (w.at + 1) % len(w.ring)
}

func (w *revisionWindow) oldest() int64 { return w.ring[w.at] }
