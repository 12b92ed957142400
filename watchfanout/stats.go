package watchfanout

import "sync/atomic"

// Stats are gauges and counters since the hub was made.
type Stats struct {
	Streams       int64
	Watchers      int64
	SlowWatchers  int64 // not synced
	PendingEvents int64 // queued, each counted for every cursor that waits for it
	PendingBytes  int64 // what all queues keep alive

	EventsSent        uint64
	Demotions         uint64 // cursors that left the live queue for history
	Sheds             uint64 // queues dropped to stay in the total budget
	HistoryReads      uint64
	HistoryReuses     uint64 // chunks that another stream had read
	HistoryErrors     uint64
	CompactedWatchers uint64 // watchers canceled because history was gone
	RevokedWatchers   uint64 // watchers canceled because the right to them was gone
}

type counters struct {
	eventsSent, demotions, sheds, historyReads, historyReuses, historyErrors, compacted, revoked atomic.Uint64
}

// Stats returns the current figures.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	streams := len(h.streams)
	h.mu.Unlock()
	c := &h.counts
	return Stats{
		Streams:           int64(streams),
		Watchers:          h.watchers.Load(),
		SlowWatchers:      h.slow.Load(),
		PendingEvents:     h.pendingEvents.Load(),
		PendingBytes:      h.retained.Load(),
		EventsSent:        c.eventsSent.Load(),
		Demotions:         c.demotions.Load(),
		Sheds:             c.sheds.Load(),
		HistoryReads:      c.historyReads.Load(),
		HistoryReuses:     c.historyReuses.Load(),
		HistoryErrors:     c.historyErrors.Load(),
		CompactedWatchers: c.compacted.Load(),
		RevokedWatchers:   c.revoked.Load(),
	}
}
