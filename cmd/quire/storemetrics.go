package main

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quire/engine"
	"quire/pagestore"
)

// storeMetrics are the times of etcd's storage engine and of its snapshots, each
// with the meaning nearest to it here (docs/metrics.md): a commit is a
// checkpoint, which is when pages become durable; merging sparse pages is
// reclaim; a raft snapshot's file is the state that a checkpoint writes.
type storeMetrics struct {
	timed map[engine.Timed]prometheus.Observer

	spill, write              prometheus.Observer
	snapSave, snapState, sync prometheus.Observer
}

// Buckets, as etcd has them.
var (
	fromMilli   = prometheus.ExponentialBuckets(0.001, 2, 14) // 1 ms … 8 s
	wholeMillis = prometheus.ExponentialBuckets(1, 2, 13)     // 1 ms … 4 s, in ms
)

// histograms makes and registers them; err has what went wrong.
type histograms struct {
	reg prometheus.Registerer
	err error
}

func (h *histograms) add(name, help string, buckets []float64) prometheus.Histogram {
	m := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	h.err = errors.Join(h.err, h.reg.Register(m))
	return m
}

func newStoreMetrics(reg prometheus.Registerer) (*storeMetrics, error) {
	h := &histograms{reg: reg}
	m := &storeMetrics{
		timed: map[engine.Timed]prometheus.Observer{
			engine.TimedCheckpoint: h.add("etcd_disk_backend_commit_duration_seconds",
				"Time of a checkpoint, from the cut to the durable manifest.", fromMilli),
			engine.TimedDefragment: h.add("etcd_disk_backend_defrag_duration_seconds",
				"Time of a defragmentation; reads and writes go on meanwhile.", prometheus.ExponentialBuckets(.1, 2, 13)),
			engine.TimedCompaction: h.add("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
				"Time to remove what a compaction made superfluous.", prometheus.ExponentialBuckets(100, 2, 14)),
			engine.TimedCompactionStep: h.add("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
				"Time of one step of a compaction, for which writes wait.", wholeMillis),
			engine.TimedCompactionMark: h.add("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
				"Time to find what a compaction makes superfluous, for which writes wait.", prometheus.ExponentialBuckets(0.5, 2, 14)),
			engine.TimedReclaim: h.add("etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
				"Time of a pass that moved the live rest out of sparse segments.", fromMilli),
			engine.TimedSnapshot: h.add("etcd_disk_backend_snapshot_duration_seconds",
				"Time to write the file of a snapshot; sending it is not counted.", prometheus.ExponentialBuckets(.01, 2, 17)),
		},
		spill: h.add("etcd_debugging_disk_backend_commit_spill_duration_seconds",
			"Time a checkpoint waited for pages to be written.", fromMilli),
		write: h.add("etcd_debugging_disk_backend_commit_write_duration_seconds",
			"Time a checkpoint took to make segments durable.", fromMilli),
		snapSave: h.add("etcd_debugging_snap_save_total_duration_seconds",
			"Time a checkpoint took to write state and manifest.", fromMilli),
		snapState: h.add("etcd_debugging_snap_save_marshalling_duration_seconds",
			"Time a checkpoint took to write the state.", fromMilli),
		sync: h.add("etcd_snap_fsync_duration_seconds",
			"Time a checkpoint took to write the manifest and make it durable.", fromMilli),
	}
	m.timed[engine.TimedReceive] = h.add("etcd_snap_db_save_total_duration_seconds",
		"Time until a snapshot of a peer was received and durable.", prometheus.ExponentialBuckets(0.1, 2, 10))
	m.timed[engine.TimedInstall] = h.add("quire_snapshot_install_duration_seconds",
		"Time to take a received snapshot over, while nothing is applied.", prometheus.ExponentialBuckets(0.001, 2, 16))
	// Part of the former here; nothing is counted for itself.
	h.add("etcd_snap_db_fsync_duration_seconds", "Time to make a snapshot durable that a leader sent.", fromMilli)
	return m, h.err
}

// observe implements engine.Options.OnTimed.
func (m *storeMetrics) observe(what engine.Timed, took time.Duration) {
	switch what {
	case engine.TimedCompaction, engine.TimedCompactionStep, engine.TimedCompactionMark:
		m.timed[what].Observe(float64(took) / float64(time.Millisecond))
	default:
		m.timed[what].Observe(took.Seconds())
	}
}

// committed implements pagestore.Options.OnCommit.
func (m *storeMetrics) committed(t pagestore.CommitTimes) {
	m.spill.Observe(t.Flush.Seconds())
	m.write.Observe(t.Sync.Seconds())
	m.snapState.Observe(t.State.Seconds())
	m.sync.Observe(t.Roots.Seconds())
	m.snapSave.Observe((t.State + t.Roots).Seconds())
}
