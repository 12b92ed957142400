package cluster

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"quire/test/harness"
)

// TestEqualMembersAreNotAccused: all checks of the members' data run, under load, with members that are killed and a
// leader that changes, and find nothing.
func TestEqualMembersAreNotAccused(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3, "--corrupt-check-time=300ms", "--compact-hash-check-time=300ms",
		"--feature-gates=CompactHashCheck=true,InitialCorruptCheck=true"), harness.Context(t)
	cli := c.Client(t)
	write := func(round int) {
		t.Helper()
		rev := int64(0)
		for i := range 200 {
			rev = patiently(t, func() (*clientv3.PutResponse, error) {
				return cli.Put(ctx, fmt.Sprint("k", i%20), fmt.Sprint(round, i))
			}).Header.Revision
		}
		_, err := cli.Compact(ctx, rev-50)
		check(t, err)
	}
	said := func(s *harness.Server, text string) {
		t.Helper()
		if !s.Log.Wait(text, 30*time.Second) {
			t.Fatalf("the log of %s does not say %q", s.Endpoint, text)
		}
	}
	write(0)
	leader := c.Leader(t)
	said(leader, "enabled corruption checking")
	said(leader, `"finished peer corruption check","number-of-peers-checked":2`)
	said(leader, `"successfully checked hash on whole cluster","number-of-peers-checked":2`)

	follower := c.Others(leader)[0]
	follower.Kill()
	write(1)
	follower.Restart(t)
	said(follower, "initial corruption checking passed; no corruption")
	write(2)
	leader.Kill()
	write(3)
	leader.Restart(t)
	now := c.Leader(t)
	write(4)
	said(now, `"finished peer corruption check","number-of-peers-checked":2`)
	said(now, `"successfully checked hash on whole cluster","number-of-peers-checked":2`)

	alarms, err := cli.AlarmList(ctx)
	check(t, err)
	if len(alarms.Alarms) > 0 {
		t.Errorf("alarms: %v", alarms.Alarms)
	}
	for _, s := range c.Servers {
		for _, bad := range []string{"CORRUPT", "divergent", "mismatch", "must be less than", "hashes must match", `"level":"error"`} {
			for line := range strings.Lines(s.Log.String()) {
				if strings.Contains(line, bad) {
					t.Errorf("%s: %s", s.Endpoint, line)
				}
			}
		}
	}
}

// TestVerifiedMembers: the leader's metrics tell up to where the others are known to be equal.
func TestVerifiedMembers(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	cli := c.Client(t)
	leader := c.Leader(t)
	for i := range 50 {
		_, err := cli.Put(ctx, fmt.Sprint("k", i), "v")
		check(t, err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		page := metrics(t, leader)
		verified := 0
		for line := range strings.Lines(page) {
			var entry float64
			if rest, ok := strings.CutPrefix(line, "quire_corruption_verified_entry{"); ok {
				_, value, _ := strings.Cut(rest, "} ")
				if _, err := fmt.Sscan(value, &entry); err == nil && entry >= 48 {
					verified++
				}
			}
		}
		if verified == 2 && strings.Contains(page, `quire_corruption_rounds_total{result="unequal"} 0`) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d members are verified:\n%s", verified, page)
		}
	}
}

func metrics(t *testing.T, s *harness.Server) string {
	t.Helper()
	resp, err := http.Get("http://" + s.Endpoint + "/metrics")
	check(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	check(t, err)
	return string(b)
}
