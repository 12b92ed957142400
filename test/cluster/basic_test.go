package cluster

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"quire/test/harness"
)

// TestEveryMemberServes: writes, linearizable reads and watches work on leader and followers alike.
func TestEveryMemberServes(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			c, ctx := harness.StartCluster(t, n), harness.Context(t)
			var watches []clientv3.WatchChan
			for _, s := range c.Servers {
				watches = append(watches, c.Client(t, s).Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(1)))
			}
			for i, s := range c.Servers {
				key := fmt.Sprint("k", i)
				_, err := c.Client(t, s).Put(ctx, key, "v")
				check(t, err)
				for _, r := range c.Servers {
					resp, err := c.Client(t, r).Get(ctx, key)
					check(t, err)
					if len(resp.Kvs) != 1 {
						t.Errorf("written on %d, not read on %s", i, r.Endpoint)
					}
				}
			}
			for i, w := range watches {
				for next := 0; next < n; {
					resp := <-w
					check(t, resp.Err())
					for _, e := range resp.Events {
						if want := fmt.Sprint("k", next); string(e.Kv.Key) != want {
							t.Fatalf("watch on %d: %s, want %s", i, e.Kv.Key, want)
						}
						next++
					}
				}
			}
			list, err := c.Client(t).MemberList(ctx)
			check(t, err)
			if len(list.Members) != n {
				t.Errorf("%d members", len(list.Members))
			}
		})
	}
}

// TestKilledMembersComeBack: a minority may be killed at any time; the rest goes on, and who comes back catches up.
func TestKilledMembersComeBack(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	for round := range 6 {
		victim := c.Servers[round%3]
		if round >= 3 {
			victim = c.Leader(t)
		}
		victim.Kill()
		rest := c.Others(victim)
		key := fmt.Sprint("round", round)
		for _, s := range rest {
			_, err := c.Client(t, s).Put(ctx, key, s.Endpoint)
			check(t, err)
		}
		victim.Restart(t)
		resp, err := c.Client(t, victim).Get(ctx, key)
		check(t, err)
		if len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != rest[1].Endpoint {
			t.Fatalf("round %d: the restarted member reads %v", round, resp.Kvs)
		}
	}
}

// TestAllKilled: a cluster of which everything was killed goes on with everything that was acknowledged.
func TestAllKilled(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	cli := c.Client(t)
	for i := range 50 {
		_, err := cli.Put(ctx, fmt.Sprint("k", i), "v")
		check(t, err)
	}
	for _, s := range c.Servers {
		s.Kill()
	}
	done := make(chan struct{})
	for _, s := range c.Servers {
		go func() {
			s.Restart(t)
			done <- struct{}{}
		}()
	}
	for range c.Servers {
		<-done
	}
	for _, s := range c.Servers {
		resp, err := c.Client(t, s).Get(ctx, "k", clientv3.WithPrefix(), clientv3.WithCountOnly())
		check(t, err)
		if resp.Count != 50 {
			t.Errorf("%d keys on %s", resp.Count, s.Endpoint)
		}
	}
}

// TestPausedLeader: a leader that is paused is replaced; it comes back as a follower and knows nothing better.
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	old := c.Leader(t)
	check(t, old.Signal(syscall.SIGSTOP))
	rest := c.Others(old)
	start := time.Now()
	_, err := c.Client(t, rest...).Put(ctx, "k", "new")
	check(t, err)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("the first write took %v", took)
	}
	check(t, old.Signal(syscall.SIGCONT))
	resp, err := c.Client(t, old).Get(ctx, "k")
	check(t, err)
	if len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "new" {
		t.Errorf("the old leader reads %v", resp.Kvs)
	}
	if now := c.Leader(t); now == old {
		t.Error("the paused leader leads again")
	}
}

// TestPartitions: the majority goes on, the minority answers no linearizable request, and healing brings all together.
func TestPartitions(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	old := c.Leader(t)
	rest := c.Others(old)
	_, err := c.Client(t).Put(ctx, "k", "before")
	check(t, err)
	c.Isolate(t, old)
	_, err = c.Client(t, rest...).Put(ctx, "k", "after")
	check(t, err)
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if resp, err := c.Client(t, old).Get(short, "k"); err == nil {
		t.Errorf("the cut-off leader answers %v", resp.Kvs)
	}
	stale, err := c.Client(t, old).Get(ctx, "k", clientv3.WithSerializable())
	check(t, err)
	if string(stale.Kvs[0].Value) != "before" {
		t.Errorf("the cut-off leader has %v", stale.Kvs)
	}
	c.Heal(t)
	resp, err := c.Client(t, old).Get(ctx, "k")
	check(t, err)
	if string(resp.Kvs[0].Value) != "after" {
		t.Errorf("after healing %v", resp.Kvs)
	}
}

// TestGracefulStopHandsOver: a leader that gets SIGTERM hands over, so that the others have a leader at once.
func TestGracefulStopHandsOver(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3, "--heartbeat-interval=500", "--election-timeout=5000"), harness.Context(t)
	old := c.Leader(t)
	rest := c.Others(old)
	cli := c.Client(t, rest...)
	before, err := cli.Put(ctx, "k", "1")
	check(t, err)
	start := time.Now()
	took := old.Stop(t)
	resp, err := cli.Put(ctx, "k", "2")
	check(t, err)
	if gap := time.Since(start); gap > 4500*time.Millisecond { // an election begins after five seconds at the earliest
		t.Errorf("stopped in %v, the next write was acknowledged %v after the signal", took, gap)
	}
	if resp.Header.RaftTerm != before.Header.RaftTerm+1 {
		t.Errorf("term %d, then %d", before.Header.RaftTerm, resp.Header.RaftTerm)
	}
}

func ids(t *testing.T, of ...*harness.Server) (all []uint64) {
	for _, s := range of {
		all = append(all, s.MemberID(t))
	}
	return all
}
