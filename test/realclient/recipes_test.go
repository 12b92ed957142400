package realclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/clientv3util"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/ordering"
)

func session(t *testing.T, c *clientv3.Client, ttl int) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(c, concurrency.WithTTL(ttl))
	check(t, err)
	return s
}

func TestMutexExcludes(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	const clients, turns = 6, 15
	var held atomic.Int32
	counter := 0 // guarded by the server's mutex alone
	var wg sync.WaitGroup
	for range clients {
		c := s.Client(t)
		m := concurrency.NewMutex(session(t, c, 30), "/lock")
		wg.Go(func() {
			for range turns {
				if err := m.Lock(s.ctx); err != nil {
					t.Error(err)
					return
				}
				if held.Add(1) != 1 {
					t.Error("two hold the mutex")
				}
				counter++
				held.Add(-1)
				if err := m.Unlock(s.ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	equal(t, "turns", counter, clients*turns)
}

func TestMutexTryLock(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	one := concurrency.NewMutex(session(t, s.Client(t), 30), "/lock")
	two := concurrency.NewMutex(session(t, s.Client(t), 30), "/lock")
	check(t, one.TryLock(s.ctx))
	equal(t, "second", two.TryLock(s.ctx), concurrency.ErrLocked)
	check(t, one.Unlock(s.ctx))
	check(t, two.TryLock(s.ctx))
}

func TestMutexPassesOnWhenTheHoldersSessionEnds(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	dead := s.Client(t)
	holder := session(t, dead, 2)
	check(t, concurrency.NewMutex(holder, "/lock").Lock(s.ctx))
	next := concurrency.NewMutex(session(t, s.Client(t), 30), "/lock")
	start := time.Now()
	dead.Close() // as if its process had died: nobody keeps the lease alive, nobody unlocks
	check(t, next.Lock(s.ctx))
	if took := time.Since(start); took < 500*time.Millisecond || took > 6*time.Second {
		t.Errorf("the lock was passed on after %v, the session's time is 2 s", took)
	}
}

func TestSessionIsDoneWhenItsLeaseIsRevoked(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	one := session(t, c, 5)
	_, err := c.Revoke(s.ctx, one.Lease())
	check(t, err)
	select {
	case <-one.Done():
	case <-time.After(arriveLimit):
		t.Error("the session does not end")
	}
}

func TestElection(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	observer := concurrency.NewElection(session(t, c, 30), "/election").Observe(s.ctx)
	_, err := concurrency.NewElection(session(t, c, 30), "/election").Leader(s.ctx)
	equal(t, "no leader", err, concurrency.ErrElectionNoLeader)
	const candidates = 4
	var order []string
	for i := range candidates {
		e := concurrency.NewElection(session(t, s.Client(t), 30), "/election")
		check(t, e.Campaign(s.ctx, fmt.Sprint("candidate ", i)))
		check(t, e.Proclaim(s.ctx, fmt.Sprint("leader ", i)))
		leader, err := e.Leader(s.ctx)
		check(t, err)
		order = append(order, string(leader.Kvs[0].Value))
		if i < candidates-1 { // the last stays, for the observer to see
			check(t, e.Resign(s.ctx))
		}
	}
	equal(t, "leaders", fmt.Sprint(order), "[leader 0 leader 1 leader 2 leader 3]")
	for {
		select {
		case resp := <-observer:
			if string(resp.Kvs[0].Value) == "leader 3" {
				return
			}
		case <-time.After(arriveLimit):
			t.Fatal("the observer did not see the last leader")
		}
	}
}

func TestElectionWaitsForTheLeaderToResign(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	first := concurrency.NewElection(session(t, s.Client(t), 30), "/election")
	check(t, first.Campaign(s.ctx, "first"))
	second := concurrency.NewElection(session(t, s.Client(t), 30), "/election")
	won := make(chan error, 1)
	go func() { won <- second.Campaign(s.ctx, "second") }()
	select {
	case <-won:
		t.Fatal("two leaders")
	case <-time.After(quietTime):
	}
	check(t, first.Resign(s.ctx))
	check(t, <-won)
}

// TestSTMTransfers moves money between accounts from several clients at once; none is lost at any level of isolation.
func TestSTMTransfers(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	levels := map[string]concurrency.Isolation{"serializable snapshot": concurrency.SerializableSnapshot, "serializable": concurrency.Serializable}
	const accounts, clients, transfers = 5, 4, 15
	for name, level := range levels {
		t.Run(name, func(t *testing.T) {
			account := func(i int) string { return fmt.Sprintf("%s/%d", name, i%accounts) }
			for i := range accounts {
				mustPut(t, s.kv, put(account(i), "100"))
			}
			var wg sync.WaitGroup
			for client := range clients {
				c := s.Client(t)
				wg.Go(func() {
					for i := range transfers {
						from, to := account(client+i), account(client+2*i+1)
						if err := transfer(c, level, from, to); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			sum := 0
			for _, kv := range mustGet(t, s.kv, get(name+"/", name+"0")).Kvs {
				n, err := strconv.Atoi(string(kv.Value))
				check(t, err)
				sum += n
			}
			equal(t, "sum", sum, accounts*100)
		})
	}
}

func transfer(c *clientv3.Client, level concurrency.Isolation, from, to string) error {
	if from == to {
		return nil
	}
	_, err := concurrency.NewSTM(c, func(stm concurrency.STM) error {
		a, err := strconv.Atoi(stm.Get(from))
		if err != nil {
			return err
		}
		b, err := strconv.Atoi(stm.Get(to))
		if err != nil {
			return err
		}
		stm.Put(from, strconv.Itoa(a-1))
		stm.Put(to, strconv.Itoa(b+1))
		return nil
	}, concurrency.WithIsolation(level))
	return err
}

func TestNamespace(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	kv, lease, watcher := namespace.NewKV(c.KV, "ns/"), namespace.NewLease(c.Lease, "ns/"), namespace.NewWatcher(c.Watcher, "ns/")
	ch := watcher.Watch(s.ctx, "", clientv3.WithPrefix())
	granted, err := lease.Grant(s.ctx, 100)
	check(t, err)
	_, err = kv.Put(s.ctx, "a", "1", clientv3.WithLease(granted.ID))
	check(t, err)
	mustPut(t, s.kv, put("outside", "1"))
	_, err = kv.Txn(s.ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).Then(clientv3.OpPut("b", "2"), clientv3.OpGet("a")).Commit()
	check(t, err)
	resp, err := kv.Get(s.ctx, "", clientv3.WithPrefix())
	check(t, err)
	equal(t, "inside", kvsText(resp.Kvs), fmt.Sprintf("a=1(2,2,1)+%x b=2(4,4,1)", granted.ID))
	equal(t, "outside", kvsText(mustGet(t, s.kv, get("ns/b", "")).Kvs), "ns/b=2(4,4,1)")
	ttl, err := lease.TimeToLive(s.ctx, granted.ID, clientv3.WithAttachedKeys())
	check(t, err)
	equal(t, "key of the lease", fmt.Sprintf("%s", ttl.Keys), "[a]")
	equal(t, "event", string(receive(t, ch).Events[0].Kv.Key), "a")
	_, err = kv.Delete(s.ctx, "", clientv3.WithFromKey())
	check(t, err)
	equal(t, "others stay", mustGet(t, s.kv, get("outside", "")).Count, int64(1))
}

func TestMirrorSyncer(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	const before = 2500 // more than the syncer asks for at a time
	for i := range before {
		mustPut(t, s.kv, put(fmt.Sprintf("m/%04d", i), "v"))
	}
	syncer := mirror.NewSyncer(c, "m/", 0)
	got, errs := syncer.SyncBase(s.ctx)
	n := 0
	for resp := range got {
		n += len(resp.Kvs)
	}
	check(t, <-errs)
	equal(t, "keys of the base", n, before)
	ch := syncer.SyncUpdates(s.ctx)
	mustPut(t, s.kv, put("m/new", "v"))
	equal(t, "update", string(receive(t, ch).Events[0].Kv.Key), "m/new")
}

func TestOrderingNeverSeesAnOlderRevision(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	kv := ordering.NewKV(c.KV, func(clientv3.Op, clientv3.OpResponse, int64) error { return errors.New("an older revision came") })
	for range 50 {
		mustPut(t, s.kv, put("k", "v"))
		_, err := kv.Get(s.ctx, "k", clientv3.WithSerializable())
		check(t, err)
	}
}

func TestLeasingCachesAndGivesUp(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	one, closeOne, err := leasing.NewKV(s.Client(t), "leases/")
	check(t, err)
	defer closeOne()
	two, closeTwo, err := leasing.NewKV(s.Client(t), "leases/")
	check(t, err)
	defer closeTwo()
	read := func(kv clientv3.KV, want string) {
		t.Helper()
		resp, err := kv.Get(s.ctx, "k")
		check(t, err)
		equal(t, "value", string(resp.Kvs[0].Value), want)
	}
	mustPut(t, s.kv, put("k", "1"))
	read(one, "1")
	read(one, "1")
	_, err = two.Put(s.ctx, "k", "2") // takes the lease of the key from the first
	check(t, err)
	read(one, "2")
	read(two, "2")
	_, err = one.Txn(s.ctx).If(clientv3.Compare(clientv3.Value("k"), "=", "2")).Then(clientv3.OpPut("k", "3")).Commit()
	check(t, err)
	read(two, "3")
}

func TestNamingEndpoints(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	m, err := endpoints.NewManager(c, "service")
	check(t, err)
	updates, err := m.NewWatchChannel(s.ctx)
	check(t, err)
	check(t, m.AddEndpoint(s.ctx, "service/a", endpoints.Endpoint{Addr: "1.2.3.4:5"}))
	list, err := m.List(s.ctx)
	check(t, err)
	equal(t, "listed", list["service/a"].Addr, "1.2.3.4:5")
	for {
		select {
		case up := <-updates:
			if slices.ContainsFunc(up, func(u *endpoints.Update) bool { return u.Endpoint.Addr == "1.2.3.4:5" }) {
				return
			}
		case <-time.After(arriveLimit):
			t.Fatal("no update")
		}
	}
}

// TestKubernetesClient makes the requests in the very shapes that kube-apiserver does.
func TestKubernetesClient(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	k, err := kubernetes.New(clientv3.Config{Endpoints: []string{s.Endpoint}})
	check(t, err)
	defer k.Close()
	created, err := k.Kubernetes.OptimisticPut(s.ctx, "/registry/pods/a", []byte("1"), 0, kubernetes.PutOptions{})
	check(t, err)
	equal(t, "created", fmt.Sprint(created.Succeeded, created.Revision), "true 2")
	again, err := k.Kubernetes.OptimisticPut(s.ctx, "/registry/pods/a", []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true})
	check(t, err)
	equal(t, "created again", fmt.Sprint(again.Succeeded, again.Revision, " ", kvText(again.KV)), "false 2 /registry/pods/a=1(2,2,1)")
	updated, err := k.Kubernetes.OptimisticPut(s.ctx, "/registry/pods/a", []byte("2"), 2, kubernetes.PutOptions{})
	check(t, err)
	equal(t, "updated", fmt.Sprint(updated.Succeeded, updated.Revision), "true 3")
	for i := range 5 {
		mustPut(t, s.kv, put(fmt.Sprintf("/registry/pods/b%d", i), "1"))
	}
	page, err := k.Kubernetes.List(s.ctx, "/registry/pods/", kubernetes.ListOptions{Limit: 2})
	check(t, err)
	equal(t, "page", fmt.Sprint(len(page.Kvs), page.Count, page.Revision), "2 6 8")
	rest, err := k.Kubernetes.List(s.ctx, "/registry/pods/", kubernetes.ListOptions{Revision: page.Revision, Continue: string(page.Kvs[1].Key) + "\x00"})
	check(t, err)
	equal(t, "rest", fmt.Sprint(len(rest.Kvs), rest.Count), "4 4")
	count, err := k.Kubernetes.Count(s.ctx, "/registry/pods/", kubernetes.CountOptions{})
	check(t, err)
	equal(t, "count", count, int64(6))
	stale, err := k.Kubernetes.OptimisticDelete(s.ctx, "/registry/pods/a", 2, kubernetes.DeleteOptions{GetOnFailure: true})
	check(t, err)
	equal(t, "stale delete", fmt.Sprint(stale.Succeeded, stale.Revision, " ", kvText(stale.KV)), "false 8 /registry/pods/a=2(2,3,2)")
	deleted, err := k.Kubernetes.OptimisticDelete(s.ctx, "/registry/pods/a", 3, kubernetes.DeleteOptions{})
	check(t, err)
	equal(t, "deleted", fmt.Sprint(deleted.Succeeded, deleted.Revision), "true 9")
	compactTxn(t, k.Client)
}

// compactTxn is how kube-apiserver agrees on who compacts.
func compactTxn(t *testing.T, c *clientv3.Client) {
	t.Helper()
	const key = "compact_rev_key"
	round := func(version int64, want bool) {
		t.Helper()
		resp, err := c.Txn(t.Context()).If(clientv3.Compare(clientv3.Version(key), "=", version)).
			Then(clientv3.OpPut(key, "5")).Else(clientv3.OpGet(key)).Commit()
		check(t, err)
		equal(t, fmt.Sprint("version ", version), resp.Succeeded, want)
	}
	round(0, true)
	round(0, false)
	round(1, true)
	_, err := c.Compact(t.Context(), 5)
	check(t, err)
	_, err = c.Compact(t.Context(), 5)
	equal(t, "compacted twice", errors.Is(err, rpctypes.ErrCompacted), true)
}

func TestTxnHelpersOfClientv3util(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	create := func() bool {
		resp, err := c.Txn(s.ctx).If(clientv3util.KeyMissing("k")).Then(clientv3.OpPut("k", "v")).Commit()
		check(t, err)
		return resp.Succeeded
	}
	equal(t, "missing", create(), true)
	equal(t, "there", create(), false)
	resp, err := c.Txn(s.ctx).If(clientv3util.KeyExists("k")).Then(clientv3.OpDelete("k")).Commit()
	check(t, err)
	equal(t, "exists", resp.Succeeded, true)
}

func TestClientErrorsAreTheOnesThatGoProgramsCompareWith(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	_, err := c.Put(s.ctx, "k", "v", clientv3.WithLease(99))
	equal(t, "lease", errors.Is(err, rpctypes.ErrLeaseNotFound), true)
	_, err = c.Put(s.ctx, "", "v")
	equal(t, "key", errors.Is(err, rpctypes.ErrEmptyKey), true)
	_, err = c.Get(s.ctx, "k", clientv3.WithRev(100))
	equal(t, "future", errors.Is(err, rpctypes.ErrFutureRev), true)
	_, err = c.Compact(s.ctx, 100)
	equal(t, "compact", errors.Is(err, rpctypes.ErrFutureRev), true)
	_, err = c.Revoke(s.ctx, 99)
	equal(t, "revoke", errors.Is(err, rpctypes.ErrLeaseNotFound), true)
	_, err = c.KeepAliveOnce(s.ctx, 99)
	equal(t, "keep alive", errors.Is(err, rpctypes.ErrLeaseNotFound), true)
	ctx, cancel := context.WithTimeout(s.ctx, time.Nanosecond)
	defer cancel()
	_, err = c.Get(ctx, "k")
	equal(t, "deadline", errors.Is(err, context.DeadlineExceeded), true)
}

func TestClientReconnectsAfterARestart(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	_, err := c.Put(s.ctx, "k", "1")
	check(t, err)
	keepAlives, err := c.KeepAlive(s.ctx, clientv3.LeaseID(s.grant(t, 5, 20)))
	check(t, err)
	<-keepAlives
	s.Stop(t)
	s.Restart(t)
	resp, err := c.Get(s.ctx, "k")
	check(t, err)
	equal(t, "value", string(resp.Kvs[0].Value), "1")
	for deadline := time.After(arriveLimit + 10*time.Second); ; {
		select {
		case ka, ok := <-keepAlives:
			if !ok {
				t.Fatal("the client has given the lease up")
			}
			if ka.TTL == 20 && ka.RaftTerm > 2 { // an answer of after the restart
				return
			}
		case <-deadline:
			t.Fatal("the lease is no longer kept alive")
		}
	}
}
