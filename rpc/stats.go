package rpc

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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

// readStats counts linearizable reads that had to ask the cluster.
type readStats struct {
	slow, failed atomic.Uint64
}

// slowRead is when a read that waits for the cluster counts as slow: etcd asks
// again after this time.
const slowRead = 500 * time.Millisecond

// ended notes how a read's question to the cluster was answered.
func (r *readStats) ended(err error, took time.Duration) {
	if err != nil {
		r.failed.Add(1)
	} else if took > slowRead {
		r.slow.Add(1)
	}
}

// methodStats counts one method's calls; the metrics collector reads it.
type methodStats struct {
	started, received, sent atomic.Uint64
	handled                 [codes.Unauthenticated + 1]atomic.Uint64
	inside                  atomic.Uint64 // calls of the process itself that succeeded

	// Of unary calls, succeeded and failed. Range has fine instead of took;
	// transactions that only read have readTook.
	took, readTook [2]histogram
	fine           *[2]fineHistogram
	// handling is told the time of every call, with extensive metrics only.
	handling prometheus.Observer

	// Of streams.
	open                   atomic.Int64
	sendFails, receiveFail atomic.Uint64 // through no fault of the client

	// versions is whose calls they were.
	versions versionStats
}

// end counts the end of a call or a stream.
func (m *methodStats) end(code codes.Code, took time.Duration) {
	if int(code) >= len(m.handled) {
		code = codes.Unknown
	}
	m.handled[code].Add(1)
	if m.handling != nil {
		m.handling.Observe(took.Seconds())
	}
}

// endUnary counts a unary call's end.
func (m *methodStats) endUnary(code codes.Code, took time.Duration, onlyReads bool) {
	m.end(code, took)
	m.sent.Add(1) // an error is a message too, as etcd's library counts
	failed := 1
	if code == codes.OK {
		failed = 0
	}
	switch {
	case m.fine != nil:
		m.fine[failed].observe(took)
	case onlyReads:
		m.readTook[failed].observe(took)
	default:
		m.took[failed].observe(took)
	}
}

// request returns the times of the calls that succeeded or failed, without
// transactions that only read.
func (m *methodStats) request(failed int) counts {
	if m.fine != nil {
		return m.fine[failed].coarse()
	}
	return m.took[failed].snapshot()
}

// httpStats counts the answers of /health.
type httpStats struct {
	healthy, unhealthy atomic.Uint64
}

// tallies counts by a text that few different ones are expected of.
type tallies struct {
	mu     sync.Mutex
	byText map[string]uint64
}

// maxTexts bounds a tallies; what comes beyond is counted as one.
const maxTexts = 32

func (t *tallies) add(text string, n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byText == nil {
		t.byText = map[string]uint64{}
	}
	if _, known := t.byText[text]; !known && len(t.byText) >= maxTexts {
		text = "other"
	}
	t.byText[text] += n
}

func (t *tallies) each(fn func(text string, n uint64)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for text, n := range t.byText {
		fn(text, n)
	}
}
