package auth

import (
	"context"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"quire/test/harness"
)

// cheap makes hashing fast where its cost does not matter.
const cheap = "--bcrypt-cost=4"

// server is a server with bare gRPC clients.
type server struct {
	*harness.Server
	conn        *grpc.ClientConn
	kv          pb.KVClient
	watch       pb.WatchClient
	lease       pb.LeaseClient
	maintenance pb.MaintenanceClient
	cluster     pb.ClusterClient
	auth        pb.AuthClient
}

func connect(t testing.TB, s *harness.Server) *server {
	t.Helper()
	c := s.Conn(t)
	return &server{s, c, pb.NewKVClient(c), pb.NewWatchClient(c), pb.NewLeaseClient(c), pb.NewMaintenanceClient(c), pb.NewClusterClient(c), pb.NewAuthClient(c)}
}

// roles are the users that every test has, each with the password "pw", and what they may.
var roles = map[string]*authpb.Permission{
	"none":   nil,
	"exact":  {PermType: authpb.Permission_READWRITE, Key: []byte("a/1")},
	"ranged": {PermType: authpb.Permission_READWRITE, Key: []byte("a/"), RangeEnd: []byte("a0")},
	"reader": {PermType: authpb.Permission_READ, Key: []byte("a/"), RangeEnd: []byte("a0")},
	"writer": {PermType: authpb.Permission_WRITE, Key: []byte("a/"), RangeEnd: []byte("a0")},
}

// start runs the server under test with the users of roles, root among them, and authentication switched on.
func start(t testing.TB, flags ...string) *server {
	t.Helper()
	s := connect(t, harness.Start(t, append([]string{cheap}, flags...)...))
	s.setUp(t)
	return s
}

func (s *server) setUp(t testing.TB) {
	t.Helper()
	ctx := harness.Context(t)
	for name, perm := range roles {
		_, err := s.auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: name, Password: "pw"})
		check(t, err)
		if perm == nil {
			continue
		}
		_, err = s.auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: name})
		check(t, err)
		_, err = s.auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: name, Perm: perm})
		check(t, err)
		_, err = s.auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: name, Role: name})
		check(t, err)
	}
	_, err := s.auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "pw"})
	check(t, err)
	_, err = s.auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	check(t, err)
	_, err = s.auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
	check(t, err)
}

// as is a context of requests in the name of a user.
func (s *server) as(t testing.TB, user string) context.Context {
	t.Helper()
	resp, err := s.auth.Authenticate(harness.Context(t), &pb.AuthenticateRequest{Name: user, Password: "pw"})
	check(t, err)
	return withToken(harness.Context(t), resp.Token)
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "token", token)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused expects a status.
func refused(t testing.TB, what string, err error, code codes.Code, text string) {
	t.Helper()
	if got := status.Convert(err); got.Code() != code || got.Message() != text {
		t.Errorf("%s: %v %q, want %v %q", what, got.Code(), got.Message(), code, text)
	}
}

func denied(t testing.TB, what string, err error) {
	t.Helper()
	refused(t, what, err, codes.PermissionDenied, "etcdserver: permission denied")
}

func nobody(t testing.TB, what string, err error) {
	t.Helper()
	refused(t, what, err, codes.InvalidArgument, "etcdserver: user name is empty")
}

func badToken(t testing.TB, what string, err error) {
	t.Helper()
	refused(t, what, err, codes.Unauthenticated, "etcdserver: invalid auth token")
}

func put(key string) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: []byte("v")}
}

func putOp(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func txnOp(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}
