package rpc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	pb "quire/api/etcdserverpb"
	epb "quire/api/v3electionpb"
	lpb "quire/api/v3lockpb"
)

// caller runs methods of one member in a test.
type caller struct {
	testing.TB
	s *Server
}

func (c caller) try(ctx context.Context, method string, req, resp wireMessage) error {
	b, err := req.MarshalVT()
	if err != nil {
		return err
	}
	out, err := c.s.Invoke(ctx, method, b)
	if err != nil {
		return err
	}
	return resp.UnmarshalVT(out)
}

func (c caller) must(method string, req, resp wireMessage) {
	c.Helper()
	if err := c.try(c.Context(), method, req, resp); err != nil {
		c.Fatalf("%s: %v", method, err)
	}
}

func (c caller) lease(id, ttl int64) {
	c.Helper()
	c.must("/etcdserverpb.Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: id, TTL: ttl}, &pb.LeaseGrantResponse{})
}

func (c caller) keys(prefix string) (keys []string) {
	c.Helper()
	var resp pb.RangeResponse
	c.must(rangeMethod, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd([]byte(prefix))}, &resp)
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// pending is a call that waits.
type pending[R any] struct {
	done   chan error
	resp   R
	cancel context.CancelFunc
}

func begin[R any, P interface {
	*R
	wireMessage
}](c caller, method string, req wireMessage) *pending[R] {
	ctx, cancel := context.WithCancel(c.Context())
	p := &pending[R]{done: make(chan error, 1), cancel: cancel}
	go func() { p.done <- c.try(ctx, method, req, P(&p.resp)) }()
	return p
}

func (p *pending[R]) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-p.done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the call does not end")
		return nil
	}
}

func (p *pending[R]) mustWait(t testing.TB) {
	t.Helper()
	select {
	case err := <-p.done:
		t.Fatalf("the call has ended: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
}

const (
	lockMethod     = "/v3lockpb.Lock/Lock"
	unlockMethod   = "/v3lockpb.Lock/Unlock"
	campaignMethod = "/v3electionpb.Election/Campaign"
	proclaimMethod = "/v3electionpb.Election/Proclaim"
	resignMethod   = "/v3electionpb.Election/Resign"
	leaderMethod   = "/v3electionpb.Election/Leader"
)

func TestLockPassesOnInOrder(t *testing.T) {
	c := caller{t, newRealMember(t).Server}
	var waiting []*pending[lpb.LockResponse]
	for i := range int64(4) {
		c.lease(10+i, 60)
		waiting = append(waiting, begin[lpb.LockResponse](c, lockMethod, &lpb.LockRequest{Name: []byte("l"), Lease: 10 + i}))
		if !eventually(func() bool { return len(c.keys("l/")) == int(i)+1 }) {
			t.Fatal("the call has not joined the line")
		}
	}
	for i, p := range waiting {
		if err := p.wait(t); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("l/%x", 10+i); string(p.resp.Key) != want {
			t.Errorf("lock %d has the key %q, want %q", i, p.resp.Key, want)
		}
		for _, later := range waiting[i+1:] {
			later.mustWait(t)
		}
		c.must(unlockMethod, &lpb.UnlockRequest{Key: p.resp.Key}, &lpb.UnlockResponse{})
	}
	if left := c.keys("l/"); len(left) != 0 {
		t.Errorf("keys left: %q", left)
	}
}

// TestLockAgain: a lease that holds the lock, or waits for it, keeps its place.
func TestLockAgain(t *testing.T) {
	c := caller{t, newRealMember(t).Server}
	c.lease(1, 60)
	req := &lpb.LockRequest{Name: []byte("l"), Lease: 1}
	var first, second lpb.LockResponse
	c.must(lockMethod, req, &first)
	c.must(lockMethod, req, &second)
	if string(first.Key) != string(second.Key) || second.Header.Revision != first.Header.Revision {
		t.Errorf("first %v, second %v", &first, &second)
	}
}

func TestLockWithoutLease(t *testing.T) {
	c := caller{t, newRealMember(t).Server}
	var resp lpb.LockResponse
	c.must(lockMethod, &lpb.LockRequest{Name: []byte("l")}, &resp)
	var leases pb.LeaseLeasesResponse
	c.must("/etcdserverpb.Lease/LeaseLeases", &pb.LeaseLeasesRequest{}, &leases)
	if len(leases.Leases) != 1 || string(resp.Key) != fmt.Sprintf("l/%x", leases.Leases[0].ID) {
		t.Errorf("key %q, leases %v", resp.Key, leases.Leases)
	}
	var ttl pb.LeaseTimeToLiveResponse
	c.must("/etcdserverpb.Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: leases.Leases[0].ID}, &ttl)
	if ttl.GrantedTTL != 60 {
		t.Errorf("granted for %d s", ttl.GrantedTTL)
	}
}

func TestLockFailures(t *testing.T) {
	c := caller{t, newRealMember(t).Server}
	err := c.try(t.Context(), lockMethod, &lpb.LockRequest{Name: []byte("l"), Lease: 5}, &lpb.LockResponse{})
	wantStatus(t, err, codes.Unknown, "etcdserver: requested lease not found")
	err = c.try(t.Context(), unlockMethod, &lpb.UnlockRequest{}, &lpb.UnlockResponse{})
	wantStatus(t, err, codes.Unknown, "etcdserver: key is not provided")
	_, err = c.s.Invoke(t.Context(), lockMethod, []byte{0xff})
	if st := StatusOf(err); st.Code != codes.Internal {
		t.Errorf("malformed request: %v", err)
	}
}

// TestLockOfClientThatGoes: who gives up waiting leaves the line, so that the
// next one gets the lock when it is free.
func TestLockOfClientThatGoes(t *testing.T) {
	c := caller{t, newRealMember(t).Server}
	for i := range int64(3) {
		c.lease(i+1, 60)
	}
	var held lpb.LockResponse
	c.must(lockMethod, &lpb.LockRequest{Name: []byte("l"), Lease: 1}, &held)
	goes := begin[lpb.LockResponse](c, lockMethod, &lpb.LockRequest{Name: []byte("l"), Lease: 2})
	eventually(func() bool { return len(c.keys("l/")) == 2 })
	stays := begin[lpb.LockResponse](c, lockMethod, &lpb.LockRequest{Name: []byte("l"), Lease: 3})
	eventually(func() bool { return len(c.keys("l/")) == 3 })
	goes.cancel()
	wantStatus(t, goes.wait(t), codes.Canceled, "context canceled")
	if !eventually(func() bool { return len(c.keys("l/")) == 2 }) {
		t.Errorf("its key is still there: %q", c.keys("l/"))
	}
	stays.mustWait(t)
	c.must(unlockMethod, &lpb.UnlockRequest{Key: held.Key}, &lpb.UnlockResponse{})
	if err := stays.wait(t); err != nil {
		t.Error(err)
	}
}

// TestLockWhoseLeaseEnds: the end of the lease is noticed when the turn comes.
func TestLockWhoseLeaseEnds(t *testing.T) {
	c := caller{t, newRealMember(t).Server}
	c.lease(1, 60)
	c.lease(2, 60)
	var held lpb.LockResponse
	c.must(lockMethod, &lpb.LockRequest{Name: []byte("l"), Lease: 1}, &held)
	p := begin[lpb.LockResponse](c, lockMethod, &lpb.LockRequest{Name: []byte("l"), Lease: 2})
	eventually(func() bool { return len(c.keys("l/")) == 2 })
	c.must("/etcdserverpb.Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 2}, &pb.LeaseRevokeResponse{})
	p.mustWait(t)
	c.must(unlockMethod, &lpb.UnlockRequest{Key: held.Key}, &lpb.UnlockResponse{})
	wantStatus(t, p.wait(t), codes.Unknown, "mutex: session is expired")
}

// TestLockOfHolderWhoseLeaseEnds: an expired holder frees the lock.
func TestLockOfHolderWhoseLeaseEnds(t *testing.T) {
	c := caller{t, newRealMember(t).Server}
	c.lease(1, 1)
	c.lease(2, 60)
	c.must(lockMethod, &lpb.LockRequest{Name: []byte("l"), Lease: 1}, &lpb.LockResponse{})
	p := begin[lpb.LockResponse](c, lockMethod, &lpb.LockRequest{Name: []byte("l"), Lease: 2})
	if err := p.wait(t); err != nil {
		t.Error(err)
	}
}

// TestLockExcludes lets many clients add to a counter that only the lock guards,
// while others give up, compactions run and leases end.
func TestLockExcludes(t *testing.T) {
	m := newRealMember(t)
	c := caller{t, m.Server}
	var inside, got atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			lease := int64(100 + i)
			c.lease(lease, 60)
			for range 10 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rnd.IntN(40))*time.Millisecond)
				var resp lpb.LockResponse
				err := c.try(ctx, lockMethod, &lpb.LockRequest{Name: []byte("l"), Lease: lease}, &resp)
				cancel()
				if err != nil {
					continue
				}
				got.Add(1)
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d clients hold the lock", n)
				}
				time.Sleep(time.Millisecond)
				inside.Add(-1)
				c.must(unlockMethod, &lpb.UnlockRequest{Key: resp.Key}, &lpb.UnlockResponse{})
				_ = m.Compact(t.Context(), resp.Header.Revision)
			}
		})
	}
	wg.Wait()
	if got.Load() == 0 {
		t.Error("nobody got the lock")
	}
}

// TestLockEndsWithServer: whoever waits is told.
func TestLockEndsWithServer(t *testing.T) {
	m := newRealMember(t)
	c := caller{t, m.Server}
	c.must(lockMethod, &lpb.LockRequest{Name: []byte("l")}, &lpb.LockResponse{})
	p := begin[lpb.LockResponse](c, lockMethod, &lpb.LockRequest{Name: []byte("l")})
	eventually(func() bool { return len(c.keys("l/")) == 2 })
	p.mustWait(t)
	m.Server.leader.failAll(errStopped)
	wantStatus(t, p.wait(t), codes.Unknown, "etcdserver: server stopped")
}

func TestElection(t *testing.T) {
	c := caller{t, newRealMember(t).Server}
	err := c.try(t.Context(), leaderMethod, &epb.LeaderRequest{Name: []byte("e")}, &epb.LeaderResponse{})
	wantStatus(t, err, codes.Unknown, "election: no leader")
	c.lease(1, 60)
	c.lease(2, 60)
	var won epb.CampaignResponse
	c.must(campaignMethod, &epb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte("one")}, &won)
	if l := won.Leader; string(l.Name) != "e" || string(l.Key) != "e/1" || l.Lease != 1 || l.Rev != won.Header.Revision {
		t.Errorf("leader %v, header %v", l, won.Header)
	}
	second := begin[epb.CampaignResponse](c, campaignMethod, &epb.CampaignRequest{Name: []byte("e"), Lease: 2, Value: []byte("two")})
	eventually(func() bool { return len(c.keys("e/")) == 2 })
	c.must(proclaimMethod, &epb.ProclaimRequest{Leader: won.Leader, Value: []byte("uno")}, &epb.ProclaimResponse{})
	var leader epb.LeaderResponse
	c.must(leaderMethod, &epb.LeaderRequest{Name: []byte("e")}, &leader)
	if string(leader.Kv.Value) != "uno" || leader.Kv.Lease != 1 {
		t.Errorf("leader %v", leader.Kv)
	}
	second.mustWait(t)
	c.must(resignMethod, &epb.ResignRequest{Leader: won.Leader}, &epb.ResignResponse{})
	if err := second.wait(t); err != nil {
		t.Fatal(err)
	}
	if string(second.resp.Leader.Key) != "e/2" || second.resp.Header.Revision != second.resp.Leader.Rev {
		t.Errorf("second %v", &second.resp)
	}
	err = c.try(t.Context(), proclaimMethod, &epb.ProclaimRequest{Leader: won.Leader, Value: []byte("x")}, &epb.ProclaimResponse{})
	wantStatus(t, err, codes.Unknown, "election: not leader")
	// Resigning twice is no error.
	c.must(resignMethod, &epb.ResignRequest{Leader: won.Leader}, &epb.ResignResponse{})
	for method, req := range map[string]wireMessage{proclaimMethod: &epb.ProclaimRequest{}, resignMethod: &epb.ResignRequest{}} {
		wantStatus(t, c.try(t.Context(), method, req, &epb.ResignResponse{}), codes.Unknown, `"leader" field must be provided`)
	}
}

// TestCampaignAgain: a lease that leads already proclaims its new value.
func TestCampaignAgain(t *testing.T) {
	c := caller{t, newRealMember(t).Server}
	c.lease(1, 60)
	var first, again epb.CampaignResponse
	c.must(campaignMethod, &epb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte("a")}, &first)
	c.must(campaignMethod, &epb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte("b")}, &again)
	if again.Leader.Rev != first.Leader.Rev || again.Header.Revision != first.Header.Revision {
		t.Errorf("first %v, again %v", &first, &again)
	}
	var leader epb.LeaderResponse
	c.must(leaderMethod, &epb.LeaderRequest{Name: []byte("e")}, &leader)
	if string(leader.Kv.Value) != "b" {
		t.Errorf("leader proclaims %q", leader.Kv.Value)
	}
}

func TestCampaignOfClientThatGoes(t *testing.T) {
	c := caller{t, newRealMember(t).Server}
	c.lease(1, 60)
	c.lease(2, 60)
	c.must(campaignMethod, &epb.CampaignRequest{Name: []byte("e"), Lease: 1}, &epb.CampaignResponse{})
	p := begin[epb.CampaignResponse](c, campaignMethod, &epb.CampaignRequest{Name: []byte("e"), Lease: 2})
	eventually(func() bool { return len(c.keys("e/")) == 2 })
	p.cancel()
	wantStatus(t, p.wait(t), codes.Canceled, "context canceled")
	if !eventually(func() bool { return len(c.keys("e/")) == 1 }) {
		t.Errorf("its key is still there: %q", c.keys("e/"))
	}
}

// TestObserve follows an election over leaders that proclaim, resign and are
// missing for a while, with compactions in between.
func TestObserve(t *testing.T) {
	m := newRealMember(t)
	c := caller{t, m.Server}
	w, err := m.openLocal(t.Context(), m.byName["/v3electionpb.Election/Observe"])
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if err := w.send(&epb.LeaderRequest{Name: []byte("e")}); err != nil {
		t.Fatal(err)
	}
	next := func(want string) {
		t.Helper()
		msg, err := w.recv()
		if err != nil {
			t.Fatal(err)
		}
		var resp epb.LeaderResponse
		if err := resp.UnmarshalVT(msg); err != nil {
			t.Fatal(err)
		}
		if string(resp.Kv.Value) != want {
			t.Errorf("observed %q, want %q", resp.Kv.Value, want)
		}
		if resp.Header.Revision < resp.Kv.ModRevision || resp.Header.ClusterId != 9 {
			t.Errorf("header %v of %v", resp.Header, resp.Kv)
		}
	}
	c.lease(1, 60)
	c.lease(2, 60)
	var one epb.CampaignResponse
	c.must(campaignMethod, &epb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte("one")}, &one)
	next("one")
	c.must(proclaimMethod, &epb.ProclaimRequest{Leader: one.Leader, Value: []byte("uno")}, &epb.ProclaimResponse{})
	next("uno")
	two := begin[epb.CampaignResponse](c, campaignMethod, &epb.CampaignRequest{Name: []byte("e"), Lease: 2, Value: []byte("two")})
	eventually(func() bool { return len(c.keys("e/")) == 2 })
	c.must(resignMethod, &epb.ResignRequest{Leader: one.Leader}, &epb.ResignResponse{})
	if err := two.wait(t); err != nil {
		t.Fatal(err)
	}
	next("two")
	c.must(resignMethod, &epb.ResignRequest{Leader: two.resp.Leader}, &epb.ResignResponse{})
	if err := m.Compact(t.Context(), two.resp.Header.Revision+1); err != nil {
		t.Fatal(err)
	}
	c.must(campaignMethod, &epb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte("three")}, &epb.CampaignResponse{})
	next("three")
}

// TestLineNeedsLeader: the client's metadata holds for what is done in its name.
func TestLineNeedsLeader(t *testing.T) {
	f := newFake()
	f.status.Lead = 0
	s := newTestServer(t, f)
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("hasleader", "true"))
	_, err := s.openLocal(ctx, s.byName["/etcdserverpb.Watch/Watch"])
	wantStatus(t, err, codes.Unavailable, "etcdserver: no leader")
}
