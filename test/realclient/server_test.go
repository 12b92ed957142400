package realclient

import (
	"context"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"quire/test/harness"
)

// server is a running server with one bare gRPC client of each service and a context for the requests of a test.
type server struct {
	*harness.Server
	ctx         context.Context
	kv          pb.KVClient
	watch       pb.WatchClient
	lease       pb.LeaseClient
	maintenance pb.MaintenanceClient
	cluster     pb.ClusterClient
}

func startServer(t *testing.T, flags ...string) *server {
	t.Helper()
	return connect(t, harness.Start(t, flags...))
}

func connect(t *testing.T, s *harness.Server) *server {
	t.Helper()
	conn := s.Conn(t)
	return &server{
		Server: s, ctx: harness.Context(t),
		kv: pb.NewKVClient(conn), watch: pb.NewWatchClient(conn), lease: pb.NewLeaseClient(conn),
		maintenance: pb.NewMaintenanceClient(conn), cluster: pb.NewClusterClient(conn),
	}
}

// startClient starts a server and returns it with a clientv3 client.
func startClient(t *testing.T, flags ...string) (*server, *clientv3.Client) {
	t.Helper()
	s := startServer(t, flags...)
	return s, s.Client(t)
}

// grant makes a lease and returns its id.
func (s *server) grant(t *testing.T, id, ttl int64) int64 {
	t.Helper()
	resp, err := s.lease.LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	check(t, err)
	return resp.ID
}

// revision is the store's current revision.
func (s *server) revision(t *testing.T) int64 {
	t.Helper()
	return mustGet(t, s.kv, get("\x00", "")).GetHeader().GetRevision()
}
