package peer

import (
	"sync/atomic"
	"time"
)

// counters are what is counted of one peer; they only grow.
type counters struct {
	sentBytes, receivedBytes      atomic.Uint64
	sendFailures, receiveFailures atomic.Uint64
	disconnects                   atomic.Uint64
	snapshotsSent, snapshotsTaken transfers
	rtt                           histogram
	lastRTT                       atomic.Int64
}

func (c *counters) sent(n int)     { c.sentBytes.Add(uint64(n)) }
func (c *counters) received(n int) { c.receivedBytes.Add(uint64(n)) }

func (c *counters) roundTrip(d time.Duration) {
	c.lastRTT.Store(int64(d))
	c.rtt.observe(d)
}

// transfers counts the snapshots of one direction.
type transfers struct {
	inFlight     atomic.Int64
	done, failed atomic.Uint64
	took         histogram
}

func (t *transfers) end(began time.Time, err error) {
	t.inFlight.Add(-1)
	if err != nil {
		t.failed.Add(1)
		return
	}
	t.done.Add(1)
	t.took.observe(time.Since(began))
}

// histogramBuckets is the number of buckets; each is twice as wide as the one
// before.
const histogramBuckets = 16

// histogram counts durations. Bucket i holds those up to first·2^i.
type histogram struct {
	first  time.Duration // of the smallest bucket; set before use
	counts [histogramBuckets + 1]atomic.Uint64
	sum    atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i, limit := 0, h.first
	for i < histogramBuckets && d > limit {
		i, limit = i+1, 2*limit
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Histogram is a distribution of durations in seconds, as Prometheus wants it:
// for each upper bound the number of values up to it.
type Histogram struct {
	Count   uint64
	Sum     float64
	Buckets map[float64]uint64
}

func (h *histogram) read(buckets int) Histogram {
	out := Histogram{Buckets: make(map[float64]uint64, buckets), Sum: time.Duration(h.sum.Load()).Seconds()}
	limit := h.first
	for i := range h.counts {
		out.Count += h.counts[i].Load()
		if i < buckets {
			out.Buckets[limit.Seconds()] = out.Count
		}
		limit *= 2
	}
	return out
}

// Transfers are the snapshots of one direction.
type Transfers struct {
	InFlight     int64
	Done, Failed uint64
	Seconds      Histogram
}

func (t *transfers) read() Transfers {
	return Transfers{t.inFlight.Load(), t.done.Load(), t.failed.Load(), t.took.read(transferBuckets)}
}

// etcd's buckets: round trips from 0.1 ms, transfers from 0.1 s.
const (
	firstRoundTrip  = 100 * time.Microsecond
	firstTransfer   = 100 * time.Millisecond
	roundTripBounds = 16
	transferBuckets = 10
)

func newCounters() *counters {
	c := &counters{}
	c.rtt.first = firstRoundTrip
	c.snapshotsSent.took.first, c.snapshotsTaken.took.first = firstTransfer, firstTransfer
	return c
}

// Stats is what is known of one peer.
type Stats struct {
	ID                            uint64
	Active                        bool
	SentBytes, ReceivedBytes      uint64
	SendFailures, ReceiveFailures uint64
	Disconnects                   uint64
	RoundTrips                    Histogram
	SnapshotsSent, SnapshotsTaken Transfers
}

func (c *counters) read(id uint64, active bool) Stats {
	return Stats{
		ID: id, Active: active,
		SentBytes: c.sentBytes.Load(), ReceivedBytes: c.receivedBytes.Load(),
		SendFailures: c.sendFailures.Load(), ReceiveFailures: c.receiveFailures.Load(),
		Disconnects: c.disconnects.Load(), RoundTrips: c.rtt.read(roundTripBounds),
		SnapshotsSent: c.snapshotsSent.read(), SnapshotsTaken: c.snapshotsTaken.read(),
	}
}
