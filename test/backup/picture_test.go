package backup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"quire/test/harness"
)

// rootPassword is root's, where authentication is on.
const rootPassword = "secret"

// client returns one that logs in if auth is set.
func client(t testing.TB, s *harness.Server, auth bool) *clientv3.Client {
	t.Helper()
	cfg := clientv3.Config{Endpoints: []string{s.Endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
		MaxCallRecvMsgSize: 256 << 20}
	if auth {
		cfg.Username, cfg.Password = "root", rootPassword
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// fill writes a history of n requests, with transactions, deletions, leases and a compaction in the middle.
func fill(t testing.TB, c *clientv3.Client, seed uint64, n int) {
	t.Helper()
	ctx := limit(t, time.Minute)
	rng := rand.New(rand.NewPCG(seed, 0))
	var leases []clientv3.LeaseID
	for range 5 {
		l, err := c.Grant(ctx, 600+rng.Int64N(10_000))
		must(t, err)
		leases = append(leases, l.ID)
	}
	key := func() string { return fmt.Sprintf("key-%03d", rng.IntN(n/3+1)) }
	value := func() string { return strings.Repeat("v", rng.IntN(400)) + fmt.Sprint(rng.IntN(1000)) }
	for i := range n {
		var err error
		switch k := rng.IntN(20); {
		case k < 3:
			_, err = c.Delete(ctx, key())
		case k == 3:
			_, err = c.Txn(ctx).Then(clientv3.OpPut("txn/a", value()), clientv3.OpPut("txn/b", value()), clientv3.OpDelete(key())).Commit()
		case k == 4:
			_, err = c.Delete(ctx, "key-00", clientv3.WithPrefix())
		case k < 8:
			_, err = c.Put(ctx, key(), value(), clientv3.WithLease(leases[rng.IntN(len(leases))]))
		default:
			_, err = c.Put(ctx, key(), value())
		}
		must(t, err)
		if i == n/2 {
			r, err := c.Get(ctx, "x")
			must(t, err)
			_, err = c.Compact(ctx, r.Header.Revision-int64(n/4), clientv3.WithCompactPhysical())
			must(t, err)
		}
	}
	_, err := c.Revoke(ctx, leases[0])
	must(t, err)
	_, err = c.Put(ctx, "big", strings.Repeat("x", 1<<20))
	must(t, err)
}

// enableAuth makes users and roles and switches authentication on.
func enableAuth(t testing.TB, c *clientv3.Client) {
	t.Helper()
	ctx := limit(t, time.Minute)
	steps := []func() error{
		func() error { _, err := c.RoleAdd(ctx, "reader"); return err },
		func() error {
			_, err := c.RoleGrantPermission(ctx, "reader", "key-", clientv3.GetPrefixRangeEnd("key-"), clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func() error { _, err := c.UserAdd(ctx, "root", rootPassword); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.UserAdd(ctx, "joe", "joe's"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "joe", "reader"); return err },
		func() error {
			_, err := c.UserAddWithOptions(ctx, "cert", "", &clientv3.UserAddOptions{NoPassword: true})
			return err
		},
		func() error { _, err := c.AuthEnable(ctx); return err },
	}
	for _, step := range steps {
		must(t, step())
	}
}

// picture is what a client sees, as lines.
func picture(t testing.TB, c *clientv3.Client) []string {
	t.Helper()
	ctx := limit(t, time.Minute)
	var lines []string
	note := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	now, err := c.Get(ctx, "", clientv3.WithPrefix())
	must(t, err)
	rev := now.Header.Revision
	note("revision %d", rev)
	hash, err := c.HashKV(ctx, c.Endpoints()[0], 0)
	must(t, err)
	note("hash %d of revision %d, compact revision %d", hash.Hash, hash.HashRevision, hash.CompactRevision)
	from := max(hash.CompactRevision, 1)
	for _, at := range []int64{rev, from, from + (rev-from)/2, rev - 1} {
		if at < from {
			continue
		}
		r, err := c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(at))
		must(t, err)
		note("%d keys at revision %d", r.Count, at)
		for _, kv := range r.Kvs {
			note("  %q=%.20q… (%d) created %d, modified %d, version %d, lease %x", kv.Key, kv.Value, len(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
		}
	}
	if hash.CompactRevision > 1 {
		_, err := c.Get(ctx, "x", clientv3.WithRev(hash.CompactRevision-1))
		note("before: %v", err)
	}
	leases, err := c.Leases(ctx)
	must(t, err)
	slices.SortFunc(leases.Leases, func(a, b clientv3.LeaseStatus) int { return int(a.ID>>1) - int(b.ID>>1) })
	for _, l := range leases.Leases {
		ttl, err := c.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
		must(t, err)
		slices.SortFunc(ttl.Keys, slices.Compare[[]byte])
		note("lease %x of %d s, keys %q", l.ID, ttl.GrantedTTL, ttl.Keys)
	}
	return append(lines, authPicture(t, ctx, c)...)
}

func authPicture(t testing.TB, ctx context.Context, c *clientv3.Client) (lines []string) {
	t.Helper()
	status, err := c.AuthStatus(ctx)
	must(t, err)
	lines = append(lines, fmt.Sprintf("auth %t, revision %d", status.Enabled, status.AuthRevision))
	users, err := c.UserList(ctx)
	must(t, err)
	for _, u := range users.Users {
		r, err := c.UserGet(ctx, u)
		must(t, err)
		lines = append(lines, fmt.Sprintf("user %s: roles %v", u, r.Roles))
	}
	roles, err := c.RoleList(ctx)
	must(t, err)
	for _, r := range roles.Roles {
		perms, err := c.RoleGet(ctx, r)
		must(t, err)
		lines = append(lines, fmt.Sprintf("role %s: %v", r, perms.Perm))
	}
	alarms, err := pb.NewMaintenanceClient(c.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{})
	must(t, err)
	return append(lines, fmt.Sprintf("alarms %v", alarms.Alarms))
}

func samePicture(t testing.TB, what string, got, want []string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: wanted (-), got (+):\n%s", what, d)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func limit(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
