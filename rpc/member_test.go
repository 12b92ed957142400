package rpc

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	pb "quire/api/etcdserverpb"
	"quire/disk"
	"quire/engine"
	"quire/raft"
	"quire/rpc/token"
	"quire/wal"
	"quire/watchfanout"
)

// realMember is a member of the real parts on disks in memory, for what the fake
// is too simple for: transactions that compare, watches with a past, leases that
// end.
type realMember struct {
	*Server
	engine *engine.Engine
	node   *raft.Node
	hub    *watchfanout.Hub
	tokens *token.Table
	ready  atomic.Bool // the hub exists
}

func newRealMember(t testing.TB, change ...func(*Config)) *realMember {
	t.Helper()
	m := &realMember{tokens: token.NewTable(0, nil)}
	m.tokens.From(0)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	m.engine, err = engine.Open(disk.NewMem(1), engine.Options{
		ClusterID: 9, MemberID: 7, Members: []*pb.Member{{ID: 7, Name: "m"}},
		MinLeaseTTL: 1, Publisher: m, AuthListener: m,
		Propose: func(op []byte, w engine.Waiter) error { return m.node.Propose(op, w) },
		OnFatal: func(err error) { t.Error(err) },
	})
	check(err)
	m.hub = watchfanout.NewHub(realHistory{m.engine}, watchfanout.Options{
		Header: HeaderBody(9, 7, func() uint64 { return m.engine.Term() }),
	})
	m.ready.Store(true)
	log := disk.NewMem(2)
	m.node, err = raft.Open(raft.Config{
		ID: 7, ClusterID: 9, NewLog: raft.BootstrapNewLog, HeartbeatMillis: 10, ElectionMillis: 100, ConfState: m.engine.ConfState(),
	}, func(replay func(wal.Pos, []byte) error) (raft.Log, raft.Found, error) {
		l, _, err := wal.Open(log, wal.Options{SegmentBytes: 1 << 20}, replay)
		return l, raft.Found{}, err
	}, m.engine)
	check(err)
	m.engine.Start()
	f := newFake()
	cfg := f.config()
	cfg.Raft, cfg.KV, cfg.Leases, cfg.Space, cfg.Upkeep, cfg.Members = m.node, m.engine, ownLeases{m.engine}, m.engine, m.engine, m.engine.Members
	cfg.RaftStatus = func() RaftStatus {
		s := m.node.Status()
		return RaftStatus{Lead: s.Lead, Term: uint64(s.Term), Commit: uint64(s.Commit), Applied: uint64(s.Applied), IsLeader: s.IsLeader}
	}
	cfg.OpenRange = func(r *pb.RangeRequest, chunk int) RangeCursor { return m.engine.RangeStream(r, chunk) }
	cfg.OpenWatch = OpenHubWatch(m.hub)
	cfg.Auth, cfg.Tokens, cfg.Rights, cfg.BcryptCost = m.engine.Auth(), m.tokens, m.engine, bcrypt.MinCost
	for _, c := range change {
		c(&cfg)
	}
	m.Server, err = New(cfg)
	check(err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		m.Server.Close(ctx)
		_ = m.node.Stop(ctx)
		m.hub.Close()
		_ = m.engine.Close()
	})
	if !eventually(func() bool { s := m.node.Status(); return s.IsLeader && m.engine.Term() == uint64(s.Term) }) {
		t.Fatal("no leader")
	}
	return m
}

// Changed, Issued and Revoked implement engine.AuthListener.
func (m *realMember) Changed()                               { m.hub.Recheck() }
func (m *realMember) Issued(index uint64, user, text string) { m.tokens.Issued(index, user, text) }
func (m *realMember) Revoked(user string)                    { m.tokens.Revoked(user) }

// Publish implements engine.Publisher.
func (m *realMember) Publish(events []engine.Event, rev int64) {
	if !m.ready.Load() {
		return
	}
	var out []watchfanout.Event
	for _, e := range events {
		out = append(out, watchfanout.Event(e))
	}
	m.hub.Publish(out, rev)
}

// WantsPrev implements engine.Publisher.
func (m *realMember) Restored(rev int64) { m.hub.Restored(rev) }

func (m *realMember) WantsPrev() bool { return m.ready.Load() && m.hub.WantsPrev() }

type realHistory struct{ e *engine.Engine }

func (h realHistory) Bounds() (compactRev, rev int64) { return h.e.Bounds() }

func (h realHistory) Events(dst []watchfanout.Event, from int64, maxBytes int, wantPrev bool) ([]watchfanout.Event, int64, error) {
	evs, next, err := h.e.Events(nil, from, maxBytes, wantPrev)
	if err == engine.ErrCompacted {
		err = watchfanout.ErrCompacted
	}
	for _, e := range evs {
		dst = append(dst, watchfanout.Event(e))
	}
	return dst, next, err
}

// ownLeases are the leases of a cluster of one: nobody else is asked.
type ownLeases struct{ *engine.Engine }

func (l ownLeases) LeaseTimeToLive(_ context.Context, id int64, withKeys bool) (engine.LeaseInfo, error) {
	return l.Engine.LeaseTimeToLive(id, withKeys)
}
