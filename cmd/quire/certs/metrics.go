package certs

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Collector returns the store's metrics. etcd has none of this kind, so the
// names are quire's.
func (s *Store) Collector() prometheus.Collector {
	endpoint := prometheus.Labels{"endpoint": s.opts.Endpoint}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("quire_tls_"+name, help, labels, endpoint)
	}
	return &collector{
		store:      s,
		ends:       desc("not_after_seconds", "When a certificate in force expires, or a revocation list is due, in seconds since 1970.", "kind", "name", "serial"),
		reloads:    desc("reloads_total", "How often changed TLS files were taken over (result=ok) or refused because they were broken (result=failed).", "result"),
		refused:    desc("refused_connections_total", "Connections that failed their handshake."),
		evicted:    desc("evicted_handshakes_total", "Handshakes of silent clients that made room for others."),
		handshakes: desc("handshakes_pending", "Handshakes that are under way."),
	}
}

type collector struct {
	store                                       *Store
	ends, reloads, refused, evicted, handshakes *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.ends, c.reloads, c.refused, c.evicted, c.handshakes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. It looks after the files too, so that
// a scrape sees what a connection would.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.store
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	seen := map[[3]string]bool{} // a bundle may hold a certificate twice
	for _, f := range s.current().facts {
		if id := [3]string{f.kind, f.name, f.serial}; !seen[id] {
			seen[id] = true
			gauge(c.ends, float64(f.ends.Unix()), f.kind, strings.ToValidUTF8(f.name, "?"), f.serial)
		}
	}
	counter(c.reloads, s.reloads.Load(), "ok")
	counter(c.reloads, s.failures.Load(), "failed")
	counter(c.refused, s.refusals.total.Load())
	counter(c.evicted, s.gate.evictions.Load())
	gauge(c.handshakes, float64(s.gate.size()))
}
