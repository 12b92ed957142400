package rpc

import (
	"fmt"
	"maps"
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// registerMetrics adds this package's collectors to the registry. All of them
// read what is counted anyway when somebody scrapes.
func (s *Server) registerMetrics() error {
	for _, c := range []prometheus.Collector{newCallCollector(s), newServerCollector(s)} {
		if err := s.cfg.Registry.Register(c); err != nil {
			return fmt.Errorf("rpc: metrics: %w", err)
		}
	}
	return nil
}

// callCollector shows the calls per method: go-grpc-middleware's names, which
// etcd's dashboards use, and etcd's request histogram.
type callCollector struct {
	srv                              *Server
	started, handled, received, sent *prometheus.Desc
	request, handling                *prometheus.Desc
}

func newCallCollector(s *Server) *callCollector {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append(more, labels...), nil)
	}
	return &callCollector{
		srv:      s,
		started:  desc("grpc_server_started_total", "Total number of RPCs started on the server."),
		handled:  desc("grpc_server_handled_total", "Total number of RPCs completed on the server, regardless of success or failure.", "grpc_code"),
		received: desc("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server."),
		sent:     desc("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server."),
		handling: desc("grpc_server_handling_seconds", "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server."),
		request: prometheus.NewDesc("etcd_server_request_duration_seconds",
			"Response latency distribution in seconds for each type.", []string{"type", "success"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *callCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.started, c.handled, c.received, c.sent, c.handling, c.request} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *callCollector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.srv.methods {
		counter := func(d *prometheus.Desc, v uint64, more ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append(more, m.kind(), m.Service, m.Name)...)
		}
		counter(c.started, m.stats.started.Load())
		counter(c.received, m.stats.received.Load())
		counter(c.sent, m.stats.sent.Load())
		for code := range m.stats.handled {
			counter(c.handled, m.stats.handled[code].Load(), codes.Code(code).String())
		}
		if m.streaming() {
			continue
		}
		c.histograms(ch, m)
	}
}

func (c *callCollector) histograms(ch chan<- prometheus.Metric, m *Method) {
	ok, okSum, okBuckets := m.stats.took[0].snapshot()
	bad, badSum, badBuckets := m.stats.took[1].snapshot()
	if t := requestType(m); t != "" {
		if ok > 0 {
			ch <- prometheus.MustNewConstHistogram(c.request, ok, okSum, okBuckets, t, "true")
		}
		if bad > 0 {
			ch <- prometheus.MustNewConstHistogram(c.request, bad, badSum, badBuckets, t, "false")
		}
	}
	if c.srv.cfg.ExtensiveMetrics {
		both := maps.Clone(okBuckets) // the metrics above keep theirs
		for bound, n := range badBuckets {
			both[bound] += n
		}
		ch <- prometheus.MustNewConstHistogram(c.handling, ok+bad, okSum+badSum, both, m.kind(), m.Service, m.Name)
	}
}

// requestType is etcd's name for the requests that its histogram covers.
func requestType(m *Method) string {
	switch m.Service {
	case kvService, leaseService:
		if m.Name == "Compact" {
			return "Compaction"
		}
		return m.Name
	}
	if m.Name == "Alarm" {
		return m.Name
	}
	return ""
}

// reading is one metric without labels that is read when asked for.
type reading struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func() float64
}

// serverCollector shows the member's state under etcd's names.
type serverCollector struct{ readings []reading }

func newServerCollector(s *Server) *serverCollector {
	c := &serverCollector{}
	c.addServer(s)
	c.addStore(s)
	c.fixed("etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.", "server_version", s.cfg.Version)
	c.fixed("etcd_server_go_version", "Which Go version server is running with. 1 for 'server_go_version' label with current version.", "server_go_version", runtime.Version())
	c.fixed("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.", "server_id", fmt.Sprintf("%x", s.cfg.MemberID))
	// The label is the version without its patch number.
	v := s.cfg.Upkeep.ClusterVersion()
	c.fixed("etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version", "cluster_version", v[:max(strings.LastIndex(v, "."), 0)])
	return c
}

func (c *serverCollector) addServer(s *Server) {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	status := s.cfg.RaftStatus
	c.add("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", gauge, func() float64 { return truth(status().Lead != 0) })
	c.add("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", gauge, func() float64 { return truth(status().IsLeader) })
	c.add("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", gauge, func() float64 { return truth(status().IsLearner) })
	c.add("etcd_server_proposals_committed_total", "The total number of consensus proposals committed.", gauge, func() float64 { return float64(status().Commit) })
	c.add("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", gauge, func() float64 { return float64(status().Applied) })
	c.add("etcd_server_proposals_pending", "The current number of pending proposals to commit.", gauge, func() float64 { return float64(s.proposals.pending.Load()) })
	c.add("etcd_server_proposals_failed_total", "The total number of failed proposals seen.", counter, func() float64 { return float64(s.proposals.failed.Load()) })
	c.add("etcd_server_health_success", "The total number of successful health checks", counter, func() float64 { return float64(s.http.healthy.Load()) })
	c.add("etcd_server_health_failures", "The total number of failed health checks", counter, func() float64 { return float64(s.http.unhealthy.Load()) })
	c.add("etcd_network_client_grpc_sent_bytes_total", "The total number of bytes sent to grpc clients.", counter, func() float64 { return float64(s.net.sent.Load()) })
	c.add("etcd_network_client_grpc_received_bytes_total", "The total number of bytes received from grpc clients.", counter, func() float64 { return float64(s.net.received.Load()) })
}

func (c *serverCollector) addStore(s *Server) {
	gauge := prometheus.GaugeValue
	answered := func(name, method, help string) {
		stats := &s.byName[method].stats
		c.add(name, help, prometheus.CounterValue, func() float64 { return float64(stats.handled[codes.OK].Load()) })
	}
	answered("etcd_mvcc_range_total", rangeFullName, "Total number of ranges seen by this member.")
	answered("etcd_mvcc_txn_total", "/"+kvService+"/Txn", "Total number of txns seen by this member.")
	answered("etcd_debugging_lease_granted_total", "/"+leaseService+"/LeaseGrant", "The total number of granted leases.")
	answered("etcd_debugging_lease_revoked_total", "/"+leaseService+"/LeaseRevoke", "The total number of revoked leases.")
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
}

// Collect implements prometheus.Collector.
func (c *serverCollector) Collect(ch chan<- prometheus.Metric) {
	for _, r := range c.readings {
		ch <- prometheus.MustNewConstMetric(r.desc, r.kind, r.read())
	}
}
