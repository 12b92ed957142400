package raft

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// NewLogMode says what Open does when the log is empty.
type NewLogMode int

const (
	// RefuseNewLog: an empty log is an error. For every restart.
	RefuseNewLog NewLogMode = iota
	// BootstrapNewLog: found a new cluster with the voters in
	// Config.ConfState. Ignored when the log is not empty.
	BootstrapNewLog
	// JoinNewLog: join an existing cluster; the leader sends everything.
	// Ignored when the log is not empty.
	JoinNewLog
)

// Config is what a member needs to start. Zero values take the defaults.
type Config struct {
	// ID is this member's identity, ClusterID the cluster's. Both are written
	// to the log and compared at every start.
	ID, ClusterID uint64

	// NewLog permits to start with an empty log. It never applies when
	// Applied is above 0: a store without its log is refused.
	NewLog NewLogMode

	// StandAlone makes this member the only one of its cluster, whatever the
	// others are: etcd's --force-new-cluster. For disasters: two members started
	// with it are two clusters.
	StandAlone bool

	// Applied, AppliedTerm and ConfState are the state machine's durable
	// position and membership (wire bytes of raftpb.ConfState). For a new
	// cluster Applied is 0 and ConfState lists the first voters.
	Applied     Index
	AppliedTerm Term
	ConfState   []byte

	// Replaced says that the state machine's state was replaced by that of a peer
	// since the log was written: the log may end before it. Open has made that good
	// durably when it returns.
	Replaced bool

	// HeartbeatMillis is the length of a tick and the interval of heartbeats
	// (default 100); ElectionMillis the time without a leader after which a
	// member campaigns, 1–2 times over (default 1000).
	HeartbeatMillis, ElectionMillis int
	// Ticks replaces the ticker of HeartbeatMillis.
	Ticks <-chan time.Time
	// AdvanceTicks shortens the first election wait of a member of a larger
	// cluster to one tick, for a fast start.
	AdvanceTicks bool

	// QueueDepth is the number of log writes in flight (default 3). Deeper
	// measured worse: batches get smaller and each write costs the same.
	QueueDepth int
	// MaxBatchOps and MaxBatchBytes bound one raft entry (defaults 4096 ops,
	// 1 MiB). A larger operation gets an entry of its own.
	MaxBatchOps, MaxBatchBytes int
	// MaxPendingOps and MaxPendingBytes bound what is accepted and not yet
	// applied (defaults 65536 ops, 128 MiB); above, ErrTooManyRequests.
	MaxPendingOps, MaxPendingBytes int
	// MaxOpBytes bounds one operation (default 48 MiB).
	MaxOpBytes int

	// CatchupEntries and CatchupBytes bound the applied entries that are kept
	// for followers that lag (defaults 5000, 64 MiB); a follower further
	// behind needs a snapshot. An entry holds a batch of operations. A member
	// without peers keeps none.
	CatchupEntries, CatchupBytes int

	// ProposalTimeoutMillis ends the wait of an operation with ErrTimeout or
	// ErrNoLeader (default 5000 + 2·ElectionMillis).
	ProposalTimeoutMillis int
	// ReadRetryMillis is the time after which an unanswered read round is
	// asked again, under a new context (default 500).
	ReadRetryMillis int

	// LogStallMillis is how long a log write may take before the member
	// gives up (default 30000; negative: for ever). A leader whose write takes
	// longer than an election hands over before.
	LogStallMillis int

	// Session makes forwarded proposals and read contexts of this run
	// different from those of earlier runs. 0: random.
	Session uint64

	// Transport is nil for a member without peers.
	Transport Transport
	// Logger: nil logs nothing.
	Logger *zap.Logger

	// MarkEntries is how many entries may be trimmed too few, because it is not
	// noted where each lies in the log (default 256). Simulations trim finer.
	MarkEntries int
}

const (
	defaultHeartbeatMillis = 100
	defaultElectionMillis  = 1000
	defaultQueueDepth      = 3
	defaultMaxBatchOps     = 4096
	defaultMaxBatchBytes   = 1 << 20
	defaultMaxPendingOps   = 1 << 16
	defaultMaxPendingBytes = 128 << 20
	defaultMaxOpBytes      = 48 << 20
	defaultCatchupEntries  = 5000
	defaultCatchupBytes    = 64 << 20
	defaultTimeoutMillis   = 5000
	defaultReadRetryMillis = 500
	defaultStallMillis     = 30000
)

func setDefault(p *int, v int) {
	if *p == 0 {
		*p = v
	}
}

// withDefaults returns c with the defaults filled in.
func (c Config) withDefaults() Config {
	setDefault(&c.HeartbeatMillis, defaultHeartbeatMillis)
	setDefault(&c.ElectionMillis, defaultElectionMillis)
	setDefault(&c.QueueDepth, defaultQueueDepth)
	setDefault(&c.MaxBatchOps, defaultMaxBatchOps)
	setDefault(&c.MaxBatchBytes, defaultMaxBatchBytes)
	setDefault(&c.MaxPendingOps, defaultMaxPendingOps)
	setDefault(&c.MaxPendingBytes, defaultMaxPendingBytes)
	setDefault(&c.MaxOpBytes, defaultMaxOpBytes)
	setDefault(&c.CatchupEntries, defaultCatchupEntries)
	setDefault(&c.CatchupBytes, defaultCatchupBytes)
	setDefault(&c.ProposalTimeoutMillis, defaultTimeoutMillis+2*c.ElectionMillis)
	setDefault(&c.ReadRetryMillis, defaultReadRetryMillis)
	setDefault(&c.LogStallMillis, defaultStallMillis)
	setDefault(&c.MarkEntries, defaultMarkEvery)
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c
}

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("raft: "+format, args...)) }
	if c.ID == 0 {
		bad("ID must not be 0")
	}
	if c.HeartbeatMillis < 1 {
		bad("HeartbeatMillis is %d, must be at least 1", c.HeartbeatMillis)
	} else if c.ElectionMillis < 2*c.HeartbeatMillis {
		bad("ElectionMillis is %d, must be at least twice HeartbeatMillis %d", c.ElectionMillis, c.HeartbeatMillis)
	}
	for _, f := range []struct {
		name string
		v    int
	}{
		{"QueueDepth", c.QueueDepth}, {"MaxBatchOps", c.MaxBatchOps}, {"MaxBatchBytes", c.MaxBatchBytes},
		{"MaxPendingOps", c.MaxPendingOps}, {"MaxPendingBytes", c.MaxPendingBytes}, {"MaxOpBytes", c.MaxOpBytes},
		{"CatchupEntries", c.CatchupEntries}, {"CatchupBytes", c.CatchupBytes},
		{"MarkEntries", c.MarkEntries}, {"ProposalTimeoutMillis", c.ProposalTimeoutMillis}, {"ReadRetryMillis", c.ReadRetryMillis},
	} {
		if f.v < 1 {
			bad("%s is %d, must be at least 1", f.name, f.v)
		}
	}
	if c.Applied > 0 && c.AppliedTerm == 0 {
		bad("Applied is %d but AppliedTerm is 0", c.Applied)
	}
	return errors.Join(errs...)
}

func (c *Config) electionTicks() int {
	return max(c.ElectionMillis/c.HeartbeatMillis, 2)
}

// ticks converts milliseconds to ticks, at least one.
func (c *Config) ticks(millis int) uint64 {
	return uint64(max((millis+c.HeartbeatMillis-1)/c.HeartbeatMillis, 1))
}
