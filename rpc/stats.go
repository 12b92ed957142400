package rpc

import (
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// netStats counts message bytes over all client connections.
type netStats struct {
	sent, received atomic.Uint64
}

// proposalStats counts what went to raft.
type proposalStats struct {
	pending atomic.Int64
	failed  atomic.Uint64
}

// methodStats counts one method's calls; the metrics collector reads it.
type methodStats struct {
	started, received, sent atomic.Uint64
	handled                 [codes.Unauthenticated + 1]atomic.Uint64
	took                    [2]histogram // of unary calls: succeeded, failed
}

func (m *methodStats) end(code codes.Code) {
	if int(code) >= len(m.handled) {
		code = codes.Unknown
	}
	m.handled[code].Add(1)
}

// endUnary counts a unary call's end.
func (m *methodStats) endUnary(code codes.Code, took time.Duration) {
	m.end(code)
	if code == codes.OK {
		m.sent.Add(1)
		m.took[0].observe(took)
	} else {
		m.took[1].observe(took)
	}
}

// httpStats counts the answers of /health.
type httpStats struct {
	healthy, unhealthy atomic.Uint64
}
