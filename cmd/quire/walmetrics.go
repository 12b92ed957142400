package main

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"quire/wal"
)

// walMetrics are the log's metrics under etcd's names. A durable write is one
// O_DSYNC write here, so its time stands for etcd's write and for its fsync.
type walMetrics struct {
	write, sync prometheus.Histogram
	bytes       prometheus.Gauge
}

func newWALMetrics(reg prometheus.Registerer) (*walMetrics, error) {
	h := &histograms{reg: reg}
	w := &walMetrics{
		sync: h.add("etcd_disk_wal_fsync_duration_seconds",
			"Time of a durable write to the log, from submission to completion.", fromMilli),
		write: h.add("etcd_disk_wal_write_duration_seconds",
			"The same: writing and making durable are one operation.", fromMilli),
		bytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "etcd_disk_wal_write_bytes_total",
			Help: "Bytes written to the log, with headers and padding.",
		}),
	}
	return w, errors.Join(h.err, reg.Register(w.bytes))
}

// observe is called with the log's lock held.
func (w *walMetrics) observe(i wal.WriteInfo) {
	took := i.Took.Seconds()
	w.sync.Observe(took)
	w.write.Observe(took)
	w.bytes.Add(float64(i.Bytes))
}
