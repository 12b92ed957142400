package cluster

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"quire/test/harness"
)

// TestMoveLeader: the leader hands over to whom it is told to, and refuses what etcd refuses.
func TestMoveLeader(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	lead := c.Leader(t)
	target := c.Others(lead)[1]
	if _, err := c.Client(t, target).MoveLeader(ctx, target.MemberID(t)); !errors.Is(err, rpctypes.ErrNotLeader) {
		t.Errorf("a follower was asked: %v", err)
	}
	if _, err := c.Client(t, lead).MoveLeader(ctx, 4711); !errors.Is(err, rpctypes.ErrBadLeaderTransferee) {
		t.Errorf("to nobody: %v", err)
	}
	before, err := c.Client(t, lead).Status(ctx, lead.Endpoint)
	check(t, err)
	_, err = c.Client(t, lead).MoveLeader(ctx, target.MemberID(t))
	check(t, err)
	if now := c.Leader(t); now != target {
		t.Errorf("%s leads, not %s", now.Endpoint, target.Endpoint)
	}
	after, err := c.Client(t, target).Status(ctx, target.Endpoint)
	check(t, err)
	if after.RaftTerm != before.RaftTerm+1 {
		t.Errorf("term %d, then %d", before.RaftTerm, after.RaftTerm)
	}
	_, err = c.Client(t, lead).MoveLeader(ctx, lead.MemberID(t))
	if !errors.Is(err, rpctypes.ErrNotLeader) {
		t.Errorf("the leader of before was asked: %v", err)
	}
}

// TestQuorumLostForGood: of three hosts two are gone for ever. The survivor answers serializable reads only, becomes a
// cluster of its own with everything that was acknowledged, and grows again.
func TestQuorumLostForGood(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	fill(ctx, t, c.Client(t), 100)
	survivor := c.Others(c.Leader(t))[0]
	own := c.Client(t, survivor)
	_, err := own.Get(ctx, "fill/", clientv3.WithPrefix()) // it has them all
	check(t, err)
	for _, s := range c.Others(survivor) {
		s.Kill()
		c.Forget(s)
	}
	resp, err := own.Get(ctx, "fill/", clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithSerializable())
	check(t, err)
	if resp.Count != 100 {
		t.Errorf("%d keys without a quorum", resp.Count)
	}
	survivor.Kill()
	survivor.Relaunch(t, "--force-new-cluster")
	survivor.Ready(t)
	resp, err = own.Get(ctx, "fill/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	check(t, err)
	list, err := own.MemberList(ctx)
	check(t, err)
	if resp.Count != 100 || len(list.Members) != 1 {
		t.Errorf("%d keys, members %v", resp.Count, list.Members)
	}
	for _, name := range []string{"m4", "m5"} {
		place := c.NewPlace(t)
		patiently(t, func() (any, error) { return own.MemberAdd(ctx, []string{place.URL()}) })
		c.Add(t, name, place).Ready(t)
		settled(t, c)
	}
	fill(ctx, t, c.Client(t), 10)
	sameData(ctx, t, c)
}

// TestRestoredCluster: a snapshot of one cluster becomes another one of three members, by the tools of quire and etcd.
func TestRestoredCluster(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	cli := c.Client(t)
	fill(ctx, t, cli, 50)
	grant, err := cli.Grant(ctx, 1000)
	check(t, err)
	_, err = cli.Put(ctx, "leased", "v", clientv3.WithLease(grant.ID))
	check(t, err)
	want, err := cli.Get(ctx, "", clientv3.WithPrefix())
	check(t, err)
	lead := c.Leader(t)
	snap := filepath.Join(t.TempDir(), "snap.db")
	if out := lead.Ctl(t, "snapshot", "save", snap); out.ExitCode != 0 {
		t.Fatalf("snapshot save: %s%s", out.Stdout, out.Stderr)
	}
	var clients, peers, list []string
	for i := range 3 {
		clients, peers = append(clients, harness.FreePort(t)), append(peers, "http://"+harness.FreePort(t))
		list = append(list, fmt.Sprintf("r%d=%s", i, peers[i]))
	}
	var all []*harness.Server
	for i := range 3 {
		dir := filepath.Join(t.TempDir(), "data")
		cluster := []string{"--name", fmt.Sprint("r", i), "--initial-advertise-peer-urls", peers[i], "--initial-cluster", strings.Join(list, ","), "--initial-cluster-token", "again"}
		restore := exec.Command(harness.Binary(t), append([]string{"restore", snap, "--data-dir", dir}, cluster...)...)
		if out, err := restore.CombinedOutput(); err != nil {
			t.Fatalf("restore: %v\n%s", err, out)
		}
		s := harness.Launch(t, harness.Config{BareArgs: true, Flags: append(cluster, "--data-dir", dir,
			"--listen-client-urls", "http://"+clients[i], "--advertise-client-urls", "http://"+clients[i], "--listen-peer-urls", peers[i])})
		s.Endpoint = clients[i]
		all = append(all, s)
	}
	for _, s := range all {
		s.Ready(t)
	}
	for i, s := range all {
		own := s.Client(t)
		got, err := own.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(want.Header.Revision))
		check(t, err)
		if fmt.Sprint(got.Kvs) != fmt.Sprint(want.Kvs) {
			t.Errorf("r%d holds %d keys, the snapshot %d, or they differ", i, len(got.Kvs), len(want.Kvs))
		}
		ttl, err := own.TimeToLive(ctx, grant.ID, clientv3.WithAttachedKeys())
		check(t, err)
		if ttl.GrantedTTL != 1000 || len(ttl.Keys) != 1 {
			t.Errorf("r%d: lease %+v", i, ttl)
		}
		_, err = own.Put(ctx, fmt.Sprint("new", i), "v")
		check(t, err)
	}
	now, err := all[0].Client(t).Status(ctx, all[0].Endpoint)
	check(t, err)
	if now.Header.ClusterId == want.Header.ClusterId {
		t.Error("both clusters have the same identity")
	}
}
