package peer

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// heartbeats watches whether this leader sends its heartbeats in time. Two
// intervals are tolerated, as in etcd; beyond, the process was kept from
// running, or the disk from writing, for long enough to endanger its lead.
type heartbeats struct {
	interval time.Duration
	log      *zap.Logger
	last     map[uint64]time.Time // by peer; owned by Send
	late     atomic.Uint64
}

// beatsForgotten: a gap of this many intervals is no delay but a time without
// leadership.
const beatsForgotten = 100

func (h *heartbeats) init(interval time.Duration, log *zap.Logger) {
	h.interval, h.log, h.last = interval, log, map[uint64]time.Time{}
}

// sent is called for every heartbeat of this leader.
func (h *heartbeats) sent(to uint64) {
	if h.interval <= 0 {
		return
	}
	now := time.Now()
	gap := now.Sub(h.last[to])
	h.last[to] = now
	if gap <= 2*h.interval || gap > beatsForgotten*h.interval {
		return
	}
	h.late.Add(1)
	h.log.Warn("leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk",
		hexID("to", to), zap.Duration("heartbeat-interval", h.interval), zap.Duration("expected-duration", 2*h.interval),
		zap.Duration("exceeded-duration", gap-2*h.interval))
}
