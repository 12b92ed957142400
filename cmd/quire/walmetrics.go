package main

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"quire/wal"
)

// walMetrics are the log's metrics under etcd's names. A durable write is one
// O_DSYNC write here, so its time stands for etcd's fsync.
type walMetrics struct {
	sync  prometheus.Histogram
	bytes prometheus.Gauge
}

func newWALMetrics(reg prometheus.Registerer) (*walMetrics, error) {
	w := &walMetrics{
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "etcd", Subsystem: "disk", Name: "wal_fsync_duration_seconds",
			Help: "Time of a durable write to the log, from submission to completion.",
			// etcd's buckets: 1 ms doubled up to 8 s.
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "etcd", Subsystem: "disk", Name: "wal_write_bytes_total",
			Help: "Bytes written to the log, with headers and padding.",
		}),
	}
	return w, errors.Join(reg.Register(w.sync), reg.Register(w.bytes))
}

// observe is called with the log's lock held.
func (w *walMetrics) observe(i wal.WriteInfo) {
	w.sync.Observe(i.Took.Seconds())
	w.bytes.Add(float64(i.Bytes))
}
