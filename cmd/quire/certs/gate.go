package certs

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// stalledAfter is how long a client may leave a handshake waiting before
	// another one may take its place while the gate is full.
	stalledAfter = time.Second
	// gatePoll is how often a connection that waits at a full gate looks again
	// for one that has stalled meanwhile.
	gatePoll = 50 * time.Millisecond
)

// pending is a connection in its handshake. It notes since when it waits for its
// client, which tells a silent client from a busy server.
type pending struct {
	net.Conn
	waiting atomic.Int64 // nanoseconds: in Read since; 0: not in Read
	evicted atomic.Bool
	done    atomic.Bool // the handshake is over: Read takes no more notes
	offered []string    // by ALPN; the handshake's goroutine's
}

// Read implements net.Conn.
func (p *pending) Read(b []byte) (int, error) {
	if p.done.Load() {
		return p.Conn.Read(b)
	}
	p.waiting.Store(time.Now().UnixNano())
	n, err := p.Conn.Read(b)
	p.waiting.Store(0)
	return n, err
}

// gate is the bounded set of connections in their handshake.
type gate struct {
	limit int
	freed chan struct{} // cap 1: a place has become free

	mu struct {
		sync.Mutex
		in     map[*pending]struct{}
		closed bool
	}
	evictions atomic.Uint64
}

func newGate(limit int) *gate {
	g := &gate{limit: limit, freed: make(chan struct{}, 1)}
	g.mu.in = make(map[*pending]struct{})
	return g
}

// enter waits until there is room for p or one that has stalled makes room. It
// fails only when the gate is closed.
func (g *gate) enter(p *pending) bool {
	for {
		entered, closed := g.try(p)
		if entered || closed {
			return entered
		}
		select {
		case <-g.freed:
		case <-time.After(gatePoll):
		}
	}
}

func (g *gate) try(p *pending) (entered, closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return false, true
	}
	if len(g.mu.in) >= g.limit {
		out := g.stalledLocked()
		if out == nil {
			return false, false
		}
		delete(g.mu.in, out)
		out.evicted.Store(true)
		g.evictions.Add(1)
		interrupt(out)
	}
	g.mu.in[p] = struct{}{}
	return true, false
}

// stalledLocked returns the one that has waited longest for its client, if that
// is too long.
func (g *gate) stalledLocked() *pending {
	var out *pending
	longest := time.Now().Add(-stalledAfter).UnixNano()
	for p := range g.mu.in {
		if since := p.waiting.Load(); since != 0 && since < longest {
			out, longest = p, since
		}
	}
	return out
}

// leave makes room.
func (g *gate) leave(p *pending) {
	g.mu.Lock()
	delete(g.mu.in, p)
	g.mu.Unlock()
	select {
	case g.freed <- struct{}{}:
	default:
	}
}

func (g *gate) size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.mu.in)
}

// close ends the handshakes that are under way and lets no other one in.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.closed = true
	for p := range g.mu.in {
		interrupt(p)
	}
}

// interrupt makes every read and write of the handshake fail at once. It does
// not close the connection, which is its goroutine's to close.
func interrupt(p *pending) { _ = p.SetDeadline(time.Unix(1, 0)) }
