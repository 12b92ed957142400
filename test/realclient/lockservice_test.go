package realclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"quire/test/harness"
)

// services are a server's lock and election services.
type services struct {
	*server
	lock     lpb.LockClient
	election epb.ElectionClient
}

func connectServices(t *testing.T, s *server) services {
	t.Helper()
	conn := s.Conn(t)
	return services{s, lpb.NewLockClient(conn), epb.NewElectionClient(conn)}
}

// onBoth runs a test on the server under test and on upstream, and compares what it notes.
func onBoth(t *testing.T, run func(t *testing.T, s services, note func(string, ...any))) {
	t.Helper()
	var notes [2][]string
	for i, h := range []*harness.Server{harness.Start(t), harness.StartUpstream(t)} {
		run(t, connectServices(t, connect(t, h)), func(format string, args ...any) {
			notes[i] = append(notes[i], fmt.Sprintf(format, args...))
		})
	}
	equal(t, "transcript", strings.Join(notes[0], "\n"), strings.Join(notes[1], "\n"))
}

// count waits until there are so many keys under a prefix.
func (s services) count(t *testing.T, prefix string, want int64) {
	t.Helper()
	for range 500 {
		if mustGet(t, s.kv, get(prefix, clientv3.GetPrefixRangeEnd(prefix))).Count == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not %d keys under %s", want, prefix)
}

func (s services) tryLock(ctx context.Context, name string, lease int64) <-chan string {
	done := make(chan string, 1)
	go func() {
		resp, err := s.lock.Lock(ctx, &lpb.LockRequest{Name: []byte(name), Lease: lease})
		done <- fmt.Sprintf("%s rev %d %s", resp.GetKey(), resp.GetHeader().GetRevision(), errText(err))
	}()
	return done
}

func TestLockService(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s services, note func(string, ...any)) {
		for id := int64(1); id <= 4; id++ {
			s.grant(t, id, 100)
		}
		note("first %s", <-s.tryLock(s.ctx, "l", 1))
		note("again %s", <-s.tryLock(s.ctx, "l", 1))
		note("no such lease %s", <-s.tryLock(s.ctx, "l", 99))

		// One gives up by a deadline, one by going away, one loses its lease, one stays.
		short, cancel := context.WithTimeout(s.ctx, 100*time.Millisecond)
		defer cancel()
		answer, _, _ := strings.Cut(<-s.tryLock(short, "l", 2), ": ") // the text is the client's or the server's
		note("deadline %s", answer)
		s.count(t, "l/", 1)
		gone, cancel := context.WithCancel(s.ctx)
		going := s.tryLock(gone, "l", 2)
		s.count(t, "l/", 2)
		cancel()
		note("gone %s", <-going)
		s.count(t, "l/", 1)
		ended := s.tryLock(s.ctx, "l", 3)
		s.count(t, "l/", 2)
		waiting := s.tryLock(s.ctx, "l", 4)
		s.count(t, "l/", 3)
		_, err := s.lease.LeaseRevoke(s.ctx, &pb.LeaseRevokeRequest{ID: 3})
		check(t, err)
		s.count(t, "l/", 2)
		unlocked, err := s.lock.Unlock(s.ctx, &lpb.UnlockRequest{Key: []byte("l/1")})
		check(t, err)
		note("unlocked at %d", unlocked.Header.Revision)
		note("lease gone %s", <-ended)
		note("waited %s", <-waiting)
		// The holder's lease ends.
		next := s.tryLock(s.ctx, "l", 1)
		s.count(t, "l/", 2)
		_, err = s.lease.LeaseRevoke(s.ctx, &pb.LeaseRevokeRequest{ID: 4})
		check(t, err)
		note("next %s", <-next)
		_, err = s.lock.Unlock(s.ctx, &lpb.UnlockRequest{})
		note("no key %s", errText(err))
	})
}

// TestLockServiceAndRecipe: the service and clientv3's mutex are in one line.
func TestLockServiceAndRecipe(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s services, note func(string, ...any)) {
		session, err := concurrency.NewSession(s.Client(t))
		check(t, err)
		defer session.Close()
		mutex := concurrency.NewMutex(session, "l")
		check(t, mutex.Lock(s.ctx))
		s.grant(t, 7, 100)
		waiting := s.tryLock(s.ctx, "l", 7)
		s.count(t, "l/", 2)
		check(t, mutex.Unlock(s.ctx))
		note("service %s", <-waiting)
		note("recipe %v", mutex.TryLock(s.ctx))
		_, err = s.lock.Unlock(s.ctx, &lpb.UnlockRequest{Key: []byte("l/7")})
		check(t, err)
		note("recipe %v", mutex.TryLock(s.ctx))
	})
}

func TestElectionService(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s services, note func(string, ...any)) {
		for id := int64(1); id <= 3; id++ {
			s.grant(t, id, 100)
		}
		observed := s.observe(t, "e")
		campaign := func(lease int64, value string) (*epb.CampaignResponse, error) {
			return s.election.Campaign(s.ctx, &epb.CampaignRequest{Name: []byte("e"), Lease: lease, Value: []byte(value)})
		}
		_, err := s.election.Leader(s.ctx, &epb.LeaderRequest{Name: []byte("e")})
		note("nobody leads %s", errText(err))
		_, err = campaign(9, "x")
		note("no such lease %s", errText(err))
		first, err := campaign(1, "one")
		check(t, err)
		note("first %s rev %d at %d", first.Leader.Key, first.Leader.Rev, first.Header.Revision)
		note("observed %s", <-observed)
		_, err = s.election.Proclaim(s.ctx, &epb.ProclaimRequest{Leader: first.Leader, Value: []byte("uno")})
		check(t, err)
		note("observed %s", <-observed)
		var second *epb.CampaignResponse
		done := make(chan error, 1)
		go func() {
			var err error
			second, err = campaign(2, "two")
			done <- err
		}()
		s.count(t, "e/", 2)
		leader, err := s.election.Leader(s.ctx, &epb.LeaderRequest{Name: []byte("e")})
		check(t, err)
		note("leader %s at %d", kvText(leader.Kv), leader.Header.Revision)
		resigned, err := s.election.Resign(s.ctx, &epb.ResignRequest{Leader: first.Leader})
		check(t, err)
		note("resigned at %d", resigned.Header.Revision)
		check(t, <-done)
		note("second %s rev %d at %d", second.Leader.Key, second.Leader.Rev, second.Header.Revision)
		note("observed %s", <-observed)
		_, err = s.election.Proclaim(s.ctx, &epb.ProclaimRequest{Leader: first.Leader, Value: []byte("x")})
		note("not leader %s", errText(err))
		_, err = s.election.Resign(s.ctx, &epb.ResignRequest{})
		note("no leader given %s", errText(err))
		// The leader's lease ends, and then there is nobody for a while.
		_, err = s.lease.LeaseRevoke(s.ctx, &pb.LeaseRevokeRequest{ID: 2})
		check(t, err)
		third, err := campaign(3, "three")
		check(t, err)
		note("third %s at %d", third.Leader.Key, third.Header.Revision)
		note("observed %s", <-observed)
	})
}

// observe gives out what an observer sees.
func (s services) observe(t *testing.T, name string) <-chan string {
	t.Helper()
	stream, err := s.election.Observe(s.ctx, &epb.LeaderRequest{Name: []byte(name)})
	check(t, err)
	seen := make(chan string, 100)
	go func() {
		defer close(seen)
		for {
			resp, err := stream.Recv()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					seen <- errText(err)
				}
				return
			}
			seen <- fmt.Sprintf("%s at %d", kvText(resp.Kv), resp.Header.Revision)
		}
	}()
	return seen
}

// TestLockServiceManyWait: many callers wait at once, each behind the one before, and all of them get the lock.
func TestLockServiceManyWait(t *testing.T) {
	t.Parallel()
	s := connectServices(t, startServer(t))
	const n = 200
	keys := make(chan string, n)
	for range n {
		go func() {
			resp, err := s.lock.Lock(s.ctx, &lpb.LockRequest{Name: []byte("l")})
			if err != nil {
				keys <- err.Error()
				return
			}
			keys <- string(resp.Key)
		}()
	}
	s.count(t, "l/", n)
	seen := map[string]bool{}
	for range n {
		key := <-keys
		if seen[key] || !strings.HasPrefix(key, "l/") {
			t.Fatalf("key %q", key)
		}
		seen[key] = true
		select {
		case other := <-keys:
			t.Fatalf("%s and %s hold the lock", key, other)
		default:
		}
		_, err := s.lock.Unlock(s.ctx, &lpb.UnlockRequest{Key: []byte(key)})
		check(t, err)
	}
}

func TestLockServiceNeedsLease(t *testing.T) {
	t.Parallel()
	s := connectServices(t, startServer(t))
	_, err := s.lock.Lock(s.ctx, &lpb.LockRequest{Name: []byte("l"), Lease: -1})
	wantErr(t, "negative lease", err, codes.Unknown, "etcdserver: requested lease not found")
}

// TestLockServiceWithAuth: a caller locks with the rights that it has itself.
func TestLockServiceWithAuth(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, s services, note func(string, ...any)) {
		c := s.Client(t)
		must := func(_ any, err error) { t.Helper(); check(t, err) }
		must(c.UserAdd(s.ctx, "root", "r"))
		must(c.UserGrantRole(s.ctx, "root", "root"))
		must(c.UserAdd(s.ctx, "alice", "a"))
		must(c.RoleAdd(s.ctx, "lockers"))
		must(c.RoleGrantPermission(s.ctx, "lockers", "l/", "l0", clientv3.PermissionType(clientv3.PermReadWrite)))
		must(c.RoleGrantPermission(s.ctx, "lockers", "w/", "w0", clientv3.PermissionType(clientv3.PermWrite)))
		must(c.UserGrantRole(s.ctx, "alice", "lockers"))
		s.grant(t, 7, 100)
		must(c.AuthEnable(s.ctx))
		alice := func() context.Context {
			resp, err := pb.NewAuthClient(s.Conn(t)).Authenticate(s.ctx, &pb.AuthenticateRequest{Name: "alice", Password: "a"})
			check(t, err)
			return metadata.AppendToOutgoingContext(s.ctx, "token", resp.Token)
		}()
		note("hers %s", <-s.tryLock(alice, "l", 7))
		note("another's %s", <-s.tryLock(alice, "x", 7))
		note("only writing %s", <-s.tryLock(alice, "w", 7))
		note("nobody's %s", <-s.tryLock(s.ctx, "l", 7))
		bad := metadata.AppendToOutgoingContext(s.ctx, "token", "nonsense")
		note("bad token %s", <-s.tryLock(bad, "l", 7))
		_, err := s.lock.Unlock(s.ctx, &lpb.UnlockRequest{Key: []byte("l/7")})
		note("unlock by nobody %s", errText(err))
		_, err = s.lock.Unlock(alice, &lpb.UnlockRequest{Key: []byte("l/7")})
		note("unlock %s", errText(err))
		for _, name := range []string{"l", "x"} {
			won, err := s.election.Campaign(alice, &epb.CampaignRequest{Name: []byte(name), Lease: 7, Value: []byte("v")})
			note("campaign %s %s", won.GetLeader().GetKey(), errText(err))
			_, err = s.election.Leader(alice, &epb.LeaderRequest{Name: []byte(name)})
			note("leader %s", errText(err))
			stream, err := s.election.Observe(alice, &epb.LeaderRequest{Name: []byte(name)})
			check(t, err)
			seen, err := stream.Recv()
			note("observed %s %v", kvText(seen.GetKv()), err)
		}
	})
}
