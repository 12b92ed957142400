package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"

	pb "quire/api/etcdserverpb"
	"quire/disk"
	"quire/engine"
	"quire/pagestore"
	"quire/raft"
	"quire/raft/peer"
	"quire/rpc"
	"quire/rpc/membership"
	"quire/rpc/token"
	"quire/wal"
	"quire/watchfanout"
)

// member joins the parts of one server. They know each other only through the
// seams filled in here:
//
//	log directory ── wal ── raft ── engine ── store directory
//	      peers ── transport ┘ │        │
//	                          rpc ──── hub
//
// Opened bottom up, closed top down.
type member struct {
	cfg  *Config
	log  *zap.Logger
	id   uint64
	cid  uint64
	dirs []*disk.Dir // store, log

	remotes []*pb.Member // of a cluster that this member joins
	peerTLS func() *tls.Config
	offline bool

	engine     *engine.Engine
	hub        *watchfanout.Hub
	tokens     token.Provider
	node       atomic.Pointer[raft.Node]
	transport  *peer.Transport
	rpc        *rpc.Server
	see        observation
	membership *membership.Service
	checks     *checks
	leases     *leases
	watch      *walMetrics
	timing     *storeMetrics
	applies    *applyMetrics
	stall      *stallWatch
	replaced   bool        // the store, by rebuild, at this start
	ailing     atomic.Bool // the store was found damaged

	events []watchfanout.Event // the apply goroutine's, see publisher
	counts counts
	fatal  chan error // the first error that ends the process
}

// Where the parts of a data directory lie.
const (
	storeDir = "store"
	logDir   = "wal"
	tempDir  = "tmp" // files of snapshots being sent
)

func (c *Config) tempPath() string { return filepath.Join(c.DataDir, tempDir) }

func (c *Config) storePath() string { return filepath.Join(c.DataDir, storeDir) }

func (c *Config) logPath() string {
	if c.WALDir != "" {
		return c.WALDir
	}
	return filepath.Join(c.DataDir, logDir)
}

// surroundings are what a member is given beside its settings.
type surroundings struct {
	log     *zap.Logger
	reg     *prometheus.Registry
	see     observation
	peerTLS func() *tls.Config // for dialing peers; nil: https cannot be dialed
	offline bool               // dial nobody
}

// openMember recovers the data and starts the consensus member, which from then
// on dials its peers. Nothing listens yet. ctx ends a bootstrap.
func openMember(ctx context.Context, c *Config, in surroundings) (m *member, err error) {
	log, reg := in.log, in.reg
	m = &member{cfg: c, log: log, see: in.see, peerTLS: in.peerTLS, offline: in.offline, fatal: make(chan error, 1)}
	defer func() {
		if err != nil {
			m.close(context.Background())
		}
	}()
	if _, err := os.Stat(filepath.Join(c.DataDir, "member", "snap", "db")); err == nil {
		return m, fmt.Errorf("data directory %s holds the data of an etcd member; take it over into another directory with quire import", c.DataDir)
	}
	for _, path := range []string{c.storePath(), c.logPath()} {
		dir, err := disk.OpenDir(path, disk.Options{NoSync: c.UnsafeNoFsync})
		if err != nil {
			return m, err
		}
		m.dirs = append(m.dirs, dir)
	}
	if m.watch, err = newWALMetrics(reg); err != nil {
		return m, err
	}
	if m.timing, err = newStoreMetrics(reg); err != nil {
		return m, err
	}
	if err := m.openTokens(); err != nil {
		return m, err
	}
	if m.applies, err = newApplyMetrics(reg); err != nil {
		return m, err
	}
	if err := m.openEngine(ctx); err != nil {
		return m, err
	}
	m.hub = watchfanout.NewHub(history{m.engine}, watchfanout.Options{
		Header:           rpc.HeaderBody(m.cid, m.id, m.term),
		ProgressInterval: c.WatchProgress,
		FragmentBytes:    int(c.MaxRequestBytes) + 512<<10,
		OnHistoryError: func(err error) {
			if !errors.Is(err, engine.ErrCorrupt) { // the alarm was logged
				log.Error("cannot read the watch history", zap.Error(err))
			}
		},
	})
	if err := m.openTransport(); err != nil {
		return m, err
	}
	if err := m.openRaft(); err != nil {
		return m, err
	}
	m.syncPeers()
	if table, ok := m.tokens.(*token.Table); ok {
		// What the log holds already belongs to an earlier life.
		table.From(uint64(m.node.Load().Status().LastIndex) + 1)
	}
	m.engine.Start()
	if err := m.maybeDefragment(context.Background()); err != nil {
		return m, err
	}
	m.membership = membership.New(membership.Config{
		Self: m.id, Consensus: m.node.Load(), State: m.engine,
		ActiveSince: m.transport.ActiveSince, PeerVersion: m.transport.ServerVersion,
		StrictCheck: c.StrictReconfigCheck, MaxLearners: c.MaxLearners,
		ServerVersion: apiVersion, DowngradeCheck: c.DowngradeCheck, Logger: log,
	})
	m.checks = m.newChecks()
	if m.rpc, err = rpc.New(m.rpcConfig(reg)); err != nil {
		return m, err
	}
	return m, m.registerParts(reg)
}

// openTokens makes the kind of tokens that is asked for.
func (m *member) openTokens() (err error) {
	if m.cfg.BcryptCost < uint(bcrypt.MinCost) || m.cfg.BcryptCost > uint(bcrypt.MaxCost) {
		m.log.Warn("use default bcrypt cost instead of the invalid given cost", zap.Int("min-cost", bcrypt.MinCost),
			zap.Int("max-cost", bcrypt.MaxCost), zap.Int("default-cost", bcrypt.DefaultCost), zap.Uint("given-cost", m.cfg.BcryptCost))
	}
	m.tokens, err = token.New(token.Options{
		Spec: m.cfg.AuthToken, TTL: time.Duration(m.cfg.AuthTokenTTL) * time.Second, Logger: m.log,
		Behind: func(index uint64) bool { return len(m.engine.Members()) > 1 && index > m.engine.AppliedIndex() },
	})
	if err != nil {
		return fmt.Errorf("--auth-token: %w", err)
	}
	return nil
}

// openEngine opens the store with the identity that it has. A fresh one gets the
// identity that the bootstrap gives, and keeps it: a first checkpoint records it
// before anything else happens, so that other flags at a later start change
// nothing, as in etcd.
func (m *member) openEngine(ctx context.Context) (err error) {
	if err := m.openStore(ctx); err != nil {
		return err
	}
	if m.id, m.cid = m.engine.MemberID(), m.engine.ClusterID(); m.id != 0 {
		return nil
	}
	if err := m.engine.Abandon(); err != nil {
		return err
	}
	m.engine = nil
	if m.cfg.existing {
		return fmt.Errorf("%s holds no data of quire", m.cfg.DataDir)
	}
	from, err := m.cfg.bootstrap(ctx, m.log, &remotePeers{m.peerTLS})
	if err != nil {
		return err
	}
	opts := m.engineOptions()
	m.id, m.cid, m.remotes = from.member, from.cluster, from.remotes
	opts.MemberID, opts.ClusterID, opts.Members = m.id, m.cid, from.members
	if m.engine, err = engine.Open(m.dirs[0], opts); err != nil {
		return err
	}
	return m.engine.Checkpoint()
}

func (m *member) engineOptions() engine.Options {
	return engine.Options{
		QuotaBytes:        m.cfg.QuotaBackendBytes,
		MinLeaseTTL:       m.cfg.minLeaseTTL(),
		CheckpointEntries: m.cfg.SnapshotCount,
		CompactionBatch:   m.cfg.CompactionBatch,
		CompactionSleep:   m.cfg.CompactionSleep,
		SnapshotDir:       m.cfg.tempPath(),
		Pages:             pagestore.Options{CacheBytes: m.cfg.PageCacheBytes, OnCommit: m.timing.committed},
		Publisher:         (*publisher)(m),
		AuthListener:      (*authListener)(m),
		Propose:           m.propose,
		OnCheckpoint:      m.checkpointed,
		OnTimed:           m.timing.observe,
		OnDamage:          m.damaged,
		Awaited:           m.awaits,
		OnFatal:           m.die,
		Logger:            m.log,
	}
}

// minLeaseTTL is one and a half election timeouts in whole seconds, as in etcd:
// a lease must outlive a change of leader.
func (c *Config) minLeaseTTL() int64 {
	ticks := c.ElectionMillis / c.HeartbeatMillis
	millis := 3 * ticks / 2 * c.HeartbeatMillis
	return int64((millis + 999) / 1000)
}

func (m *member) openRaft() error {
	e := m.engine
	mode := raft.RefuseNewLog
	// As in etcd, --initial-cluster-state does not count for a data directory that
	// is there.
	switch {
	case e.AppliedIndex() > 0:
	case len(e.Members()) == 0: // its first state comes from the leader
		mode = raft.JoinNewLog
	default: // new, restored or imported: its log begins with it
		mode = raft.BootstrapNewLog
	}
	open := func(replay func(pos wal.Pos, rec []byte) error) (raft.Log, raft.Found, error) {
		l, rec, err := wal.Open(m.dirs[1], wal.Options{MustExist: mode == raft.RefuseNewLog, CutDamaged: m.cutsDamaged(), OnWrite: m.watch.observe}, replay)
		if err != nil {
			return nil, raft.Found{}, err
		}
		m.stall = &stallWatch{log: m.log, wal: l, limit: m.cfg.electionTimeout(), die: m.die}
		if rec.CutBytes > 0 {
			m.log.Warn("cut a torn or damaged tail off the log", zap.Bool("was-written", rec.Doubtful), zap.String("file", rec.CutFile), zap.Int64("offset", rec.CutOff), zap.Int64("bytes", rec.CutBytes))
		}
		return l, raft.Found{Doubtful: rec.Doubtful, After: rec.DoubtPos}, nil
	}
	n, err := raft.Open(raft.Config{
		ID: m.id, ClusterID: m.cid, NewLog: mode, StandAlone: m.cfg.ForceNewCluster, Replaced: m.replaced,
		HeartbeatMillis: int(m.cfg.HeartbeatMillis), ElectionMillis: int(m.cfg.ElectionMillis),
		Applied: raft.Index(e.AppliedIndex()), AppliedTerm: raft.Term(e.Term()), ConfState: e.ConfState(),
		CatchupEntries: int(m.cfg.SnapshotCatchUp), AdvanceTicks: m.cfg.ElectionTickAdvance,
		Transport: m.transport,
		Logger:    m.log,
	}, open, &stateMachine{Engine: e, m: m})
	if err != nil {
		return m.explain(err)
	}
	m.node.Store(n)
	if err := m.rebuilt(); err != nil {
		return err
	}
	m.stall.start()
	go func() {
		<-n.Done()
		if err := n.Err(); err != nil {
			m.die(err)
		}
	}()
	return nil
}

// cutsDamaged: in a cluster the others have what a damaged end of the log held. A
// member that is alone, or is told to be, goes on without it only in the latter case.
func (m *member) cutsDamaged() bool {
	return m.cfg.ForceNewCluster || len(m.engine.Members()) != 1
}

func (m *member) rpcConfig(reg *prometheus.Registry) rpc.Config {
	c, n, e := m.cfg, m.node.Load(), m.engine
	rc := rpc.Config{
		ClusterID: m.cid, MemberID: m.id, Version: apiVersion,
		MaxRequestBytes: int(c.MaxRequestBytes), MaxTxnOps: int(c.MaxTxnOps), MaxConcurrentStreams: c.MaxStreams,
		ElectionTimeout: c.electionTimeout(), SlowRequest: c.WarnUnary,
		KeepAlive:        rpc.KeepAlive{MinTime: c.KeepAliveMinTime, Interval: c.KeepAliveInterval, Timeout: c.KeepAliveTimeout},
		ExtensiveMetrics: c.Metrics == "extensive",
		Pprof:            c.EnablePprof || c.debugging(), Traces: c.debugging(),
		StopServingOnDefrag: c.Features.Enabled(gateStopOnDefrag),
		Gateway:             c.EnableGateway,
		Vars:                map[string]func() any{"file_descriptor_limit": func() any { return uint64(descriptorLimit()) }, "raft.status": m.raftVars},
		Logger:              m.log, Registry: reg,
		Raft: n, RaftStatus: m.raftStatus,
		KV: e, Leases: m.leases, Space: e, Upkeep: e, Members: e.Members,
		Auth: e.Auth(), Tokens: m.tokens, Rights: e, ClientCertAuth: c.ClientTLS.ClientCertAuth, BcryptCost: int(min(c.BcryptCost, math.MaxInt32)),
		OpenRange:    func(req *pb.RangeRequest, chunk int) rpc.RangeCursor { return e.RangeStream(req, chunk) },
		OpenWatch:    rpc.OpenHubWatch(m.hub),
		LogStall:     m.stall.check,
		MoveLeader:   n.TransferLeadership,
		OpenSnapshot: rpc.OpenSnapshotFunc(e.Snapshot),
		Membership:   memberships{m.membership, m},
	}
	m.see.fill(&rc, c)
	return rc
}

// raftVars is what /debug/vars shows of raft.
func (m *member) raftVars() any {
	if n := m.node.Load(); n != nil {
		return n.Detail()
	}
	return nil
}

// awaits tells the engine which snapshots raft will ask it for.
func (m *member) awaits(index, term uint64) bool {
	n := m.node.Load()
	return n == nil || n.Awaits(raft.Index(index), raft.Term(term))
}

func (m *member) raftStatus() rpc.RaftStatus {
	s := m.node.Load().Status()
	return rpc.RaftStatus{Lead: s.Lead, Term: uint64(s.Term), Commit: uint64(s.Commit), Applied: uint64(s.Applied),
		IsLeader: s.IsLeader, IsLearner: s.IsLearner}
}

func (m *member) term() uint64 {
	if n := m.node.Load(); n != nil {
		return uint64(n.Status().Term)
	}
	return m.engine.Term()
}

// propose is how the engine reaches consensus; before the log is open nothing does.
func (m *member) propose(op []byte, w engine.Waiter) error {
	n := m.node.Load()
	if n == nil {
		return raft.ErrStopped
	}
	return n.Propose(op, w)
}

// checkpointed lets the log go up to index.
func (m *member) checkpointed(index uint64) {
	n := m.node.Load()
	if n == nil || index == 0 {
		return
	}
	if err := n.Compact(raft.Index(index)); err != nil && !errors.Is(err, raft.ErrStopped) {
		m.die(err)
	}
}

// die reports the error that ends the process; the first one wins.
func (m *member) die(err error) {
	select {
	case m.fatal <- err:
	default:
	}
}

// readyPoll is how often awaitReady looks; leadership of a single voter takes
// one durable write.
const readyPoll = 2 * time.Millisecond

// awaitReady returns when the member has a leader, has applied an entry of its
// term and has published its name and client URLs.
func (m *member) awaitReady(ctx context.Context) error {
	if err := m.awaitApplied(ctx); err != nil {
		return err
	}
	return m.publish(ctx)
}

// awaitApplied returns when the member has a leader and has applied an entry of
// its term, and with it everything before.
func (m *member) awaitApplied(ctx context.Context) error {
	return m.await(ctx, func(s raft.Status) bool { return s.Lead != 0 && m.engine.Term() == uint64(s.Term) })
}

// awaitCommitted returns when everything is applied that this member knows to be
// committed.
func (m *member) awaitCommitted(ctx context.Context) error {
	return m.await(ctx, func(s raft.Status) bool { return s.Applied >= s.Commit })
}

func (m *member) await(ctx context.Context, done func(raft.Status) bool) error {
	t := time.NewTicker(readyPoll)
	defer t.Stop()
	for !done(m.node.Load().Status()) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-m.fatal:
			m.die(err)
			return err
		case <-t.C:
		}
	}
	return nil
}

// publish makes this member's name and client URLs known, and the version of a
// new cluster. It goes on through changes of leader until that is done.
func (m *member) publish(ctx context.Context) error {
	self := &pb.Member{ID: m.id, Name: m.cfg.Name, ClientURLs: m.cfg.AdvertiseClientURLs.strings()}
	body, err := self.MarshalVT()
	if err != nil {
		return err
	}
	if err := m.proposeUntil(ctx, engine.AppendOp(nil, engine.OpMemberAttr, body)); err != nil {
		return fmt.Errorf("cannot publish this member: %w", err)
	}
	if m.engine.ClusterVersion() == "" {
		return m.proposeUntil(ctx, engine.AppendOp(nil, engine.OpClusterVersion, []byte(clusterVersion)))
	}
	return nil
}

// proposeRetry is the pause after a proposal that came to nothing.
const proposeRetry = 50 * time.Millisecond

// proposeUntil proposes an operation, which may be applied twice, until it is
// applied.
func (m *member) proposeUntil(ctx context.Context, op []byte) error {
	for {
		err := m.proposeAndWait(ctx, op)
		if err == nil || ctx.Err() != nil || len(m.fatal) > 0 || errors.Is(err, raft.ErrStopped) {
			return err
		}
		m.log.Warn("failed to publish local member to cluster through raft", zap.String("local-member-id", hex(m.id)), zap.Error(err))
		select {
		case <-time.After(proposeRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type opResult chan error

func (r opResult) Applied(rep *engine.Reply) { r <- rep.Err }
func (r opResult) Dropped(err error)         { r <- err }

func (m *member) proposeAndWait(ctx context.Context, op []byte) error {
	done := make(opResult, 1)
	if err := m.node.Load().Propose(op, done); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case err := <-m.fatal:
		m.die(err)
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handOverWait is how long a leader that stops waits for the next one.
const handOverWait = 500 * time.Millisecond

// handOver gives up leadership before anything is closed: the others have a
// leader again within a round trip instead of an election timeout.
func (m *member) handOver(ctx context.Context) {
	n := m.node.Load()
	if n == nil || len(m.fatal) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverWait)
	defer cancel()
	if err := n.HandOver(ctx); err != nil {
		m.log.Warn("leadership transfer failed", zap.String("local-member-id", hex(m.id)), zap.Error(err))
	}
}

// close stops the parts from the top down. An orderly stop ends with a
// checkpoint, so that the next start replays nothing.
func (m *member) close(ctx context.Context) error {
	m.handOver(ctx)
	var errs []error
	if m.rpc != nil {
		m.rpc.Close(ctx)
	}
	if m.stall != nil {
		m.stall.stop()
	}
	if len(m.fatal) > 0 && m.transport != nil {
		m.transport.Close() // first: the log may not let go
	}
	if n := m.node.Load(); n != nil {
		errs = append(errs, n.Stop(ctx))
	}
	if m.transport != nil {
		m.transport.Close()
	}
	if m.hub != nil {
		m.hub.Close()
	}
	if m.engine != nil {
		if len(m.fatal) > 0 {
			errs = append(errs, m.engine.Abandon())
		} else {
			errs = append(errs, m.engine.Close())
		}
	}
	for _, d := range m.dirs {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}
