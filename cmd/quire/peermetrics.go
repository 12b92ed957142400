package main

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"quire/raft/peer"
)

// peerMetrics shows what the transport counts of each peer, under etcd's names.
// As in etcd a family appears with its first peer.
type peerMetrics struct {
	transport *peer.Transport
	local     string

	active, disconnected                                   *prometheus.Desc
	sent, received, sendFailures, receiveFailures, rtt     *prometheus.Desc
	sendDone, sendInFlight, sendFailed, sendSeconds        *prometheus.Desc
	receiveDone, receiveInFlight, receiveFailed, receiveIn *prometheus.Desc
}

func newPeerMetrics(t *peer.Transport, local uint64) *peerMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("etcd_network_"+name, help, labels, nil)
	}
	return &peerMetrics{
		transport: t, local: hex(local),
		active:          desc("active_peers", "The current number of active peer connections.", "Local", "Remote"),
		disconnected:    desc("disconnected_peers_total", "The total number of disconnected peers.", "Local", "Remote"),
		sent:            desc("peer_sent_bytes_total", "The total number of bytes sent to peers.", "To"),
		received:        desc("peer_received_bytes_total", "The total number of bytes received from peers.", "From"),
		sendFailures:    desc("peer_sent_failures_total", "The total number of send failures from peers.", "To"),
		receiveFailures: desc("peer_received_failures_total", "The total number of receive failures from peers.", "From"),
		rtt:             desc("peer_round_trip_time_seconds", "Round-Trip-Time histogram between peers", "To"),
		sendDone:        desc("snapshot_send_success", "Total number of successful snapshot sends", "To"),
		sendInFlight:    desc("snapshot_send_inflights_total", "Total number of inflight snapshot sends", "To"),
		sendFailed:      desc("snapshot_send_failures", "Total number of snapshot send failures", "To"),
		sendSeconds:     desc("snapshot_send_total_duration_seconds", "Total latency distributions of v3 snapshot sends", "To"),
		receiveDone:     desc("snapshot_receive_success", "Total number of successful snapshot receives", "From"),
		receiveInFlight: desc("snapshot_receive_inflights_total", "Total number of inflight snapshot receives", "From"),
		receiveFailed:   desc("snapshot_receive_failures", "Total number of snapshot receive failures", "From"),
		receiveIn:       desc("snapshot_receive_total_duration_seconds", "Total latency distributions of v3 snapshot receives", "From"),
	}
}

// Describe implements prometheus.Collector.
func (p *peerMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		p.active, p.disconnected, p.sent, p.received, p.sendFailures, p.receiveFailures, p.rtt,
		p.sendDone, p.sendInFlight, p.sendFailed, p.sendSeconds, p.receiveDone, p.receiveInFlight, p.receiveFailed, p.receiveIn,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (p *peerMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range p.transport.Stats() {
		id := strconv.FormatUint(s.ID, 16)
		counter := func(d *prometheus.Desc, v uint64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
		}
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
		}
		histogram := func(d *prometheus.Desc, h peer.Histogram) {
			ch <- prometheus.MustNewConstHistogram(d, h.Count, h.Sum, h.Buckets, id)
		}
		active := 0.0
		if s.Active {
			active = 1
		}
		gauge(p.active, active, p.local, id)
		counter(p.disconnected, s.Disconnects, p.local, id)
		counter(p.sent, s.SentBytes, id)
		counter(p.received, s.ReceivedBytes, id)
		counter(p.sendFailures, s.SendFailures, id)
		counter(p.receiveFailures, s.ReceiveFailures, id)
		histogram(p.rtt, s.RoundTrips)
		for _, x := range []struct {
			of                            peer.Transfers
			done, flying, failed, seconds *prometheus.Desc
		}{
			{s.SnapshotsSent, p.sendDone, p.sendInFlight, p.sendFailed, p.sendSeconds},
			{s.SnapshotsTaken, p.receiveDone, p.receiveInFlight, p.receiveFailed, p.receiveIn},
		} {
			if x.of.Done+x.of.Failed == 0 && x.of.InFlight == 0 {
				continue // as in etcd, of whom there was none there is no metric
			}
			counter(x.done, x.of.Done, id)
			gauge(x.flying, float64(x.of.InFlight), id)
			counter(x.failed, x.of.Failed, id)
			histogram(x.seconds, x.of.Seconds)
		}
	}
}
