package rpc

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// registerMetrics adds this package's collectors to the registry. All of them
// read what is counted anyway when somebody scrapes.
func (s *Server) registerMetrics() error {
	s.hashing = newHashTimes()
	errs := []error{s.observeHandling()}
	for _, c := range []prometheus.Collector{newCallCollector(s), newServerCollector(s), s.hashing.all, s.hashing.rev} {
		errs = append(errs, s.cfg.Registry.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("rpc: metrics: %w", err)
	}
	return nil
}

// hashTimes are of the Maintenance service's methods, which are rare.
type hashTimes struct{ all, rev prometheus.Histogram }

func newHashTimes() hashTimes {
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(.01, 2, 15)})
	}
	return hashTimes{
		all: histogram("etcd_mvcc_hash_duration_seconds", "The latency distribution of storage hash operation."),
		rev: histogram("etcd_mvcc_hash_rev_duration_seconds", "The latency distribution of storage hash by revision operation."),
	}
}

// Answered returns how many calls of a method have succeeded, those of the
// process itself included. The method must be one of the table.
func (s *Server) Answered(fullName string) uint64 {
	stats := &s.byName[fullName].stats
	return stats.handled[codes.OK].Load() + stats.inside.Load()
}

// reading is one metric without labels that is read when asked for.
type reading struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func() float64
}

// serverCollector shows the member's state under etcd's names.
type serverCollector struct {
	srv      *Server
	readings []reading

	clusterVersion, knownPeers, alarms *prometheus.Desc
	check, checks, promoteFailures     *prometheus.Desc
	send                               map[*prometheus.Desc]*histogram

	mu struct {
		sync.Mutex
		alarms map[[2]string]bool // that were ever shown: member, type
	}
}

func newServerCollector(s *Server) *serverCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	c := &serverCollector{
		srv:             s,
		clusterVersion:  desc("etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version", "cluster_version"),
		knownPeers:      desc("etcd_network_known_peers", "The current number of known peers.", "Local", "Remote"),
		alarms:          desc("etcd_debugging_server_alarms", "Active alarms: 1 for the member and the type of each.", "server_id", "alarm_type"),
		check:           desc("etcd_server_healthcheck", "The result of each kind of healthcheck.", "type", "name"),
		checks:          desc("etcd_server_healthchecks_total", "The total number of each kind of healthcheck.", "type", "name", "status"),
		promoteFailures: desc("etcd_server_learner_promote_failures", "The total number of failed learner promotions.", "Reason"),
	}
	c.mu.alarms = map[[2]string]bool{}
	c.addServer(s)
	c.addStore(s)
	const loop = "etcd_debugging_server_watch_send_loop_"
	c.send = map[*prometheus.Desc]*histogram{
		desc(loop+"watch_stream_duration_seconds", "Time to send a watch response with events: the mean of those sent in a row."):                    &s.sending.events,
		desc(loop+"watch_stream_duration_per_event_seconds", "The same for each of its events."):                                                     &s.sending.perEvent,
		desc(loop+"control_stream_duration_seconds", "Time to send the response to the creation or the end of a watch: the mean of those in a row."): &s.sending.control,
		desc(loop+"progress_duration_seconds", "Time to send a progress notification: the mean of those in a row."):                                  &s.sending.progress,
	}
	c.fixed("etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.", "server_version", s.cfg.Version)
	c.fixed("etcd_server_go_version", "Which Go version server is running with. 1 for 'server_go_version' label with current version.", "server_go_version", runtime.Version())
	c.fixed("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.", "server_id", fmt.Sprintf("%x", s.cfg.MemberID))
	return c
}

func (c *serverCollector) addServer(s *Server) {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	status := s.cfg.RaftStatus
	count := func(v *atomic.Uint64) func() float64 { return func() float64 { return float64(v.Load()) } }
	c.add("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", gauge, func() float64 { return truth(status().Lead != 0) })
	c.add("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", gauge, func() float64 { return truth(status().IsLeader) })
	c.add("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", gauge, func() float64 { return truth(status().IsLearner) })
	c.add("etcd_server_proposals_committed_total", "The total number of consensus proposals committed.", gauge, func() float64 { return float64(status().Commit) })
	c.add("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", gauge, func() float64 { return float64(status().Applied) })
	c.add("etcd_server_proposals_pending", "The current number of pending proposals to commit.", gauge, func() float64 { return float64(s.proposals.pending.Load()) })
	c.add("etcd_server_proposals_failed_total", "The total number of failed proposals seen.", counter, count(&s.proposals.failed))
	c.add("etcd_server_read_indexes_failed_total", "The total number of failed read indexes seen.", counter, count(&s.reads.failed))
	c.add("etcd_server_slow_read_indexes_total", "Linearizable reads that waited long for the cluster.", counter, count(&s.reads.slow))
	c.add("etcd_server_health_success", "The total number of successful health checks", counter, count(&s.http.healthy))
	c.add("etcd_server_health_failures", "The total number of failed health checks", counter, count(&s.http.unhealthy))
	c.add("etcd_server_learner_promote_successes", "The total number of successful learner promotions while this member is leader.", counter, func() float64 { return float64(s.Answered(promoteFullName)) })
	c.add("etcd_network_client_grpc_sent_bytes_total", "The total number of bytes sent to grpc clients.", counter, count(&s.net.sent))
	c.add("etcd_network_client_grpc_received_bytes_total", "The total number of bytes received from grpc clients.", counter, count(&s.net.received))
}

func (c *serverCollector) addStore(s *Server) {
	gauge := prometheus.GaugeValue
	c.add("etcd_disk_defrag_inflight", "Whether or not defrag is active on the member. 1 means active, 0 means not.", gauge, func() float64 { return truth(s.defragmenting.Load() > 0) })
	c.add("etcd_mvcc_db_open_read_transactions", "Reads that span several messages: of RangeStream and of Snapshot.", gauge, func() float64 {
		return float64(s.byName[rangeStreamFullName].stats.open.Load() + s.byName[snapshotFullName].stats.open.Load())
	})
	c.add("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", gauge, func() float64 { return float64(s.cfg.Space.Quota()) })
	c.add("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes.", gauge, func() float64 { total, _ := s.cfg.Space.DBSize(); return float64(total) })
	c.add("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes.", gauge, func() float64 { _, inUse := s.cfg.Space.DBSize(); return float64(inUse) })
	c.add("etcd_debugging_mvcc_current_revision", "The current revision of store.", gauge, func() float64 { return float64(s.cfg.KV.Revision()) })
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c *serverCollector) add(name, help string, kind prometheus.ValueType, read func() float64) {
	c.readings = append(c.readings, reading{prometheus.NewDesc(name, help, nil, nil), kind, read})
}

// fixed is a metric that is 1 and says something by its label.
func (c *serverCollector) fixed(name, help, label, value string) {
	d := prometheus.NewDesc(name, help, nil, prometheus.Labels{label: value})
	c.readings = append(c.readings, reading{d, prometheus.GaugeValue, func() float64 { return 1 }})
}

// Describe implements prometheus.Collector.
func (c *serverCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, r := range c.readings {
		ch <- r.desc
	}
	for d := range c.send {
		ch <- d
	}
	for _, d := range []*prometheus.Desc{c.clusterVersion, c.knownPeers, c.alarms, c.check, c.checks, c.promoteFailures} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *serverCollector) Collect(ch chan<- prometheus.Metric) {
	for _, r := range c.readings {
		ch <- prometheus.MustNewConstMetric(r.desc, r.kind, r.read())
	}
	for d, h := range c.send {
		t := h.snapshot()
		ch <- prometheus.MustNewConstHistogram(d, t.count, t.sumSeconds, t.byBound)
	}
	one := func(d *prometheus.Desc, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, 1, labels...)
	}
	// The label is the version without its patch number; a new cluster has none yet.
	if v := c.srv.cfg.Upkeep.ClusterVersion(); v != "" {
		one(c.clusterVersion, v[:max(strings.LastIndex(v, "."), 0)])
	}
	for _, m := range c.srv.cfg.Members() {
		one(c.knownPeers, fmt.Sprintf("%x", c.srv.cfg.MemberID), fmt.Sprintf("%x", m.ID))
	}
	c.collectAlarms(ch)
	c.srv.promoteFails.each(func(reason string, n uint64) {
		ch <- prometheus.MustNewConstMetric(c.promoteFailures, prometheus.CounterValue, float64(n), reason)
	})
	c.collectChecks(ch)
}

// collectAlarms shows the alarms there are, and as 0 those that earlier scrapes
// have shown.
func (c *serverCollector) collectAlarms(ch chan<- prometheus.Metric) {
	active := map[[2]string]bool{}
	for _, a := range c.srv.cfg.Space.Alarms() {
		active[[2]string{fmt.Sprintf("%x", a.MemberID), a.Alarm.String()}] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for alarm := range active {
		if len(c.mu.alarms) < maxTexts {
			c.mu.alarms[alarm] = true
		}
	}
	for alarm := range c.mu.alarms {
		ch <- prometheus.MustNewConstMetric(c.alarms, prometheus.GaugeValue, truth(active[alarm]), alarm[0], alarm[1])
	}
}

// collectChecks shows how the probes ended; one that was never made is not shown.
func (c *serverCollector) collectChecks(ch chan<- prometheus.Metric) {
	for _, p := range c.srv.probes {
		good, bad := p.good.Load(), p.bad.Load()
		if good+bad == 0 {
			continue
		}
		kind := strings.TrimPrefix(p.root, "/")
		ch <- prometheus.MustNewConstMetric(c.check, prometheus.GaugeValue, truth(p.healthy.Load()), kind, p.name)
		for status, n := range map[string]uint64{"success": good, "error": bad} {
			if n > 0 {
				ch <- prometheus.MustNewConstMetric(c.checks, prometheus.CounterValue, float64(n), kind, p.name, status)
			}
		}
	}
}
