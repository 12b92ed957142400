package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"quire/raft"
)

// Status is how a call ends that does not succeed: etcd's text and its gRPC
// code. It is an error; grpc-go takes it over through GRPCStatus.
type Status struct {
	Code codes.Code
	Text string

	grpc *status.Status
}

// Error implements error.
func (s *Status) Error() string { return s.Text }

// GRPCStatus lets grpc-go send the status without converting it per call.
func (s *Status) GRPCStatus() *status.Status { return s.grpc }

func newStatus(code codes.Code, text string) *Status {
	return &Status{Code: code, Text: text, grpc: status.New(code, text)}
}

// The statuses that services raise themselves.
var (
	errEmptyKey            = tabled("etcdserver: key is not provided")
	errKeyNotFound         = tabled("etcdserver: key not found")
	errValueProvided       = tabled("etcdserver: value is provided")
	errLeaseProvided       = tabled("etcdserver: lease is provided")
	errTooManyOps          = tabled("etcdserver: too many operations in txn request")
	errDuplicateKey        = tabled("etcdserver: duplicate key given in txn request")
	errInvalidSortOption   = tabled("etcdserver: invalid sort option")
	errRequestTooLarge     = tabled("etcdserver: request is too large")
	errNoSpace             = tabled("etcdserver: mvcc: database space exceeded")
	errTimeout             = tabled("etcdserver: request timed out")
	errStopped             = tabled("etcdserver: server stopped")
	errNoLeader            = tabled("etcdserver: no leader")
	errNotLeader           = tabled("etcdserver: not leader")
	errNotSupportedLearner = tabled("etcdserver: rpc not supported for learner")
	errMemberBadURLs       = tabled("etcdserver: given member URLs are invalid")
	errBadLeaderTransferee = tabled("etcdserver: bad leader transferee")
	errInvalidAuthToken    = tabled("etcdserver: invalid auth token")
	errTooManyRequests     = tabled("etcdserver: too many requests")

	errWatchCanceled = tabled("etcdserver: watch canceled")

	errTransferTimeout = newStatus(codes.Unknown, "etcdserver: request timed out, leader transfer took too long")
	errSnapshotStalled = newStatus(codes.Unavailable, "etcdserver: snapshot client reads too slowly")

	errStreamSort    = newStatus(codes.Unimplemented, "RangeStream does not support custom sort orders")
	errStreamFilters = newStatus(codes.Unimplemented, "RangeStream does not support revision filters")

	errSessionExpired    = newStatus(codes.Unknown, "mutex: session is expired")
	errElectionNotLeader = newStatus(codes.Unknown, "election: not leader")
	errElectionNoLeader  = newStatus(codes.Unknown, "election: no leader")
	errMissingLeaderKey  = newStatus(codes.Unknown, `"leader" field must be provided`)
)

// table is the only place where gRPC codes are chosen: text → code. The parts
// below report errors with etcd's texts (engine/errors.go and package raft);
// clients match the text, so the text is the key.
//
// One deviation: etcd declares ResourceExhausted for "too many requests" and
// FailedPrecondition for "not enough started members" but sends Unknown; the
// declared codes are sent here.
var table = makeTable(map[codes.Code][]string{
	codes.InvalidArgument: {
		"etcdserver: key is not provided",
		"etcdserver: key not found",
		"etcdserver: value is provided",
		"etcdserver: lease is provided",
		"etcdserver: too many operations in txn request",
		"etcdserver: duplicate key given in txn request",
		"etcdserver: invalid client api version",
		"etcdserver: invalid sort option",
		"etcdserver: given member URLs are invalid",
		"etcdserver: request is too large",
		"etcdserver: user name is empty",
		"etcdserver: role name is empty",
		"etcdserver: authentication failed, invalid user ID or password",
		"etcdserver: permission not given",
		"etcdserver: invalid auth management",
		"etcdserver: revision of auth store is old",
		"etcdserver: wrong downgrade target version format",
		"etcdserver: invalid downgrade target version",
	},
	codes.OutOfRange: {
		"etcdserver: mvcc: required revision has been compacted",
		"etcdserver: mvcc: required revision is a future revision",
		"etcdserver: too large lease TTL",
	},
	codes.ResourceExhausted: {
		"etcdserver: mvcc: database space exceeded",
		"etcdserver: too many requests",
		"etcdserver: no space for a snapshot", // ours
	},
	codes.NotFound: {
		"etcdserver: requested lease not found",
		"etcdserver: member not found",
	},
	codes.FailedPrecondition: {
		"etcdserver: lease already exists",
		"etcdserver: member ID already exist",
		"etcdserver: Peer URLs already exists",
		"etcdserver: re-configuration failed due to not enough started members",
		"etcdserver: can only promote a learner member",
		"etcdserver: can only promote a learner member which is in sync with leader",
		"etcdserver: too many learner members in cluster",
		"etcdserver: cluster ID mismatch",
		"etcdserver: root user does not exist",
		"etcdserver: root user does not have root role",
		"etcdserver: user name already exists",
		"etcdserver: user name not found",
		"etcdserver: role name already exists",
		"etcdserver: role name not found",
		"etcdserver: role is not granted to the user",
		"etcdserver: permission is not granted to the role",
		"etcdserver: authentication is not enabled",
		"etcdserver: not leader",
		"etcdserver: not capable",
		"etcdserver: rpc not supported for learner",
		"etcdserver: bad leader transferee",
		"etcdserver: cluster version not found during downgrade",
		"etcdserver: cluster has a downgrade job in progress",
		"etcdserver: no inflight downgrade job",
	},
	codes.PermissionDenied: {"etcdserver: permission denied"},
	codes.Unauthenticated:  {"etcdserver: invalid auth token"},
	codes.DataLoss:         {"etcdserver: corrupt cluster"},
	codes.Canceled: {
		"etcdserver: request canceled",
		"etcdserver: watch canceled",
	},
	codes.DeadlineExceeded: {"etcdserver: context deadline exceeded"},
	codes.Unavailable: {
		"etcdserver: no leader",
		"etcdserver: leader changed",
		"etcdserver: server stopped",
		"etcdserver: request timed out",
		"etcdserver: request timed out, possibly due to previous leader failure",
		"etcdserver: request timed out, possibly due to connection lost",
		"etcdserver: request timed out, waiting for the applied index took too long",
		"etcdserver: unhealthy cluster",
	},
})

func makeTable(byCode map[codes.Code][]string) map[string]*Status {
	t := make(map[string]*Status)
	for code, texts := range byCode {
		for _, text := range texts {
			t[text] = newStatus(code, text)
		}
	}
	return t
}

// raftTable gives the outcomes that package raft reports in its own words the
// statuses that etcd would answer.
var raftTable = []struct {
	err    error
	status *Status
}{
	{raft.ErrTooManyRequests, tabled("etcdserver: too many requests")},
	{raft.ErrTooLarge, tabled("etcdserver: request is too large")},
	{raft.ErrStopped, tabled("etcdserver: server stopped")},
	// It has waited for a leader for as long as a request may take; "no leader" is
	// what etcd says to those who ask for one before anything else.
	{raft.ErrNoLeader, tabled("etcdserver: request timed out")},
	{raft.ErrLeaderChanged, tabled("etcdserver: leader changed")},
	{raft.ErrProposalDropped, tabled("etcdserver: leader changed")},
	{raft.ErrTimeout, tabled("etcdserver: request timed out")},
	{raft.ErrNotLeader, tabled("etcdserver: not leader")},
	{raft.ErrConfChangeRefused, tabled("etcdserver: unhealthy cluster")},
}

// tabled returns the table's status for a text that must be in it.
func tabled(text string) *Status {
	s := table[text]
	if s == nil {
		panic("rpc: no such status: " + text)
	}
	return s
}

// StatusOf returns how a call ends that failed with err: err itself if it is a
// Status, else the table's entry for the text of err or of something it wraps.
func StatusOf(err error) *Status {
	var s *Status
	if errors.As(err, &s) {
		return s
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if s := table[e.Error()]; s != nil {
			return s
		}
	}
	for _, r := range raftTable {
		if errors.Is(err, r.err) {
			return r.status
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return newStatus(codes.Canceled, context.Canceled.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return newStatus(codes.DeadlineExceeded, context.DeadlineExceeded.Error())
	}
	return newStatus(codes.Unknown, err.Error())
}

// lineStatus is how a call of the lock or election service ends that failed with
// err. etcd serves these by its own client, whose errors have a text but no
// code, so clients get Unknown; only a caller's own end keeps its code.
func lineStatus(err error) *Status {
	st := StatusOf(err)
	if st.Text == context.Canceled.Error() || st.Text == context.DeadlineExceeded.Error() {
		return st
	}
	return newStatus(codes.Unknown, st.Text)
}

// malformed is the status of a request that is not valid protobuf, in the
// words in which grpc-go reports it.
func malformed(err error) *Status {
	return newStatus(codes.Internal, "grpc: error unmarshalling request: "+err.Error())
}

// unimplemented is the status of a method that the API has and we do not.
func unimplemented(service, method string) *Status {
	return newStatus(codes.Unimplemented, "method "+method+" of service "+service+" is not implemented")
}
