package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"quire/test/harness"
)

// cell is one call of the matrix: a method with a request that is harmless when it is permitted.
type cell struct {
	path  string
	req   proto.Message
	resp  func() proto.Message
	least string // who may: anybody, user, exact (the key a/1), ranged (all of a/), root
}

// the identities in the order of their rights; each may what those before it may.
var identities = []string{"nobody", "bad token", "none", "exact", "ranged", "root"}

var matrix = []cell{
	{"etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte("a/1")}, newer[pb.RangeResponse](), "exact"},
	{"etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte("a/1"), Serializable: true}, newer[pb.RangeResponse](), "exact"},
	{"etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte("a/"), RangeEnd: []byte("a0")}, newer[pb.RangeResponse](), "ranged"},
	{"etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte("a/"), RangeEnd: []byte("a0"), CountOnly: true}, newer[pb.RangeResponse](), "ranged"},
	{"etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte("a/"), RangeEnd: []byte{0}}, newer[pb.RangeResponse](), "root"},
	{"etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, newer[pb.RangeResponse](), "root"},
	{"etcdserverpb.KV/RangeStream", &pb.RangeRequest{Key: []byte("a/1")}, newer[pb.RangeStreamResponse](), "exact"},
	{"etcdserverpb.KV/RangeStream", &pb.RangeRequest{Key: []byte("a/"), RangeEnd: []byte("a0")}, newer[pb.RangeStreamResponse](), "ranged"},
	{"etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte("a/1")}, newer[pb.PutResponse](), "exact"},
	{"etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte("a/2")}, newer[pb.PutResponse](), "ranged"},
	{"etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte("b")}, newer[pb.PutResponse](), "root"},
	{"etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte("a/1"), Lease: leaseOfB}, newer[pb.PutResponse](), "root"},
	{"etcdserverpb.KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte("a/1")}, newer[pb.DeleteRangeResponse](), "exact"},
	{"etcdserverpb.KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte("a/"), RangeEnd: []byte("a0"), PrevKv: true}, newer[pb.DeleteRangeResponse](), "ranged"},
	{"etcdserverpb.KV/Txn", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a/1")}}, Success: []*pb.RequestOp{putOp(put("a/1"))}}, newer[pb.TxnResponse](), "exact"},
	{"etcdserverpb.KV/Txn", &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("b")}}}, newer[pb.TxnResponse](), "root"},
	{"etcdserverpb.KV/Txn", &pb.TxnRequest{Failure: []*pb.RequestOp{txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(put("a/2"))}})}}, newer[pb.TxnResponse](), "ranged"},
	{"etcdserverpb.KV/Txn", &pb.TxnRequest{}, newer[pb.TxnResponse](), "anybody"},
	{"etcdserverpb.KV/Compact", &pb.CompactionRequest{Revision: 1}, newer[pb.CompactionResponse](), "root"},
	{"etcdserverpb.Watch/Watch", watchOf("a/1", ""), newer[pb.WatchResponse](), "exact"},
	{"etcdserverpb.Watch/Watch", watchOf("a/", "a0"), newer[pb.WatchResponse](), "ranged"},
	{"etcdserverpb.Watch/Watch", watchOf("a/1", "\x00"), newer[pb.WatchResponse](), "root"},
	{"etcdserverpb.Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: 77, TTL: 100}, newer[pb.LeaseGrantResponse](), "user"},
	{"etcdserverpb.Lease/LeaseKeepAlive", &pb.LeaseKeepAliveRequest{ID: leaseOfA}, newer[pb.LeaseKeepAliveResponse](), "exact"},
	{"etcdserverpb.Lease/LeaseKeepAlive", &pb.LeaseKeepAliveRequest{ID: leaseOfB}, newer[pb.LeaseKeepAliveResponse](), "root"},
	{"etcdserverpb.Lease/LeaseKeepAlive", &pb.LeaseKeepAliveRequest{ID: 123456}, newer[pb.LeaseKeepAliveResponse](), "user"},
	{"etcdserverpb.Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: leaseOfB}, newer[pb.LeaseTimeToLiveResponse](), "user"},
	{"etcdserverpb.Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: leaseOfA, Keys: true}, newer[pb.LeaseTimeToLiveResponse](), "exact"},
	{"etcdserverpb.Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: leaseOfB, Keys: true}, newer[pb.LeaseTimeToLiveResponse](), "root"},
	{"etcdserverpb.Lease/LeaseLeases", &pb.LeaseLeasesRequest{}, newer[pb.LeaseLeasesResponse](), "root"},
	{"etcdserverpb.Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: leaseOfB}, newer[pb.LeaseRevokeResponse](), "root"},
	{"etcdserverpb.Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: leaseOfA}, newer[pb.LeaseRevokeResponse](), "exact"},
	{"etcdserverpb.Cluster/MemberList", &pb.MemberListRequest{}, newer[pb.MemberListResponse](), "user"},
	{"etcdserverpb.Cluster/MemberList", &pb.MemberListRequest{Linearizable: true}, newer[pb.MemberListResponse](), "user"},
	{"etcdserverpb.Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"nothing"}}, newer[pb.MemberAddResponse](), "anybody"}, // the URLs are looked at first
	{"etcdserverpb.Cluster/MemberRemove", &pb.MemberRemoveRequest{ID: 5}, newer[pb.MemberRemoveResponse](), "root"},
	{"etcdserverpb.Cluster/MemberPromote", &pb.MemberPromoteRequest{ID: 5}, newer[pb.MemberPromoteResponse](), "root"},
	{"etcdserverpb.Cluster/MemberUpdate", &pb.MemberUpdateRequest{ID: 5, PeerURLs: []string{"http://127.0.0.1:1"}}, newer[pb.MemberUpdateResponse](), "root"},
	{"etcdserverpb.Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_GET}, newer[pb.AlarmResponse](), "user"},
	{"etcdserverpb.Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}, newer[pb.AlarmResponse](), "root"},
	{"etcdserverpb.Maintenance/Status", &pb.StatusRequest{}, newer[pb.StatusResponse](), "user"},
	{"etcdserverpb.Maintenance/Defragment", &pb.DefragmentRequest{}, newer[pb.DefragmentResponse](), "root"},
	{"etcdserverpb.Maintenance/Hash", &pb.HashRequest{}, newer[pb.HashResponse](), "root"},
	{"etcdserverpb.Maintenance/HashKV", &pb.HashKVRequest{}, newer[pb.HashKVResponse](), "root"},
	{"etcdserverpb.Maintenance/Snapshot", &pb.SnapshotRequest{}, newer[pb.SnapshotResponse](), "root"},
	{"etcdserverpb.Maintenance/MoveLeader", &pb.MoveLeaderRequest{TargetID: 5}, newer[pb.MoveLeaderResponse](), "root"},
	{"etcdserverpb.Maintenance/Downgrade", &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: "nothing"}, newer[pb.DowngradeResponse](), "root"},
	{"v3lockpb.Lock/Lock", &lpb.LockRequest{Name: []byte("a/lock")}, newer[lpb.LockResponse](), "ranged"},
	{"v3lockpb.Lock/Unlock", &lpb.UnlockRequest{Key: []byte("a/1")}, newer[lpb.UnlockResponse](), "exact"},
	{"v3electionpb.Election/Campaign", &epb.CampaignRequest{Name: []byte("a/election")}, newer[epb.CampaignResponse](), "ranged"},
	{"v3electionpb.Election/Proclaim", &epb.ProclaimRequest{Leader: &epb.LeaderKey{Name: []byte("b"), Key: []byte("b/1")}}, newer[epb.ProclaimResponse](), "root"},
	{"v3electionpb.Election/Leader", &epb.LeaderRequest{Name: []byte("a/election")}, newer[epb.LeaderResponse](), "ranged"},
	{"v3electionpb.Election/Observe", &epb.LeaderRequest{Name: []byte("a/election")}, newer[epb.LeaderResponse](), "anybody"}, // who may not is told nothing
	{"v3electionpb.Election/Resign", &epb.ResignRequest{Leader: &epb.LeaderKey{Name: []byte("b"), Key: []byte("b/1")}}, newer[epb.ResignResponse](), "root"},
	{"etcdserverpb.Auth/AuthStatus", &pb.AuthStatusRequest{}, newer[pb.AuthStatusResponse](), "anybody"},
	{"etcdserverpb.Auth/Authenticate", &pb.AuthenticateRequest{Name: "exact", Password: "pw"}, newer[pb.AuthenticateResponse](), "anybody"},
	{"etcdserverpb.Auth/UserAdd", &pb.AuthUserAddRequest{Name: "new", Password: "pw"}, newer[pb.AuthUserAddResponse](), "root"},
	{"etcdserverpb.Auth/UserGet", &pb.AuthUserGetRequest{Name: "exact"}, newer[pb.AuthUserGetResponse](), "root"}, // and exact, of itself
	{"etcdserverpb.Auth/UserList", &pb.AuthUserListRequest{}, newer[pb.AuthUserListResponse](), "root"},
	{"etcdserverpb.Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "new", Password: "pw2"}, newer[pb.AuthUserChangePasswordResponse](), "root"},
	{"etcdserverpb.Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "new", Role: "reader"}, newer[pb.AuthUserGrantRoleResponse](), "root"},
	{"etcdserverpb.Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "new", Role: "reader"}, newer[pb.AuthUserRevokeRoleResponse](), "root"},
	{"etcdserverpb.Auth/UserDelete", &pb.AuthUserDeleteRequest{Name: "new"}, newer[pb.AuthUserDeleteResponse](), "root"},
	{"etcdserverpb.Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: "new"}, newer[pb.AuthRoleAddResponse](), "root"},
	{"etcdserverpb.Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "ranged"}, newer[pb.AuthRoleGetResponse](), "ranged"}, // its own
	{"etcdserverpb.Auth/RoleList", &pb.AuthRoleListRequest{}, newer[pb.AuthRoleListResponse](), "root"},
	{"etcdserverpb.Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "new", Perm: &authpb.Permission{Key: []byte("k")}}, newer[pb.AuthRoleGrantPermissionResponse](), "root"},
	{"etcdserverpb.Auth/RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: "new", Key: []byte("k")}, newer[pb.AuthRoleRevokePermissionResponse](), "root"},
	{"etcdserverpb.Auth/RoleDelete", &pb.AuthRoleDeleteRequest{Role: "new"}, newer[pb.AuthRoleDeleteResponse](), "root"},
	{"etcdserverpb.Auth/AuthEnable", &pb.AuthEnableRequest{}, newer[pb.AuthEnableResponse](), "root"},
	{"etcdserverpb.Auth/AuthDisable", &pb.AuthDisableRequest{}, newer[pb.AuthDisableResponse](), "root"}, // the last one
}

// The keys that leases hold.
const (
	leaseOfA = 101 // a/1
	leaseOfB = 102 // b
)

func newer[T any, P interface {
	*T
	proto.Message
}]() func() proto.Message {
	return func() proto.Message { return P(new(T)) }
}

func watchOf(key, end string) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

// TestMatrix calls every method in every name, on quire and on upstream, and compares each outcome: with upstream's, and
// with what the table says.
func TestMatrix(t *testing.T) {
	ours, theirs := start(t), connect(t, harness.StartUpstream(t, cheap))
	theirs.setUp(t)
	called := map[string]bool{}
	for _, c := range matrix {
		called[c.path] = true
		for _, who := range identities {
			theirs.attachLeases(t)
			ours.attachLeases(t)
			theirs, ours := theirs.outcome(t, c, who), ours.outcome(t, c, who)
			what := fmt.Sprintf("%s %v as %s", c.path, c.req, who)
			if ours.Code() == codes.Unimplemented && who == "root" {
				t.Logf("%s: quire does not serve it yet; upstream says %v %s", what, theirs.Code(), theirs.Message())
			} else if ours.Code() != theirs.Code() || ours.Message() != theirs.Message() {
				t.Errorf("%s: %v %q, upstream says %v %q", what, ours.Code(), ours.Message(), theirs.Code(), theirs.Message())
			}
			if got, want := permitted(theirs), may(c, who); got != want {
				t.Errorf("%s: permitted %v, want %v (%v)", what, got, want, theirs.Message())
			}
		}
	}
	if len(called) < 40 {
		t.Errorf("%d methods", len(called))
	}
}

// attachLeases makes the two leases, if they are gone, and gives them their keys.
func (s *server) attachLeases(t *testing.T) {
	t.Helper()
	ctx := s.as(t, "root")
	for lease, key := range map[int64]string{leaseOfA: "a/1", leaseOfB: "b"} {
		_, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: lease, TTL: 1000})
		if status.Code(err) != codes.FailedPrecondition { // there already
			check(t, err)
		}
		_, err = s.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Lease: lease})
		check(t, err)
	}
}

// may tells whether the table permits a call.
func may(c cell, who string) bool {
	rank := map[string]int{"nobody": 0, "bad token": 0, "none": 1, "exact": 2, "ranged": 3, "root": 4}
	needs := map[string]int{"anybody": 0, "user": 1, "exact": 2, "ranged": 3, "root": 4}
	switch {
	case who == "bad token":
		return slices.Contains([]string{"Authenticate", "MemberAdd", "Observe"}, path.Base(c.path)) // which do not look at it, or do not tell
	case strings.HasSuffix(c.path, "/UserGet") && who == "exact":
		return true
	}
	return rank[who] >= needs[c.least]
}

// permitted tells whether a call was not refused for who made it. It may have failed for other reasons.
func permitted(s *status.Status) bool {
	for _, text := range []string{"permission denied", "user name is empty", "invalid auth token", "revision of auth store is old"} {
		if strings.Contains(s.Message(), text) {
			return false
		}
	}
	return true
}

// outcome makes a call and returns how it went; a watch is refused by a response.
func (s *server) outcome(t *testing.T, c cell, who string) *status.Status {
	t.Helper()
	limit := time.Minute
	if strings.Contains(c.path, "Lock/") || strings.Contains(c.path, "Election/") {
		limit = time.Second // who is permitted may have to wait in line
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	switch who {
	case "nobody":
	case "bad token":
		ctx = withToken(ctx, "junk")
	default:
		resp, err := s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: who, Password: "pw"})
		check(t, err)
		ctx = withToken(ctx, resp.Token)
	}
	stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+c.path)
	check(t, err)
	if err := stream.SendMsg(c.req); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	check(t, stream.CloseSend())
	resp := c.resp()
	if err := stream.RecvMsg(resp); err != nil {
		if errors.Is(err, io.EOF) {
			return status.New(codes.OK, "no response")
		}
		if s := status.Convert(err); s.Code() != codes.DeadlineExceeded {
			return s
		}
		return status.New(codes.DeadlineExceeded, "") // in the words of whoever noticed first
	}
	if w, ok := resp.(*pb.WatchResponse); ok {
		return status.New(codes.OK, w.CancelReason)
	}
	return status.New(codes.OK, "")
}
