package metrics

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"quire/test/harness"
)

// history makes the same requests of every kind to any server.
type history struct {
	*testing.T
	s   *harness.Server
	c   *clientv3.Client
	ctx context.Context
}

func (h history) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h history) run() {
	h.keys()
	h.leases()
	h.watches()
	h.upkeep()
	h.services()
	h.probes()
}

func (h history) keys() {
	for _, key := range []string{"a", "b", "c", "c"} {
		_, err := h.c.Put(h.ctx, key, "value")
		h.must(err)
	}
	for range 3 {
		_, err := h.c.Get(h.ctx, "", clientv3.WithFromKey())
		h.must(err)
	}
	_, err := h.c.Get(h.ctx, "a", clientv3.WithRev(99))
	if err == nil {
		h.Fatal("a future revision is read")
	}
	_, err = h.c.Delete(h.ctx, "a", clientv3.WithRange("c"))
	h.must(err)
	_, err = h.c.Txn(h.ctx).If(clientv3.Compare(clientv3.Version("c"), ">", 0)).
		Then(clientv3.OpPut("d", "1"), clientv3.OpGet("c"), clientv3.OpDelete("nothing")).Commit()
	h.must(err)
	_, err = h.c.Txn(h.ctx).Then(clientv3.OpPut("e", "1")).Commit()
	h.must(err)
	_, err = h.c.Txn(h.ctx).Then(clientv3.OpGet("c"), clientv3.OpGet("d")).Commit()
	h.must(err)
	if _, err := h.c.Put(h.ctx, "", "no key"); err == nil {
		h.Fatal("an empty key is accepted")
	}
	if _, err := h.c.Put(h.ctx, "f", "", clientv3.WithLease(12345)); err == nil {
		h.Fatal("a lease that does not exist is accepted")
	}
}

func (h history) leases() {
	kept, err := h.c.Grant(h.ctx, 100)
	h.must(err)
	_, err = h.c.Put(h.ctx, "leased", "", clientv3.WithLease(kept.ID))
	h.must(err)
	stream, err := pb.NewLeaseClient(h.s.Conn(h.T)).LeaseKeepAlive(h.ctx)
	h.must(err)
	h.must(stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(kept.ID)}))
	_, err = stream.Recv()
	h.must(err)
	h.must(stream.CloseSend())
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		h.Fatal(err)
	}
	_, err = h.c.TimeToLive(h.ctx, kept.ID)
	h.must(err)
	_, err = h.c.Leases(h.ctx)
	h.must(err)
	_, err = h.c.Revoke(h.ctx, kept.ID)
	h.must(err)
	short, err := h.c.Grant(h.ctx, 2)
	h.must(err)
	_, err = h.c.Put(h.ctx, "expires", "", clientv3.WithLease(short.ID))
	h.must(err)
	w := h.c.Watch(h.ctx, "expires", clientv3.WithFilterPut())
	if resp := <-w; resp.Err() != nil || len(resp.Events) != 1 {
		h.Fatalf("the lease does not end: %v", resp)
	}
}

func (h history) watches() {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	w := h.c.Watch(ctx, "w", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if resp := <-w; !resp.Created {
		h.Fatal("not created")
	}
	_, err := h.c.Put(ctx, "w1", "")
	h.must(err)
	if resp := <-w; len(resp.Events) != 1 {
		h.Fatal("no event")
	}
	h.must(h.c.RequestProgress(ctx))
	if resp := <-w; !resp.IsProgressNotify() {
		h.Fatal("no progress")
	}
}

func (h history) upkeep() {
	_, err := h.c.Compact(h.ctx, 5, clientv3.WithCompactPhysical())
	h.must(err)
	_, err = h.c.Defragment(h.ctx, h.s.Endpoint)
	h.must(err)
	_, err = h.c.Status(h.ctx, h.s.Endpoint)
	h.must(err)
	_, err = h.c.HashKV(h.ctx, h.s.Endpoint, 0)
	h.must(err)
	m := pb.NewMaintenanceClient(h.s.Conn(h.T))
	_, err = m.Hash(h.ctx, &pb.HashRequest{})
	h.must(err)
	_, err = m.Alarm(h.ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 0x1234567890abcdef, Alarm: pb.AlarmType_NOSPACE})
	h.must(err)
	_, err = h.c.AlarmList(h.ctx)
	h.must(err)
	read(h.T, h.s) // somebody sees the alarm
	_, err = h.c.MemberList(h.ctx)
	h.must(err)
	snapshot, err := h.c.Snapshot(h.ctx)
	h.must(err)
	_, err = io.Copy(io.Discard, snapshot)
	h.must(err)
	h.must(snapshot.Close())
	if _, err := h.c.MemberPromote(h.ctx, 1); err == nil {
		h.Fatal("a member that does not exist is promoted")
	}
	_, err = h.c.AuthStatus(h.ctx)
	h.must(err)
	if _, err := h.c.Authenticate(h.ctx, "root", "x"); err == nil {
		h.Fatal("somebody logs in")
	}
}

func (h history) services() {
	conn := h.s.Conn(h.T)
	lock := lpb.NewLockClient(conn)
	_, _ = h.c.AlarmDisarm(h.ctx, &clientv3.AlarmMember{})
	// With a lease of its own the names of the keys are equally long on each server.
	_, err := pb.NewLeaseClient(conn).LeaseGrant(h.ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 60})
	h.must(err)
	l, err := lock.Lock(h.ctx, &lpb.LockRequest{Name: []byte("lock"), Lease: 7})
	h.must(err)
	_, err = lock.Unlock(h.ctx, &lpb.UnlockRequest{Key: l.Key})
	h.must(err)
	_, err = epb.NewElectionClient(conn).Campaign(h.ctx, &epb.CampaignRequest{Name: []byte("election"), Lease: 7})
	h.must(err)
	_, err = healthpb.NewHealthClient(conn).Check(h.ctx, &healthpb.HealthCheckRequest{})
	h.must(err)
	resp, err := http.Post("http://"+h.s.Endpoint+"/v3/kv/range", "", strings.NewReader(`{"key":"YQ=="}`))
	h.must(err)
	resp.Body.Close()
}

func (h history) probes() {
	for _, path := range []string{"/health", "/livez", "/readyz", "/version", "/metrics", "/health?exclude=NOSPACE"} {
		resp, err := http.Get("http://" + h.s.Endpoint + path)
		h.must(err)
		resp.Body.Close()
	}
}
