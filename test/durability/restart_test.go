package durability

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"quire/test/harness"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRestartKeepsEverything writes some of each kind, restarts with both ways of ending, and looks at all of it.
func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *harness.Server){
		"kill": func(_ *testing.T, s *harness.Server) { s.Kill() },
		"stop": func(t *testing.T, s *harness.Server) { s.Stop(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t)
			c, ctx := s.Client(t), harness.Context(t)
			lease, err := c.Grant(ctx, 1000)
			check(t, err)
			for i := range 30 {
				_, err := c.Put(ctx, fmt.Sprintf("k%d", i%10), fmt.Sprint(i))
				check(t, err)
			}
			_, err = c.Put(ctx, "leased", "v", clientv3.WithLease(lease.ID))
			check(t, err)
			_, err = c.Delete(ctx, "k0")
			check(t, err)
			_, err = c.Compact(ctx, 20)
			check(t, err)
			before := state(t, c, lease.ID)
			hash, err := c.HashKV(ctx, s.Endpoint, 0)
			check(t, err)
			for range 3 { // restarts on restarts
				end(t, s)
				s.Restart(t)
				if after := state(t, c, lease.ID); after != before {
					t.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
				again, err := c.HashKV(ctx, s.Endpoint, 0)
				check(t, err)
				if again.Hash != hash.Hash || again.CompactRevision != hash.CompactRevision {
					t.Errorf("hash %v before, %v after", hash, again)
				}
			}
		})
	}
}

// state is all that a client can see, as text.
func state(t *testing.T, c *clientv3.Client, lease clientv3.LeaseID) string {
	t.Helper()
	ctx := harness.Context(t)
	var b strings.Builder
	for _, rev := range []int64{0, 19, 20, 25} {
		resp, err := c.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(rev))
		if err != nil {
			fmt.Fprintf(&b, "at %d: %v\n", rev, err)
			continue
		}
		fmt.Fprintf(&b, "at %d: revision %d count %d kvs %v\n", rev, resp.Header.Revision, resp.Count, resp.Kvs)
	}
	ttl, err := c.TimeToLive(ctx, lease, clientv3.WithAttachedKeys())
	check(t, err)
	fmt.Fprintf(&b, "lease granted %d keys %s\n", ttl.GrantedTTL, ttl.Keys)
	members, err := c.MemberList(ctx)
	check(t, err)
	fmt.Fprintf(&b, "cluster %x members %v\n", members.Header.ClusterId, members.Members)
	return b.String()
}

// TestSecondProcessOnADataDirectoryEndsAtOnce is quire's own: upstream's second process waits for ever.
func TestSecondProcessOnADataDirectoryEndsAtOnce(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream waits for the lock")
	}
	s := harness.Start(t)
	start := time.Now()
	second := harness.Launch(t, harness.Config{DataDir: s.DataDir})
	if code := second.Exit(t); code <= 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if log := second.Log.String(); !strings.Contains(log, "in use") || !strings.Contains(log, fmt.Sprint(s.Pid())) {
		t.Errorf("it does not say who uses the directory (process %d): %s", s.Pid(), log)
	}
	_, err := s.Client(t).Put(harness.Context(t), "k", "the first is not disturbed")
	check(t, err)
}

// TestBootstrapFlagsAreIgnoredOnceThereIsData: a member's identity is that of its first start, whatever the flags say later.
func TestBootstrapFlagsAreIgnoredOnceThereIsData(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c, ctx := s.Client(t), harness.Context(t)
	first, err := c.Put(ctx, "k", "v")
	check(t, err)
	s.Stop(t)
	s.Restart(t, "--initial-cluster-token", "another", "--initial-cluster", "default=http://127.0.0.1:9,other=http://127.0.0.1:10",
		"--initial-advertise-peer-urls", "http://127.0.0.1:9", "--initial-cluster-state", "existing")
	again, err := c.Get(ctx, "k")
	check(t, err)
	if again.Count != 1 || again.Header.ClusterId != first.Header.ClusterId || again.Header.MemberId != first.Header.MemberId {
		t.Errorf("before %v, after %v with %d keys", first.Header, again.Header, again.Count)
	}
}
