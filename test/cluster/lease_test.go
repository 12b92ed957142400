package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"quire/test/harness"
)

// TestLeasesOnAnyMember: grant, keep-alive, time to live and revoke work on every member, and a lease that nobody renews
// ends with its keys.
func TestLeasesOnAnyMember(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	for i, s := range c.Servers {
		cli := c.Client(t, s)
		other := c.Client(t, c.Servers[(i+1)%3])
		granted, err := cli.Grant(ctx, 60)
		check(t, err)
		_, err = other.Put(ctx, fmt.Sprint("k", i), "v", clientv3.WithLease(granted.ID))
		check(t, err)
		kept, err := other.KeepAliveOnce(ctx, granted.ID) // at once: it may not be applied everywhere yet
		check(t, err)
		if kept.TTL != 60 {
			t.Errorf("renewed to %d", kept.TTL)
		}
		left, err := other.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
		check(t, err)
		if left.GrantedTTL != 60 || left.TTL < 58 || left.TTL > 60 || len(left.Keys) != 1 {
			t.Errorf("time to live %+v", left)
		}
		_, err = cli.Revoke(ctx, granted.ID)
		check(t, err)
		gone, err := other.TimeToLive(ctx, granted.ID)
		check(t, err)
		if gone.TTL != -1 {
			t.Errorf("a revoked lease has %+v", gone)
		}
		if _, err := other.KeepAliveOnce(ctx, granted.ID); err == nil {
			t.Error("a revoked lease was renewed")
		}
	}
	cli := c.Client(t)
	short, err := cli.Grant(ctx, 2)
	check(t, err)
	put, err := cli.Put(ctx, "short", "v", clientv3.WithLease(short.ID))
	check(t, err)
	w := cli.Watch(ctx, "short", clientv3.WithRev(put.Header.Revision+1))
	start := time.Now()
	resp := <-w
	check(t, resp.Err())
	if took := time.Since(start); took < 1500*time.Millisecond || took > 6*time.Second || len(resp.Events) != 1 || resp.Events[0].Type != clientv3.EventTypeDelete {
		t.Errorf("%v after %v", resp.Events, took)
	}
}

// TestLeasesSurviveTheLeader: leases that clients renew outlive changes of leader by any cause, and those that nobody
// renews end after all.
func TestLeasesSurviveTheLeader(t *testing.T) {
	t.Parallel()
	c := harness.StartCluster(t, 3, "--heartbeat-interval=50", "--election-timeout=500")
	ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	var keepers sync.WaitGroup
	keeping, endKeeping := context.WithCancel(ctx)
	defer func() {
		endKeeping()
		keepers.Wait()
	}()
	var clients []*clientv3.Client // one of each server
	for _, s := range c.Servers {
		clients = append(clients, c.Client(t, s))
	}
	for i := range c.Servers {
		l, err := clients[i].Grant(ctx, 3)
		check(t, err)
		_, err = clients[i].Put(ctx, fmt.Sprint("kept", i), "v", clientv3.WithLease(l.ID))
		check(t, err)
		keepers.Go(func() { keepAlive(keeping, t, clients, i, l.ID) })
	}
	cli := c.Client(t)
	lone, err := cli.Grant(ctx, 4)
	check(t, err)
	_, err = cli.Put(ctx, "lone", "v", clientv3.WithLease(lone.ID))
	check(t, err)
	for round := range 4 {
		old := c.Leader(t)
		switch round % 4 {
		case 0:
			old.Kill()
			time.Sleep(2 * time.Second)
			old.Restart(t)
		case 1: // paused for longer than the leases live: it must revoke nothing
			check(t, old.Signal(syscall.SIGSTOP))
			time.Sleep(5 * time.Second)
			check(t, old.Signal(syscall.SIGCONT))
		case 2:
			c.Isolate(t, old)
			time.Sleep(5 * time.Second)
			c.Heal(t)
		case 3:
			to := ids(t, c.Others(old)[0])[0]
			_, err := c.Client(t, old).MoveLeader(ctx, to)
			check(t, err)
		}
		resp, err := cli.Get(ctx, "kept", clientv3.WithPrefix(), clientv3.WithCountOnly())
		check(t, err)
		if resp.Count != 3 {
			t.Fatalf("round %d: %d of 3 keys whose leases are renewed are left", round, resp.Count)
		}
	}
	resp, err := cli.Get(ctx, "lone")
	check(t, err)
	if len(resp.Kvs) != 0 {
		t.Error("a lease that nobody renews has outlived everything")
	}
}

// keepAlive renews a lease every half second, on another server if one does not answer within a second.
func keepAlive(ctx context.Context, t *testing.T, clients []*clientv3.Client, at int, id clientv3.LeaseID) {
	last := time.Now()
	for ctx.Err() == nil {
		short, cancel := context.WithTimeout(ctx, time.Second)
		_, err := clients[at].KeepAliveOnce(short, id)
		cancel()
		switch {
		case err == nil:
			last = time.Now()
			time.Sleep(500 * time.Millisecond)
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			t.Errorf("lease %x is gone, %v after it was renewed last", id, time.Since(last))
			return
		default:
			at = (at + 1) % len(clients)
		}
	}
}

// TestLeaseTimeLeftIsKnownToTheNextLeader: what was left of a TTL is not the full TTL again after a change of leader.
func TestLeaseTimeLeftIsKnownToTheNextLeader(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("etcd records the time left of leases above five minutes only")
	}
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	cli := c.Client(t)
	l, err := cli.Grant(ctx, 60)
	check(t, err)
	time.Sleep(6 * time.Second)
	c.Leader(t).Kill()
	left, err := cli.TimeToLive(ctx, l.ID)
	check(t, err)
	if left.TTL > 58 || left.TTL < 45 {
		t.Errorf("%d s left of 60 after 6 and a change of leader", left.TTL)
	}
}

// TestNoLeaderNoLease: without a quorum a renewal fails in the time of a request, and with etcd's word.
func TestNoLeaderNoLease(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	l, err := c.Client(t).Grant(ctx, 60)
	check(t, err)
	for _, s := range c.Servers[1:] {
		s.Kill()
	}
	time.Sleep(1500 * time.Millisecond) // the rest steps down
	start := time.Now()
	_, err = c.Client(t, c.Servers[0]).KeepAliveOnce(ctx, l.ID)
	if err == nil {
		t.Fatal("renewed without a quorum")
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("failed with %v after %v", err, took)
	}
}
