package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/disk"
	"quire/engine/auth"
	"quire/pagestore"
)

// Options configures an Engine. The zero value of a field means its default.
type Options struct {
	ClusterID, MemberID uint64
	// Members bootstrap a fresh store; a store that exists ignores them.
	Members []*pb.Member
	// Auth bootstraps a fresh store likewise; nil: no users, switched off.
	Auth *AuthState
	// QuotaBytes bounds the size of the page store; past it writes are refused
	// with ErrNoSpace. 0: 2 GiB, negative: no bound.
	QuotaBytes int64
	// MinLeaseTTL in seconds; shorter grants are raised to it. Default 2.
	MinLeaseTTL int64
	// CheckpointBytes of records or of log after which a checkpoint is due (default 32 MiB);
	// it bounds the replay at start.
	CheckpointBytes int64
	// CheckpointEntries of log after which a checkpoint is due, but no more often
	// than every CheckpointMinInterval. etcd's --snapshot-count; default 10,000.
	CheckpointEntries     uint64
	CheckpointMinInterval time.Duration // default 10 s
	// CompactionBatch is how many revisions one hold of the write lock removes
	// (default 256) and CompactionSleep the pause between two (default 0).
	CompactionBatch int
	CompactionSleep time.Duration
	// ReclaimBytesPerSecond bounds the background copying of live records out of
	// sparse segments. Default 16 MiB/s.
	ReclaimBytesPerSecond int64
	// LeaseCheckpoint is how far the remaining TTL that the log knows may lag for
	// the longest leases; for others it is a 32nd of the TTL. Default 5 min.
	LeaseCheckpoint time.Duration
	// Workers rebuild the index at start. Default 2.
	Workers int

	// Importing opens a store in the midst of an import, see Import.
	Importing bool
	// SnapshotDir is where Snapshot keeps its temporary files; Open makes it and
	// removes what a crash has left there. "": there are no snapshots.
	SnapshotDir string

	Pages pagestore.Options // Hint, OnFatal and OnNoSpace are the engine's

	// Publisher gets every committed event; nil drops them.
	Publisher Publisher
	// AuthListener is told of changes to users, roles and tokens; may be nil.
	AuthListener AuthListener
	// Propose hands an operation of the engine's own (lease expiry, NOSPACE) to
	// consensus. It must not block. nil: none are made.
	Propose func(op []byte, w Waiter) error
	// OnCheckpoint says that everything up to the log index is durable here.
	// Called on the checkpoint goroutine; it may block.
	OnCheckpoint func(index uint64)
	// OnTimed is told how long the engine's background work took, for metrics.
	// May be nil.
	OnTimed func(what Timed, took time.Duration)
	// Awaited tells whether consensus asks for a staged snapshot. Called when
	// another one comes, after the announcements of those before have reached it.
	// Nil: every one may still be asked for.
	Awaited func(index, term uint64) bool
	// OnDamage is told of damage to the store that was found while it is in use. It
	// must not block. May be nil.
	OnDamage func(error)
	// OnFatal stops the process: a disk that lost a write, or a broken invariant.
	OnFatal func(error)
	// Now is a monotonic clock in nanoseconds, for leases. Default: time since start.
	Now    func() int64
	Logger *zap.Logger
}

func (o *Options) setDefaults() {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.QuotaBytes, 2<<30)
	def(&o.MinLeaseTTL, 2)
	def(&o.CheckpointBytes, 32<<20)
	def(&o.ReclaimBytesPerSecond, 16<<20)
	if o.CheckpointEntries == 0 {
		o.CheckpointEntries = 10_000
	}
	if o.CheckpointMinInterval == 0 {
		o.CheckpointMinInterval = 10 * time.Second
	}
	if o.CompactionBatch == 0 {
		o.CompactionBatch = 256
	}
	if o.LeaseCheckpoint == 0 {
		o.LeaseCheckpoint = 5 * time.Minute
	}
	if o.Workers == 0 {
		o.Workers = 2
	}
	if o.Now == nil {
		start := time.Now()
		o.Now = func() int64 { return int64(time.Since(start)) }
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.OnFatal == nil {
		o.OnFatal = func(error) {}
	}
}

// neverCompacted is the compact revision before the first compaction, as in
// etcd: a compaction to revision 0 is accepted once.
const neverCompacted = -1

// Timed names what Options.OnTimed is told about.
type Timed int

const (
	TimedCheckpoint Timed = iota // from the cut to the durable manifest
	TimedDefragment
	TimedCompaction     // until everything superfluous was removed
	TimedCompactionStep // one hold of the writer lock
	TimedCompactionMark // finding what a compaction makes superfluous
	TimedReclaim        // a pass over sparse segments that found one, or of Defragment
	TimedReceive        // a peer's snapshot, until it is durable here
	TimedInstall        // of a received snapshot, while nothing is applied
	TimedSnapshot       // from the wait for a running compaction to the finished file
)

func (e *Engine) timed(what Timed, began time.Time) {
	if e.opts.OnTimed != nil {
		e.opts.OnTimed(what, time.Since(began))
	}
}

// Engine is the replicated state machine. See doc.go for who may call what.
type Engine struct {
	opts  Options
	tally tally
	log   *zap.Logger

	// present is replaced under writer, when a snapshot is taken over.
	present atomic.Pointer[keyspace]

	lessor  *lessor
	alarms  *alarmSet
	cluster *cluster

	applied atomic.Uint64
	term    atomic.Uint64

	// writer excludes apply, compaction steps and relocation from each other;
	// holds are bounded by one log entry or one step.
	writer sync.Mutex
	ap     applier     // guarded by writer
	auth   *auth.Store // changed under writer

	compactor  compactor
	checkpoint checkpointer
	snapshots  snapshots
	leader     leadership
	home       *pagestore.Home
	full       chan struct{} // the disk is, and the alarm is to be raised
	transfers  *Transfers

	wg     sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc
	fatal  sync.Once
	opened atomic.Bool // Open has succeeded
}

// Open recovers the engine from fsys, or bootstraps an empty one.
func Open(fsys disk.FS, opts Options) (*Engine, error) {
	opts.setDefaults()
	if !opts.Importing {
		if err := checkMark(fsys); err != nil {
			return nil, err
		}
	}
	home, err := pagestore.OpenHome(fsys)
	if err != nil {
		return nil, err
	}
	e := newEngine(opts)
	e.home, e.transfers = home, newTransfers(e)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if err := e.snapshots.init(opts.SnapshotDir); err != nil {
		return nil, err
	}
	if err := e.openStore(home.Store(), e); err != nil {
		return nil, err
	}
	e.checkpoint.init(e)
	e.transfers.tidy()
	e.opened.Store(true)
	return e, nil
}

// newEngine is an engine without a store.
func newEngine(opts Options) *Engine {
	e := &Engine{opts: opts, log: opts.Logger, alarms: newAlarmSet(), cluster: newCluster(), lessor: newLessor(opts.MinLeaseTTL, opts.Now)}
	e.ap.e = e
	e.full = make(chan struct{}, 1)
	e.compactor.init()
	return e
}

// openStore restores the newest checkpoint of a store. The store will report to
// owner.
func (e *Engine) openStore(dir disk.FS, owner *Engine) error {
	po := e.opts.Pages
	po.Hint = hintOf
	po.OnFatal = owner.die
	po.OnNoSpace = owner.onNoSpace
	var store *pagestore.Store
	po.OnDamage = func(err error) { owner.onDamage(store, err) }
	store, cp, err := pagestore.Open(dir, po)
	if err != nil {
		return err
	}
	e.ap.k = newKeyspace(store)
	e.present.Store(e.ap.k)
	if err := e.recover(cp); err != nil {
		return errors.Join(err, store.Close())
	}
	return nil
}

// recover restores the state of checkpoint cp; nil means a fresh store.
func (e *Engine) recover(cp *pagestore.Checkpoint) error {
	if cp == nil {
		e.ap.k.visible.Store(1)
		e.ap.k.compactRev.Store(neverCompacted)
		e.compactor.mu.removed = neverCompacted
		e.ap.rev = 1
		e.ap.roll.known = true
		for _, m := range e.opts.Members {
			e.cluster.restore(m)
		}
		e.auth = auth.NewStore(e.opts.Auth)
		return nil
	}
	if cp.Damaged != "" {
		e.log.Warn("part of the newest checkpoint is damaged; its other copy serves", zap.String("what", cp.Damaged))
	}
	var m meta
	if err := m.decode(cp.Meta); err != nil {
		return err
	}
	if m.clusterID != e.opts.ClusterID || m.memberID != e.opts.MemberID {
		if e.opts.ClusterID != 0 {
			return fmt.Errorf("engine: data belongs to member %x of cluster %x, not to member %x of cluster %x",
				m.memberID, m.clusterID, e.opts.MemberID, e.opts.ClusterID)
		}
		e.opts.ClusterID, e.opts.MemberID = m.clusterID, m.memberID
	}
	if err := e.readState(cp.State); err != nil {
		return err
	}
	e.ap.k.visible.Store(m.rev)
	e.ap.k.compactRev.Store(m.compactRev)
	e.applied.Store(m.applied)
	e.term.Store(m.term)
	e.ap.rev = m.rev
	e.ap.roll.replace(m.rolling, m.hasRolling)
	return e.loadIndex(m.compactRev)
}

// Start runs the background work: compaction, checkpoints, reclaim, scrubbing,
// lease expiry.
func (e *Engine) Start() {
	for _, loop := range []func(){e.compactLoop, e.checkpointLoop, e.reclaimLoop, e.leaseLoop, e.scrubLoop, e.alarmLoop} {
		e.wg.Add(1)
		go func() {
			defer e.wg.Done()
			loop()
		}()
	}
}

// Close stops the background work and writes a last checkpoint, so that the next
// start replays nothing. Apply must not be running any more.
func (e *Engine) Close() error {
	e.cancel()
	e.wg.Wait()
	err := e.makeCheckpoint(true)
	return errors.Join(err, e.closeStores())
}

// Abandon stops the background work and closes the store without a checkpoint:
// after a fatal error, and in tests.
func (e *Engine) Abandon() error {
	e.cancel()
	e.wg.Wait()
	return e.closeStores()
}

func (e *Engine) closeStores() error {
	e.transfers.close()
	return e.keys().store.Close()
}

// die reports an error after which nothing may be acknowledged.
func (e *Engine) die(err error) {
	e.fatal.Do(func() { e.opts.OnFatal(err) })
}

// Revision returns the newest revision that readers see.
func (e *Engine) Revision() int64 { return e.keys().visible.Load() }

// CompactRevision returns the last compacted revision, -1 if there was none.
func (e *Engine) CompactRevision() int64 { return e.keys().compactRev.Load() }

// AppliedIndex returns the log index of the last applied entry.
func (e *Engine) AppliedIndex() uint64 { return e.applied.Load() }

// Term returns the term of the last applied entry.
func (e *Engine) Term() uint64 { return e.term.Load() }

// ClusterID and MemberID identify whose data this is.
func (e *Engine) ClusterID() uint64 { return e.opts.ClusterID }

// MemberID returns the identity of this member.
func (e *Engine) MemberID() uint64 { return e.opts.MemberID }

// Members returns the members by ID; they must not be changed.
func (e *Engine) Members() []*pb.Member { return e.cluster.list() }

// Removed reports whether a member was removed from the cluster; its ID never
// comes back.
func (e *Engine) Removed(id uint64) bool { return e.cluster.wasRemoved(id) }

// ConfState returns raftpb.ConfState wire bytes of the present membership.
func (e *Engine) ConfState() []byte { return e.cluster.confState() }

// StorageVersion is the version of etcd that can read a snapshot: the cluster's,
// which a downgrade lowers.
func (e *Engine) StorageVersion() string {
	if v := e.cluster.clusterVersion(); v != "" {
		return v
	}
	return storageVersion
}

// storageVersion is what etcd 3.7 reports.
const storageVersion = "3.7.0"

// Downgrade returns the version to which a downgrade is under way, "" for none.
func (e *Engine) Downgrade() (target string) { return e.cluster.downgradeTarget() }

// ClusterVersion returns the cluster version agreed on, "" before that.
func (e *Engine) ClusterVersion() string { return e.cluster.clusterVersion() }

// Alarms returns the raised alarms.
func (e *Engine) Alarms() []*pb.AlarmMember { return e.alarms.list(pb.AlarmType_NONE) }

// Divergent reports whether this member was found to differ from the others: its
// own CORRUPT alarm is raised, and what it would tell may be wrong.
func (e *Engine) Divergent() bool { return e.alarms.hasOf(e.opts.MemberID, pb.AlarmType_CORRUPT) }

// servable refuses reads at a divergent member.
func (e *Engine) servable() error {
	if e.Divergent() {
		return ErrCorrupt
	}
	return nil
}

// HasAlarm reports whether any member has raised t.
func (e *Engine) HasAlarm(t pb.AlarmType) bool { return e.alarms.has(t) }

// DBSize returns the bytes of the page store's files and how many of them are live.
func (e *Engine) DBSize() (total, inUse int64) { return e.keys().store.Size() }

// Quota returns the size bound in bytes; negative: none.
func (e *Engine) Quota() int64 { return e.opts.QuotaBytes }

// QuotaExceeded reports whether a write of cost bytes would pass the quota.
func (e *Engine) QuotaExceeded(cost int) bool {
	total, _ := e.keys().store.Size()
	return e.opts.QuotaBytes > 0 && cost > 0 && total+int64(cost) >= e.opts.QuotaBytes
}

func hintOf(dst, rec []byte) []byte {
	if isGrave(rec) {
		return append(dst, rec...)
	}
	var kv keyValue
	if err := decodeRecord(rec, &kv); err != nil {
		return dst // loadIndex refuses the empty hint
	}
	return appendHint(dst, &kv)
}
