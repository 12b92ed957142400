package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// Raft is the consensus member that the messages are for.
type Raft interface {
	// StepAll takes messages from a peer, in order.
	StepAll(ms []*raftpb.Message)
	ReportUnreachable(id uint64)
	ReportSnapshot(id uint64, ok bool)
}

// Config is what a Transport needs. Zero values take the defaults.
type Config struct {
	ID, ClusterID uint64
	// ServerVersion is told to peers, for their log.
	ServerVersion string
	// PeerURLs are where this member can be reached. A peer that does not know
	// it yet, because it lags, answers there.
	PeerURLs []string
	// TLS gives the configuration for dialing an https or unixs URL, anew for
	// each connection. nil: those cannot be dialed.
	TLS func() *tls.Config
	// LocalAddr is the address from which TCP connections are dialed; nil: any.
	LocalAddr net.IP

	Raft Raft
	// Removed tells whether a member was removed from the cluster: it is not
	// let in any more.
	Removed func(id uint64) bool
	// OnRemoved is called once when a peer says that this member was removed.
	OnRemoved func()
	// Handlers answer the calls of other members. Not changed after New.
	Handlers map[Method]Handler
	// Snapshots is where content of snapshots comes from and goes to; nil: a
	// member can neither send nor take one.
	Snapshots Snapshots
	// SnapshotBytesPerSecond bounds what is sent of snapshots, to all peers
	// together; 0: no bound.
	SnapshotBytesPerSecond int64

	// DialTimeout bounds the opening of a connection with TLS and greeting
	// (default 2 s).
	DialTimeout time.Duration
	// ReadTimeout is how long a connection may be silent (default 5 s; the
	// dialer asks every second), WriteTimeout how long 256 KiB may take to
	// leave (default 5 s).
	ReadTimeout, WriteTimeout time.Duration
	// HeartbeatInterval is raft's; a leader that sends its heartbeats much
	// later complains. 0: it does not.
	HeartbeatInterval time.Duration

	Logger *zap.Logger
}

// What may wait for one connection. bulk is above what raft lets be under way
// to one follower, so that raft's flow control acts first and losses are rare.
const (
	controlLimit = 1 << 20
	bulkLimit    = 24 << 20
	callsLimit   = 16 << 20
	keepAlive    = 15 * time.Second
)

func (k kind) queueLimit() int {
	switch k {
	case control:
		return controlLimit
	case bulk:
		return bulkLimit
	case transfer:
		return maxReadsWaiting * (snapChunk + headBytes + responseHead)
	}
	return callsLimit
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&c.DialTimeout, 2 * time.Second}, {&c.ReadTimeout, 5 * time.Second}, {&c.WriteTimeout, 5 * time.Second}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Removed == nil {
		c.Removed = func(uint64) bool { return false }
	}
	if c.OnRemoved == nil {
		c.OnRemoved = func() {}
	}
}

// Member is a peer and where it can be reached.
type Member struct {
	ID   uint64
	URLs []string
}

// Transport connects one member with its peers. It implements raft.Transport.
type Transport struct {
	cfg    Config
	log    *zap.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// peers is replaced, never changed; mu excludes writers of it.
	peers atomic.Pointer[map[uint64]*peer]
	mu    sync.Mutex

	refused refusals
	removed sync.Once
	pulls   pulls
	rate    *limiter

	// Owned by the goroutine in Send, of which there is one at a time.
	touched []*lane
	later   map[uint64]*latest
	beats   heartbeats
	// ackWindow is how long an acknowledgement need not be repeated.
	ackWindow time.Duration
}

// New returns a transport without peers. SetMembers goes out to them, a
// Listener lets them in.
func New(cfg Config) (*Transport, error) {
	if cfg.ID == 0 || cfg.Raft == nil {
		return nil, errors.New("peer: Config.ID and Config.Raft must be set")
	}
	cfg.setDefaults()
	t := &Transport{
		cfg: cfg, log: cfg.Logger, later: map[uint64]*latest{}, rate: newLimiter(cfg.SnapshotBytesPerSecond),
	}
	t.beats.init(cfg.HeartbeatInterval, cfg.Logger)
	t.ackWindow = maxAckWindow
	if half := cfg.HeartbeatInterval / 2; half > 0 {
		t.ackWindow = min(half, maxAckWindow)
	}
	t.peers.Store(&map[uint64]*peer{})
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// Close ends every connection and waits for the goroutines. Send, Call and
// SetMembers do nothing afterwards.
func (t *Transport) Close() {
	t.mu.Lock()
	t.cancel()
	for _, p := range *t.peers.Load() {
		p.stop()
	}
	t.mu.Unlock()
	t.wg.Wait()
}

func (t *Transport) hello(k kind, to uint64) *hello {
	return &hello{
		min: minProtocol, max: maxProtocol, kind: k, cluster: t.cfg.ClusterID, from: t.cfg.ID, to: to,
		serverVersion: t.cfg.ServerVersion, peerURLs: t.cfg.PeerURLs,
	}
}

func (t *Transport) newLink(conn net.Conn, k kind, p *peer) *link {
	l := newLink(conn, k, p.id, k.queueLimit(), p.stats)
	l.readTimeout, l.writeTimeout = t.cfg.ReadTimeout, t.cfg.WriteTimeout
	return l
}

func (t *Transport) find(id uint64) *peer { return (*t.peers.Load())[id] }

// SetMembers makes the list the peers that are dialed: new ones are, those that
// are gone lose their connections. This member may be in it. It does not wait.
func (t *Transport) SetMembers(ms []Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return
	}
	old := *t.peers.Load()
	now := make(map[uint64]*peer, len(ms))
	for _, m := range ms {
		if m.ID == t.cfg.ID {
			continue
		}
		p := old[m.ID]
		if p == nil {
			p = t.startPeer(m.ID, m.URLs)
		}
		p.address.set(m.URLs)
		p.stranger.Store(false)
		now[m.ID] = p
	}
	for id, p := range old {
		switch {
		case now[id] != nil:
		case p.stranger.Load() && !t.cfg.Removed(id):
			now[id] = p
		default:
			p.stop()
		}
	}
	t.peers.Store(&now)
}

// maxStrangers bounds the peers that are not known as members.
const maxStrangers = 16

// findOrMeet returns the peer that says hello. One that is not in the
// membership here may be so in a newer one: this member lags, and must be able
// to answer, or it would never catch up.
func (t *Transport) findOrMeet(h *hello) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.peers.Load()
	if p := old[h.from]; p != nil || t.ctx.Err() != nil {
		return p
	}
	strangers := 0
	for _, p := range old {
		if p.stranger.Load() {
			strangers++
		}
	}
	if strangers >= maxStrangers {
		return nil
	}
	t.log.Info("a member that is not known here yet connects", hexID("remote-peer-id", h.from), zap.Strings("remote-peer-urls", h.peerURLs))
	p := t.startPeer(h.from, h.peerURLs)
	p.stranger.Store(true)
	now := maps.Clone(old)
	now[h.from] = p
	t.peers.Store(&now)
	return p
}

// latest is what comes later in the same Send for one peer.
type latest struct {
	app, resp *raftpb.Message
}

// Send implements raft.Transport.
func (t *Transport) Send(msgs []*raftpb.Message) {
	peers := *t.peers.Load()
	skip := t.superseded(msgs)
	for i, m := range msgs {
		p := peers[m.GetTo()]
		if p == nil {
			t.lostMessage(m)
			continue
		}
		if skip&(1<<i) != 0 && i < 64 {
			continue
		}
		ln := p.lanes[laneOf(m)]
		switch m.GetType() {
		case raftpb.MsgAppResp:
			if p.acked.repeats(m, ln.open.Load(), t.ackWindow) {
				continue
			}
		case raftpb.MsgSnap:
			p.offer(m)
		case raftpb.MsgHeartbeat:
			t.beats.sent(m.GetTo())
		}
		if err := ln.put(m); err != nil {
			p.failed(m)
			continue
		}
		if !ln.touched {
			ln.touched = true
			t.touched = append(t.touched, ln)
		}
	}
	for _, ln := range t.touched {
		ln.touched = false
		ln.flush()
	}
	clear(t.touched)
	t.touched = t.touched[:0]
}

// laneOf: appends go in one queue, because one that overtakes another is
// refused; proposals are as big. All else is small and urgent.
func laneOf(m *raftpb.Message) kind {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgProp:
		return bulk
	}
	return control
}

// superseded marks among the first 64 messages those that a later one of the
// same Send makes needless: an append without entries, which only tells the
// commit index, and an acknowledgement. Losing them is allowed anyway.
func (t *Transport) superseded(msgs []*raftpb.Message) (skip uint64) {
	if len(msgs) < 2 || len(msgs) > 64 {
		return 0
	}
	for i := len(msgs) - 1; i >= 0; i-- {
		m := msgs[i]
		typ := m.GetType()
		if typ != raftpb.MsgApp && typ != raftpb.MsgAppResp {
			continue
		}
		to := t.later[m.GetTo()]
		if to == nil {
			to = &latest{}
			t.later[m.GetTo()] = to
		}
		if typ == raftpb.MsgApp {
			if l := to.app; l != nil && len(m.GetEntries()) == 0 && len(m.GetContext()) == 0 && sameTerm(l, m) && l.GetIndex() >= m.GetIndex() && l.GetCommit() >= m.GetCommit() {
				skip |= 1 << i
			}
			to.app = m
		} else {
			if l := to.resp; l != nil && !m.GetReject() && !l.GetReject() && sameTerm(l, m) && l.GetIndex() >= m.GetIndex() {
				skip |= 1 << i
			}
			to.resp = m
		}
	}
	if len(t.later) > maxStrangers+64 {
		clear(t.later)
	}
	for _, l := range t.later {
		*l = latest{}
	}
	return skip
}

func sameTerm(a, b *raftpb.Message) bool { return a.GetTerm() == b.GetTerm() }

// maxAckWindow: see acked. A leader that misses an acknowledgement asks again
// with its heartbeats, which are further apart than this, and is answered then.
const maxAckWindow = 50 * time.Millisecond

// acked is the newest acknowledgement to one peer. A leader tells the commit index
// of each batch by an append without entries, which raft acknowledges although the
// same was acknowledged a moment before: left out, that saves each member a
// message per batch. Owned by Send.
type acked struct {
	term, index uint64
	at          time.Time
	over        *caller
}

// repeats tells whether m says what was said over this connection a moment ago.
func (a *acked) repeats(m *raftpb.Message, over *caller, window time.Duration) bool {
	now := time.Now()
	if m.GetReject() || over == nil {
		a.over = nil
		return false
	}
	if a.over == over && a.term == m.GetTerm() && a.index == m.GetIndex() && now.Sub(a.at) < window {
		return true
	}
	*a = acked{m.GetTerm(), m.GetIndex(), now, over}
	return false
}

// lostMessage: raft knows a peer that the transport does not know any more, or
// not yet.
func (t *Transport) lostMessage(m *raftpb.Message) {
	t.log.Debug("ignored message send request; unknown remote peer target", zap.String("type", m.GetType().String()), hexID("unknown-target-peer-id", m.GetTo()))
	if m.GetType() == raftpb.MsgSnap {
		id := m.GetTo()
		go t.cfg.Raft.ReportSnapshot(id, false) // not from inside Send
	}
}

// ActiveSince returns since when this member has had a connection to a peer
// without interruption; zero: it has none.
func (t *Transport) ActiveSince(id uint64) time.Time {
	if p := t.find(id); p != nil {
		return p.activeSince()
	}
	return time.Time{}
}

// ServerVersion returns the version that a peer's server has named when this
// member last connected to it, "" if it never has.
func (t *Transport) ServerVersion(id uint64) string {
	if p := t.find(id); p != nil {
		if v := p.serverVersion.Load(); v != nil {
			return *v
		}
	}
	return ""
}

// Stats returns what was counted of each peer.
func (t *Transport) Stats() (all []Stats) {
	for id, p := range *t.peers.Load() {
		all = append(all, p.stats.read(id, !p.activeSince().IsZero()))
	}
	return all
}

// LateHeartbeats is the number of heartbeats that this leader sent much too late.
func (t *Transport) LateHeartbeats() uint64 { return t.beats.late.Load() }

func hexID(key string, id uint64) zap.Field { return zap.String(key, strconv.FormatUint(id, 16)) }

// String names the transport in panics and logs.
func (t *Transport) String() string { return fmt.Sprintf("peer transport of %x", t.cfg.ID) }
