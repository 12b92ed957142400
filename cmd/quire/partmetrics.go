package main

import (
	"errors"
	"math"

	"github.com/prometheus/client_golang/prometheus"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// partMetrics registers what the parts count anyway, under etcd's names. It is
// read when somebody scrapes.
type partMetrics struct {
	reg prometheus.Registerer
	err error
}

func (p *partMetrics) gauge(name, help string, read func() float64) {
	p.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

func (p *partMetrics) counter(name, help string, read func() float64) {
	p.add(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
}

func (p *partMetrics) add(c prometheus.Collector) { p.err = errors.Join(p.err, p.reg.Register(c)) }

// registerParts is called when all parts are there.
func (m *member) registerParts(reg *prometheus.Registry) error {
	p := &partMetrics{reg: reg}
	m.addWatchMetrics(p)
	m.addStoreMetrics(p)
	m.addLeaseMetrics(p)
	p.counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen.",
		func() float64 { return float64(m.counts.leaderChanges.Load()) })
	p.counter("etcd_server_slow_apply_total", "The total number of slow apply requests (likely overloaded from slow disk).",
		func() float64 { return float64(m.counts.slowApplys.Load()) })
	p.gauge("etcd_debugging_auth_revision", "The current revision of auth store.",
		func() float64 { return float64(m.engine.Auth().Revision()) })
	p.counter("etcd_server_heartbeat_send_failures_total", "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
		func() float64 { return float64(m.transport.LateHeartbeats()) })
	p.add(newPeerMetrics(m.transport, m.id))
	p.add(newCheckMetrics(m.checks.continuous))
	for name, help := range versionTwo {
		p.counter(name, help, zero)
	}
	p.gauge("quire_log_oldest_write_seconds", "Age of the oldest write of the log that has not ended.", m.stall.oldest)
	p.counter("quire_log_stalls_total", "Writes of the log that took longer than an election timeout.",
		func() float64 { return float64(m.stall.count.Load()) })
	p.gauge("etcd_server_snapshot_apply_in_progress_total", "1 if the server is applying the incoming snapshot. 0 if none.",
		func() float64 { return float64(m.counts.restoring.Load()) })
	p.gauge("etcd_debugging_store_watchers", "Watchers of etcd's version 2 store, which is not here.", zero)
	return p.err
}

// versionTwo are counters of etcd's version 2 store, whose metrics etcd still
// has.
var versionTwo = map[string]string{
	"etcd_debugging_store_expires_total":        "Keys that expired in etcd's version 2 store, which is not here.",
	"etcd_debugging_store_watch_requests_total": "Watch requests to etcd's version 2 store, which is not here.",
}

func zero() float64 { return 0 }

func (m *member) addWatchMetrics(p *partMetrics) {
	hub := m.hub
	p.gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.",
		func() float64 { return float64(hub.Stats().Streams) })
	p.gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.",
		func() float64 { return float64(hub.Stats().Watchers) })
	p.gauge("etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers.",
		func() float64 { return float64(hub.Stats().SlowWatchers) })
	p.gauge("etcd_debugging_mvcc_pending_events_total", "Total number of pending events to be sent.",
		func() float64 { return float64(hub.Stats().PendingEvents) })
	p.counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member.",
		func() float64 { return float64(hub.Stats().EventsSent) })
}

func (m *member) addStoreMetrics(p *partMetrics) {
	eng := m.engine
	tally := func(read func(engine.Tally) uint64) func() float64 {
		return func() float64 { return float64(read(eng.Tally())) }
	}
	p.gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.",
		func() float64 { return float64(eng.CompactRevision()) })
	p.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", m.keys)
	p.counter("etcd_mvcc_put_total", "Total number of puts seen by this member.", tally(func(t engine.Tally) uint64 { return t.Puts }))
	p.counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member.", tally(func(t engine.Tally) uint64 { return t.Deletes }))
	p.counter("etcd_mvcc_txn_total", "Total number of txns seen by this member.", tally(func(t engine.Tally) uint64 { return t.Txns }))
	p.counter("etcd_mvcc_range_total", "Total number of ranges seen by this member.", tally(func(t engine.Tally) uint64 {
		return t.TxnRanges + m.rpc.Answered("/etcdserverpb.KV/Range") + m.rpc.Answered("/etcdserverpb.KV/RangeStream")
	}))
	p.gauge("etcd_debugging_mvcc_total_put_size_in_bytes", "The total size of put kv pairs seen by this member.",
		tally(func(t engine.Tally) uint64 { return t.PutBytes }))
	p.counter("etcd_debugging_mvcc_db_compaction_keys_total", "Total number of db keys compacted.",
		tally(func(t engine.Tally) uint64 { return t.CompactedKeys }))
	p.gauge("etcd_debugging_mvcc_db_compaction_last", "The unix time of the last db compaction. Resets to 0 on start.", func() float64 {
		if at := eng.Tally().LastCompaction; !at.IsZero() {
			return float64(at.Unix())
		}
		return 0
	})
}

func (m *member) addLeaseMetrics(p *partMetrics) {
	eng := m.engine
	for name, c := range map[string]struct {
		help string
		read func(engine.Tally) uint64
	}{
		"etcd_debugging_lease_granted_total":        {"The total number of granted leases.", func(t engine.Tally) uint64 { return t.LeasesGranted }},
		"etcd_debugging_lease_revoked_total":        {"The total number of revoked leases.", func(t engine.Tally) uint64 { return t.LeasesRevoked }},
		"etcd_debugging_lease_renewed_total":        {"The number of renewed leases seen by the leader.", func(t engine.Tally) uint64 { return t.LeasesRenewed }},
		"etcd_debugging_server_lease_expired_total": {"The total number of expired leases.", func(t engine.Tally) uint64 { return t.LeasesExpired }},
	} {
		p.counter(name, c.help, func() float64 { return float64(c.read(eng.Tally())) })
	}
	p.add(leaseTTLs{eng, prometheus.NewDesc("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs.", nil, nil)})
}

// leaseTTLs shows the TTLs of granted leases, with bounds that double from one
// second.
type leaseTTLs struct {
	engine *engine.Engine
	desc   *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (l leaseTTLs) Describe(ch chan<- *prometheus.Desc) { ch <- l.desc }

// Collect implements prometheus.Collector.
func (l leaseTTLs) Collect(ch chan<- prometheus.Metric) {
	t := l.engine.Tally()
	bounds, count := map[float64]uint64{}, uint64(0)
	for i, n := range t.LeaseTTLs {
		count += n
		if i < len(t.LeaseTTLs)-1 {
			bounds[math.Ldexp(1, i)] = count
		}
	}
	ch <- prometheus.MustNewConstHistogram(l.desc, count, float64(t.LeaseTTLTotal), bounds)
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
