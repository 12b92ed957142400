package main

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quire/engine"
)

// storeMetrics are the metrics of etcd's storage engine, each with the meaning
// nearest to it here: a commit is a checkpoint, which is when pages become
// durable; there is no rebalancing and no spilling, so those stay at zero.
type storeMetrics struct {
	timed map[engine.Timed]prometheus.Observer
}

func newStoreMetrics(reg prometheus.Registerer) (*storeMetrics, error) {
	var errs []error
	histogram := func(namespace, subsystem, name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Buckets: buckets,
		})
		errs = append(errs, reg.Register(h))
		return h
	}
	millis := prometheus.ExponentialBuckets(1, 2, 13) // 1 ms … 4 s
	m := &storeMetrics{timed: map[engine.Timed]prometheus.Observer{
		engine.TimedCheckpoint: histogram("etcd", "disk", "backend_commit_duration_seconds",
			"Time of a checkpoint, from the cut to the durable manifest.", prometheus.ExponentialBuckets(0.001, 2, 14)),
		engine.TimedDefragment: histogram("etcd", "disk", "backend_defrag_duration_seconds",
			"Time of a defragmentation; reads and writes go on meanwhile.", prometheus.ExponentialBuckets(.1, 2, 13)),
		engine.TimedSnapshot: histogram("etcd", "disk", "backend_snapshot_duration_seconds",
			"Time to write the file of a snapshot; sending it is not counted.", prometheus.ExponentialBuckets(.01, 2, 17)),
		engine.TimedCompaction: histogram("etcd_debugging", "mvcc", "db_compaction_total_duration_milliseconds",
			"Time to remove what a compaction made superfluous.", prometheus.ExponentialBuckets(100, 2, 14)),
		engine.TimedCompactionStep: histogram("etcd_debugging", "mvcc", "db_compaction_pause_duration_milliseconds",
			"Time of one step of a compaction, for which writes wait.", millis),
	}}
	return m, errors.Join(errs...)
}

// observe implements engine.Options.OnTimed.
func (m *storeMetrics) observe(what engine.Timed, took time.Duration) {
	switch what {
	case engine.TimedCompaction, engine.TimedCompactionStep:
		m.timed[what].Observe(float64(took) / float64(time.Millisecond))
	default:
		m.timed[what].Observe(took.Seconds())
	}
}
