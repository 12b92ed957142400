package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"quire/test/harness"
)

// settled waits until the members have been connected for as long as membership changes want it.
func settled(t *testing.T, c *harness.Cluster) {
	c.Leader(t)
	time.Sleep(5500 * time.Millisecond)
}

func fill(ctx context.Context, t *testing.T, cli *clientv3.Client, n int) {
	t.Helper()
	for i := range n {
		_, err := cli.Put(ctx, fmt.Sprintf("fill/%04d", i), strings.Repeat("v", 1000))
		check(t, err)
	}
}

func sameData(ctx context.Context, t *testing.T, c *harness.Cluster) {
	t.Helper()
	last, err := c.Client(t).Put(ctx, "same", "")
	check(t, err)
	var want uint32
	for i, s := range c.Servers {
		cli := c.Client(t, s)
		_, err := cli.Get(ctx, "same")
		check(t, err)
		h, err := cli.HashKV(ctx, s.Endpoint, last.Header.Revision)
		check(t, err)
		if i == 0 {
			want = h.Hash
		} else if h.Hash != want {
			t.Errorf("server %d has another hash", i)
		}
	}
}

// TestGrowAndShrink: a learner is added, catches up by a snapshot, is promoted through any member, and takes the place
// of the leader, which is removed and ends by itself.
func TestGrowAndShrink(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3, "--snapshot-count=50", "--snapshot-catchup-entries=10"), harness.Context(t)
	cli := c.Client(t)
	if _, err := cli.MemberAdd(ctx, []string{"http://127.0.0.1:1"}); !errors.Is(err, rpctypes.ErrUnhealthy) {
		t.Errorf("a member was added within five seconds of the start: %v", err)
	}
	fill(ctx, t, cli, 300)
	settled(t, c)
	place := c.NewPlace(t)
	added := patiently(t, func() (*clientv3.MemberAddResponse, error) { return cli.MemberAddAsLearner(ctx, []string{place.URL()}) })
	if _, err := cli.MemberPromote(ctx, added.Member.ID); !errors.Is(err, rpctypes.ErrMemberLearnerNotReady) {
		t.Errorf("a learner that has not started is promoted: %v", err)
	}
	m4 := c.Add(t, "m4", place)
	m4.Ready(t)
	own := c.Client(t, m4)
	if _, err := own.Get(ctx, "fill/0001"); err == nil {
		t.Error("a learner answers a linearizable read")
	}
	resp, err := own.Get(ctx, "fill/", clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithSerializable())
	check(t, err)
	if resp.Count != 300 {
		t.Errorf("the learner has %d keys", resp.Count)
	}
	follower := c.Others(c.Leader(t), m4)[0]
	promote(ctx, t, c.Client(t, follower), added.Member.ID)
	for { // it learns of it a moment later
		if _, err = own.Put(ctx, "by the new one", "v"); !strings.Contains(fmt.Sprint(err), "not supported for learner") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	check(t, err)
	sameData(ctx, t, c)

	old := c.Leader(t)
	_, err = c.Client(t, follower).MemberRemove(ctx, ids(t, old)[0])
	check(t, err)
	if code := old.Exit(t); code != 0 {
		t.Errorf("the removed leader ended with %d", code)
	}
	for _, line := range []string{"the member has been permanently removed from the cluster", "data-dir used by this member must be removed"} {
		if !strings.Contains(old.Log.String(), line) {
			t.Errorf("the removed member has not logged %q", line)
		}
	}
	c.Forget(old)
	c.Leader(t)
	_, err = c.Client(t).Put(ctx, "without it", "v")
	check(t, err)
	sameData(ctx, t, c)
	// It may not come back.
	old.Relaunch(t)
	if code := old.Exit(t); code != 0 {
		t.Errorf("the removed member that was started again ended with %d", code)
	}
	list, err := c.Client(t).MemberList(ctx)
	check(t, err)
	if len(list.Members) != 3 {
		t.Errorf("%d members", len(list.Members))
	}
}

// promote promotes a learner once it is ready.
func promote(ctx context.Context, t *testing.T, cli *clientv3.Client, id uint64) {
	t.Helper()
	for {
		resp, err := cli.MemberPromote(ctx, id)
		if err == nil {
			for _, m := range resp.Members {
				if m.ID == id && m.IsLearner {
					t.Error("still a learner in the answer")
				}
			}
			return
		}
		if !errors.Is(err, rpctypes.ErrMemberLearnerNotReady) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestWipedMember: a member that has lost its data may not start again under its identity; it is removed, added anew and
// comes back by a snapshot, while clients write.
func TestWipedMember(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3, "--snapshot-count=100", "--snapshot-catchup-entries=10"), harness.Context(t)
	victim := c.Others(c.Leader(t))[0]
	rest := c.Others(victim)
	cli := c.Client(t, rest...)
	fill(ctx, t, cli, 500)
	settled(t, c)
	id := ids(t, victim)[0]
	victim.Kill()
	victim.Wipe(t)
	victim.Relaunch(t)
	if code := victim.Exit(t); code == 0 || !strings.Contains(victim.Log.String(), fmt.Sprintf("member %x has already been bootstrapped", id)) {
		t.Errorf("the wiped member ended with %d", code)
	}
	patiently(t, func() (any, error) { return cli.MemberRemove(ctx, id) })
	c.Forget(victim)
	place := c.NewPlace(t)
	patiently(t, func() (any, error) { return cli.MemberAdd(ctx, []string{place.URL()}) })
	fresh := c.Add(t, "fresh", place)
	fresh.Ready(t)
	fill(ctx, t, c.Client(t, fresh), 50)
	sameData(ctx, t, c)
}

// TestLaggingMember: a member that was away for longer than the log is kept catches up by a snapshot, and its watchers
// miss nothing.
func TestLaggingMember(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3, "--snapshot-count=50", "--snapshot-catchup-entries=5"), harness.Context(t)
	lead := c.Leader(t)
	away := c.Others(lead)[0]
	rest := c.Others(away)
	cli := c.Client(t, rest...)
	w := c.Client(t, away).Watch(ctx, "fill/", clientv3.WithPrefix(), clientv3.WithRev(1))
	fill(ctx, t, cli, 20)
	c.Isolate(t, away)
	fill(ctx, t, cli, 600)
	last, err := cli.Put(ctx, "fill/last", "v")
	check(t, err)
	time.Sleep(time.Second) // a checkpoint behind all that
	c.Heal(t)
	resp, err := c.Client(t, away).Get(ctx, "fill/last")
	check(t, err)
	if len(resp.Kvs) != 1 {
		t.Error("it does not read what was written while it was away")
	}
	if !away.Log.Wait("applied snapshot", 10*time.Second) {
		t.Error("it came back without a snapshot")
	}
	revision, seen := int64(1), 0
	for revision < last.Header.Revision {
		resp := <-w
		check(t, resp.Err())
		for _, e := range resp.Events {
			if e.Kv.ModRevision != revision+1 {
				t.Fatalf("the watcher on it saw revision %d after %d", e.Kv.ModRevision, revision)
			}
			revision, seen = e.Kv.ModRevision, seen+1
		}
	}
	if seen != 621 {
		t.Errorf("the watcher saw %d changes", seen)
	}
	sameData(ctx, t, c)
	away.Kill()
	away.Restart(t)
	sameData(ctx, t, c)
}

// TestPeerURLsMove: a member moves to another peer address at run time.
func TestPeerURLsMove(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	moved := c.Others(c.Leader(t))[0]
	rest := c.Others(moved)
	url := c.Relink(t, moved)
	_, err := c.Client(t, rest...).MemberUpdate(ctx, ids(t, moved)[0], []string{url})
	check(t, err)
	c.CloseLink(moved) // the old address is dead
	c.Break(t)
	_, err = c.Client(t, moved).Put(ctx, "k", "from the new place")
	check(t, err)
	sameData(ctx, t, c)
}

// TestBootstrapRefusals: what cannot become a member says why, in etcd's words, and ends.
func TestBootstrapRefusals(t *testing.T) {
	t.Parallel()
	c := harness.StartCluster(t, 3)
	peers := make([]string, 3)
	for i, s := range c.Servers {
		peers[i] = c.PeerURL(s)
	}
	listed := fmt.Sprintf("m1=%s,m2=%s,m3=%s", peers[0], peers[1], peers[2])
	const own = "OWN"
	dead := "http://" + harness.FreePort(t)
	for _, tc := range []struct {
		name, state, list, want string
	}{
		{"not in the list", "new", listed, "couldn't find local name"},
		{"another URL", "new", "x=http://127.0.0.1:1", "--initial-cluster has x=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=" + own},
		{"a URL twice", "new", "x=" + own + ",y=" + own, "has duplicate url"},
		{"joins without being told", "existing", listed + ",x=" + own, "error validating peerURLs"},
		{"joins nobody", "existing", "x=" + own + ",y=" + dead, "cannot fetch cluster info from peer urls"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			client, peer := "http://"+harness.FreePort(t), "http://"+harness.FreePort(t)
			list, want := strings.ReplaceAll(tc.list, own, peer), strings.ReplaceAll(tc.want, own, peer)
			s := harness.Launch(t, harness.Config{BareArgs: true, Flags: []string{
				"--name", "x", "--data-dir", "data", "--listen-client-urls", client, "--advertise-client-urls", client,
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", list, "--initial-cluster-state", tc.state,
			}})
			if code := s.Exit(t); code == 0 || !strings.Contains(s.Log.String(), want) {
				t.Errorf("exit code %d, no %q", code, want)
			}
		})
	}
}

// TestStrangersAreRefused: a member of another cluster at a peer's address is refused, and both sides say so.
func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	a, b := harness.StartCluster(t, 1, "--initial-cluster-token=a"), "http://"+harness.FreePort(t)
	client := "http://" + harness.FreePort(t)
	s := harness.Launch(t, harness.Config{BareArgs: true, Flags: []string{
		"--name", "b", "--data-dir", "data", "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", b,
		"--initial-advertise-peer-urls", b, "--initial-cluster", "b=" + b + ",m1=" + a.PeerURL(a.Servers[0]), "--initial-cluster-token", "b",
	}})
	if !s.Log.Wait("request sent was ignored by remote peer due to cluster ID mismatch", 10*time.Second) {
		t.Error("the stranger does not say why it was refused")
	}
	if !a.Servers[0].Log.Wait("request cluster ID mismatch", 10*time.Second) {
		t.Error("the member does not say what it has refused")
	}
}
