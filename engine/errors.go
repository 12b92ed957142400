package engine

import "errors"

// The texts are etcd's; clients match them. Package rpc maps each to its gRPC
// code in one table.
var (
	ErrCompacted        = errors.New("etcdserver: mvcc: required revision has been compacted")
	ErrFutureRev        = errors.New("etcdserver: mvcc: required revision is a future revision")
	ErrNoSpace          = errors.New("etcdserver: mvcc: database space exceeded")
	ErrKeyNotFound      = errors.New("etcdserver: key not found")
	ErrLeaseNotFound    = errors.New("etcdserver: requested lease not found")
	ErrLeaseExists      = errors.New("etcdserver: lease already exists")
	ErrLeaseTTLTooLarge = errors.New("etcdserver: too large lease TTL")
	// ErrNotPrimary says that only the leader keeps lease clocks.
	ErrNotPrimary       = errors.New("etcdserver: not leader")
	ErrCorrupt          = errors.New("etcdserver: corrupt cluster")
	ErrMemberNotFound   = errors.New("etcdserver: member not found")
	ErrMemberExists     = errors.New("etcdserver: member ID already exist")
	ErrPeerURLExists    = errors.New("etcdserver: Peer URLs already exists")
	ErrMemberNotLearner = errors.New("etcdserver: can only promote a learner member")
	// ErrLastVoter refuses what would leave nobody to agree on anything; etcd, when
	// its strict check is off, ends with a panic.
	ErrLastVoter       = errors.New("etcdserver: re-configuration failed due to not enough started members")
	ErrTooManyLearners = errors.New("etcdserver: too many learner members in cluster")
)
