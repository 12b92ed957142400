package main

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	pb "quire/api/etcdserverpb"
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
		gauge("etcd_debugging_auth_revision", "The current revision of auth store.",
			func() float64 { return float64(eng.Auth().Revision()) }),
		gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", m.keys),
		counter("etcd_mvcc_put_total", "Total number of puts seen by this member.",
			func() float64 { return float64(m.counts.puts.Load()) }),
		counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member.",
			func() float64 { return float64(m.counts.deletes.Load()) }),
		gauge("etcd_debugging_mvcc_total_put_size_in_bytes", "The total size of put kv pairs seen by this member.",
			func() float64 { return float64(m.counts.putBytes.Load()) }),
		counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen.",
			func() float64 { return float64(m.counts.leaderChanges.Load()) }),
		counter("etcd_server_slow_apply_total", "The total number of slow apply requests (likely overloaded from slow disk).",
			func() float64 { return float64(m.counts.slowApplys.Load()) }),
	} {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// keys counts the keys there are; the index keeps the counts of its subtrees, so
// this costs no scan.
func (m *member) keys() float64 {
	all := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true}
	body, _, err := m.engine.Range(all, nil)
	var resp pb.RangeResponse
	if err != nil || resp.UnmarshalVT(body) != nil {
		return math.NaN()
	}
	return float64(resp.Count)
}
