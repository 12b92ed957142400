package main

import (
	"github.com/prometheus/client_golang/prometheus"
)

// registerParts adds what the parts count anyway, under etcd's names.
func (m *member) registerParts(reg *prometheus.Registry) error {
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read)
	}
	counter := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read)
	}
	hub, eng := m.hub, m.engine
	for _, c := range []prometheus.Collector{
		gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.",
			func() float64 { return float64(hub.Stats().Streams) }),
		gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.",
			func() float64 { return float64(hub.Stats().Watchers) }),
		gauge("etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers.",
			func() float64 { return float64(hub.Stats().SlowWatchers) }),
		gauge("etcd_debugging_mvcc_pending_events_total", "Total number of pending events to be sent.",
			func() float64 { return float64(hub.Stats().PendingEvents) }),
		counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member.",
			func() float64 { return float64(hub.Stats().EventsSent) }),
		gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.",
			func() float64 { return float64(eng.CompactRevision()) }),
	} {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}
