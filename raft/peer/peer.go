package peer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// peer is one other member: the lanes to it, the connections from it, and what
// is known of its health.
//
// Goroutines: one per lane, one for reports to raft, one per connection from
// the peer and one that writes on it. stop ends them.
type peer struct {
	t       *Transport
	id      uint64
	address address
	stats   *counters
	lanes   [calls + 1]*lane // by kind
	// stranger: not in the membership here, known from its hello.
	stranger atomic.Bool
	// serverVersion is what the peer said last; nil: nothing yet.
	serverVersion atomic.Pointer[string]
	complaints    complaints
	lost          chan struct{} // messages were lost; holds one
	acked         acked         // owned by Send
	cancel        context.CancelFunc
	ctx           context.Context

	mu struct {
		sync.Mutex
		since    time.Time // the control lane is open; zero: it is not
		fault    error     // why not
		changed  [calls + 1]chan struct{}
		inbound  map[*inbound]bool
		stopped  bool
		offering *offer // the snapshot that the peer was told of
	}
}

// startPeer begins to dial. t.mu is held.
func (t *Transport) startPeer(id uint64, urls []string) *peer {
	p := &peer{t: t, id: id, stats: newCounters(), lost: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(t.ctx)
	p.address.set(urls)
	p.mu.inbound = map[*inbound]bool{}
	for _, k := range []kind{control, bulk, calls} {
		p.mu.changed[k] = make(chan struct{})
		p.lanes[k] = newLane(t, p, k)
		t.wg.Add(1)
		go func() {
			defer t.wg.Done()
			p.lanes[k].run(p.ctx)
		}()
	}
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		p.report()
	}()
	return p
}

// stop ends everything; it does not wait.
func (p *peer) stop() {
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.stopped = true
	p.mu.since = time.Time{}
	for in := range p.mu.inbound {
		in.link.close(errClosed)
	}
}

// reportInterval is how often the report loop looks at snapshots under way.
const reportInterval = time.Second

// report tells raft what it must know of this peer, on a goroutine of its own:
// Send must not call back into raft.
func (p *peer) report() {
	t := time.NewTicker(reportInterval)
	defer t.Stop()
	for {
		select {
		case <-p.lost:
			p.t.cfg.Raft.ReportUnreachable(p.id)
		case now := <-t.C:
			p.expireOffer(now)
		case <-p.ctx.Done():
			p.endOffer(nil, fmt.Errorf("peer %x: %w", p.id, errClosed))
			return
		}
	}
}

// failed notes that a message was dropped.
func (p *peer) failed(m *raftpb.Message) {
	p.stats.sendFailures.Add(1)
	switch m.GetType() {
	case raftpb.MsgSnap:
		p.mu.Lock()
		if p.mu.offering != nil {
			p.mu.offering.dead = true
		}
		p.mu.Unlock()
	case raftpb.MsgApp, raftpb.MsgProp:
		p.unreachable()
	}
}

// unreachable has raft told that what it sent may be lost.
func (p *peer) unreachable() {
	select {
	case p.lost <- struct{}{}:
	default:
	}
}

// up notes that a lane is open.
func (p *peer) up(k kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.mu.changed[k])
	p.mu.changed[k] = make(chan struct{})
	p.complaints.forget()
	if k != control || p.mu.stopped {
		return
	}
	p.mu.since, p.mu.fault = time.Now(), nil
	p.t.log.Info("peer became active", hexID("peer-id", p.id))
}

// down notes that a lane was lost.
func (p *peer) down(k kind, err error) {
	if k != calls {
		p.unreachable()
	}
	if k == control {
		p.inactive(k, err)
	}
}

func (p *peer) dialFailed(k kind, err error) {
	p.t.complain(p, k, err)
	if k != calls {
		p.stats.sendFailures.Add(1)
	}
	if k == control {
		p.inactive(k, err)
	}
	if isRemoval(err) {
		p.t.removed.Do(func() {
			p.t.log.Warn("this member was removed from the cluster, says a peer", hexID("remote-peer-id", p.id))
			go p.t.cfg.OnRemoved()
		})
	}
}

func (p *peer) inactive(k kind, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.fault = err
	if p.mu.since.IsZero() || p.mu.stopped {
		return
	}
	p.mu.since = time.Time{}
	p.stats.disconnects.Add(1)
	p.t.log.Warn("peer became inactive (message send to peer failed)", hexID("peer-id", p.id), zap.String("connection", k.String()), zap.Error(err))
}

func (p *peer) activeSince() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.since
}

func (p *peer) lastFault() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.fault
}

// opened returns a channel that is closed when the lane opens next.
func (p *peer) opened(k kind) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.changed[k]
}

// heard notes that the peer has dialed us: it is alive, so the lanes need not
// wait to dial it.
func (p *peer) heard() {
	for _, k := range []kind{control, bulk} {
		if p.lanes[k].open.Load() == nil {
			p.lanes[k].dialNow()
		}
	}
}
