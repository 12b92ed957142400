package rpc

import (
	"sync/atomic"

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
}

func (m *methodStats) end(code codes.Code) {
	if int(code) >= len(m.handled) {
		code = codes.Unknown
	}
	m.handled[code].Add(1)
}
