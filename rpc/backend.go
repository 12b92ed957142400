package rpc

import (
	"context"
	"time"

	pb "quire/api/etcdserverpb"
	"quire/engine"
	"quire/engine/auth"
)

// The parts below, as the services need them. *raft.Node and *engine.Engine
// satisfy them; tests use fakes because the real ones need a log on a disk.

// ReadWaiter is told when a linearizable read may run (raft.ReadWaiter).
type ReadWaiter = interface{ ReadReady(err error) }

// Proposer replicates operations and orders reads.
type Proposer interface {
	// Enqueue copies the concatenation of head and body as one operation
	// into the open batch. On success exactly one of w's methods is called
	// later; an error means that none is.
	Enqueue(w interface{ Dropped(error) }, head, body []byte) error
	// Kick starts what Enqueue gathered as far as the log's gate permits.
	Kick()
	// ReadIndex reports whether a linearizable read may run now; if not, w is
	// called once later.
	ReadIndex(w ReadWaiter) (ready bool)
}

// RaftStatus is the raft member at one moment.
type RaftStatus struct {
	Lead, Term, Commit, Applied uint64
	IsLeader, IsLearner         bool
}

// KV reads the applied state. Bodies are response messages without header,
// appended to dst; rev is what the header must say.
type KV interface {
	Revision() int64
	Range(req *pb.RangeRequest, dst []byte) (body []byte, rev int64, err error)
	ReadTxn(req *pb.TxnRequest, dst []byte) (body []byte, rev int64, err error)
	// AwaitCompacted returns when nothing older than rev is stored any more.
	AwaitCompacted(ctx context.Context, rev int64) error
}

// RangeCursor walks a range on one pinned revision. Each Next appends one
// chunk's body to dst; only the last one has a revision.
type RangeCursor interface {
	Next(dst []byte) (body []byte, rev int64, done bool, err error)
}

// Leases is the lessor of the cluster. What depends on its clocks may wait for the
// leader.
type Leases interface {
	// LeaseRenew returns the TTL in seconds; engine.ErrLeaseNotFound.
	LeaseRenew(ctx context.Context, id int64) (ttl int64, err error)
	LeaseTimeToLive(ctx context.Context, id int64, withKeys bool) (engine.LeaseInfo, error)
	Leases() []int64
	// NewLeaseID returns a positive ID that is not in use.
	NewLeaseID() int64
}

// Rights checks requests whose rights depend on what is stored: the keys of
// leases. acc is what the client may do.
type Rights interface {
	MayTxn(acc *auth.Access, r *pb.TxnRequest) error
	MayReadLease(acc *auth.Access, id int64) error
	MayWriteLease(acc *auth.Access, id int64) error
	MayReadLeases(acc *auth.Access) error
}

// Space is the store's size and the alarms that guard it.
type Space interface {
	DBSize() (total, inUse int64)
	Quota() int64
	// QuotaExceeded tells whether costBytes more would pass the quota.
	QuotaExceeded(costBytes int) bool
	HasAlarm(pb.AlarmType) bool
	Alarms() []*pb.AlarmMember
	// Divergent tells whether this member's own CORRUPT alarm is raised.
	Divergent() bool
}

// Upkeep is what only the Maintenance service asks for.
type Upkeep interface {
	HashKV(rev int64) (hash uint32, compactRev, currentRev int64, err error)
	Hash() (hash uint32, rev int64, err error)
	Defragment(ctx context.Context) error
	StorageVersion() string
	ClusterVersion() string
	// Downgrade is the version to which one is under way, "" for none.
	Downgrade() (target string)
}

// Clock is the time source; the zero value is the wall clock.
type Clock struct {
	Now func() time.Time
}

func (c Clock) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}
