package rpc

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// callCollector shows the calls per method: go-grpc-middleware's names, which
// etcd's dashboards use, and etcd's own.
type callCollector struct {
	srv                              *Server
	started, handled, received, sent *prometheus.Desc
	request, ranges                  *prometheus.Desc
	clients, failures                *prometheus.Desc
}

func newCallCollector(s *Server) *callCollector {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	perMethod := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append(more, labels...), nil)
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &callCollector{
		srv:      s,
		started:  perMethod("grpc_server_started_total", "Total number of RPCs started on the server."),
		handled:  perMethod("grpc_server_handled_total", "Total number of RPCs completed on the server, regardless of success or failure.", "grpc_code"),
		received: perMethod("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server."),
		sent:     perMethod("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server."),
		request:  desc("etcd_server_request_duration_seconds", "Response latency distribution in seconds for each type.", "type", "success"),
		ranges:   desc("etcd_server_range_duration_seconds", "Time of Range calls, from the request to the answer.", "success"),
		clients:  desc("etcd_server_client_requests_total", "The total number of client requests per client version.", "type", "client_api_version"),
		failures: desc("etcd_network_server_stream_failures_total", "The total number of stream failures from the local server.", "Type", "API"),
	}
}

// Describe implements prometheus.Collector.
func (c *callCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.started, c.handled, c.received, c.sent, c.request, c.ranges, c.clients, c.failures} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *callCollector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.srv.methods {
		c.collectCalls(ch, m)
		c.collectTimes(ch, m)
		c.collectFailures(ch, m)
	}
	for _, m := range c.srv.health.methods {
		c.collectCalls(ch, m)
	}
	c.collectClients(ch)
}

func (c *callCollector) collectCalls(ch chan<- prometheus.Metric, m *Method) {
	counter := func(d *prometheus.Desc, v uint64, more ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append(more, m.kind(), m.Service, m.Name)...)
	}
	counter(c.started, m.stats.started.Load())
	counter(c.received, m.stats.received.Load())
	counter(c.sent, m.stats.sent.Load())
	for code := range m.stats.handled {
		counter(c.handled, m.stats.handled[code].Load(), codes.Code(code).String())
	}
}

func (c *callCollector) collectTimes(ch chan<- prometheus.Metric, m *Method) {
	if m.streaming() {
		return
	}
	show := func(d *prometheus.Desc, t counts, labels ...string) {
		if t.count > 0 {
			ch <- prometheus.MustNewConstHistogram(d, t.count, t.sumSeconds, t.byBound, labels...)
		}
	}
	for failed, success := range []string{"true", "false"} {
		if t := requestType(m); t != "" {
			show(c.request, m.stats.request(failed), t, success)
		}
		show(c.request, m.stats.readTook[failed].snapshot(), "ReadonlyTxn", success)
		if m.stats.fine != nil {
			show(c.ranges, m.stats.fine[failed].fine(), success)
		}
	}
}

// observeHandling adds a histogram of every method's times, which costs a call
// some 50 ns.
func (s *Server) observeHandling() error {
	if !s.cfg.ExtensiveMetrics {
		return nil
	}
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "grpc_server_handling_seconds", Buckets: prometheus.DefBuckets,
		Help: "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
	}, []string{"grpc_type", "grpc_service", "grpc_method"})
	for _, m := range slices.Concat(s.methods, s.health.methods) {
		m.stats.handling = v.WithLabelValues(m.kind(), m.Service, m.Name)
	}
	return s.cfg.Registry.Register(v)
}

// requestType is etcd's name for the requests that its histogram covers.
func requestType(m *Method) string {
	switch {
	case m.FullName() == compactFullName:
		return "Compaction"
	case m.Service == kvService, m.Name == "LeaseGrant", m.Name == "LeaseRevoke", m.Name == "Alarm":
		return m.Name
	case m.Service == authService && strings.HasPrefix(m.Name, "Auth"):
		return m.Name
	case m.Service == authService:
		return "Auth" + m.Name
	}
	return ""
}

// collectFailures shows the streams that broke off through no fault of the
// client.
func (c *callCollector) collectFailures(ch chan<- prometheus.Metric, m *Method) {
	api := map[string]string{"Watch": "watch", "LeaseKeepAlive": "lease-keepalive"}[m.Name]
	if api == "" {
		return
	}
	for kind, n := range map[string]uint64{"send": m.stats.sendFails.Load(), "receive": m.stats.receiveFail.Load()} {
		if n > 0 {
			ch <- prometheus.MustNewConstMetric(c.failures, prometheus.CounterValue, float64(n), kind, api)
		}
	}
}

func (c *callCollector) collectClients(ch chan<- prometheus.Metric) {
	sums := map[[2]string]uint64{}
	for _, m := range slices.Concat(c.srv.methods, c.srv.health.methods) {
		kind := "unary"
		if m.streaming() {
			kind = "stream"
		}
		m.stats.versions.settle(m.stats.started.Load())
		m.stats.versions.byVersion.each(func(version string, n uint64) { sums[[2]string{kind, version}] += n })
	}
	for key, n := range sums {
		ch <- prometheus.MustNewConstMetric(c.clients, prometheus.CounterValue, float64(n), key[0], key[1])
	}
}
