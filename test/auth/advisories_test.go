package auth

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"quire/test/harness"
)

// Each test is named for the advisory or the issue that etcd had. What needs a client certificate (CVE-2018-16886) is
// tested inside quire, in package rpc.

// Cluster, Alarm and Lease calls asked nobody who they were.
func TestCVE_2026_33413_CallsWithoutAUser(t *testing.T) {
	t.Parallel()
	s, ctx := start(t), harness.Context(t)
	for _, token := range []string{"", "junk"} {
		if token != "" {
			ctx = withToken(ctx, token)
		}
		expect := nobody
		if token != "" {
			expect = badToken
		}
		_, err := s.cluster.MemberList(ctx, &pb.MemberListRequest{})
		expect(t, "member list", err)
		_, err = s.maintenance.Alarm(ctx, &pb.AlarmRequest{})
		expect(t, "alarm list", err)
		_, err = s.maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE})
		expect(t, "alarm", err)
		_, err = s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 10})
		expect(t, "lease grant", err)
		_, err = s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 1})
		expect(t, "lease revoke", err)
		_, err = s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 1})
		expect(t, "lease timetolive", err)
		_, err = s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		expect(t, "lease list", err)
		keepAlive, err := s.lease.LeaseKeepAlive(ctx)
		check(t, err)
		check(t, keepAlive.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
		_, err = keepAlive.Recv()
		expect(t, "lease keepalive", err)
	}
}

// What a nested transaction does was not checked.
func TestCVE_2026_33343_NestedTransaction(t *testing.T) {
	t.Parallel()
	s := start(t)
	ctx := s.as(t, "ranged")
	forbidden := map[string]*pb.RequestOp{
		"put":    putOp(put("b")),
		"range":  {Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("b")}}},
		"delete": {Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("b")}}},
	}
	for name, op := range forbidden {
		inner := &pb.TxnRequest{Success: []*pb.RequestOp{op}}
		for depth := range 5 {
			_, err := s.kv.Txn(ctx, inner)
			denied(t, fmt.Sprintf("%s at depth %d", name, depth), err)
			inner = &pb.TxnRequest{Failure: []*pb.RequestOp{putOp(put(fmt.Sprint("a/", depth))), txnOp(inner)}}
		}
	}
	_, err := s.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("b")}}})}})
	denied(t, "nested compare", err)
	resp, err := s.kv.Range(s.as(t, "root"), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	check(t, err)
	if resp.Count != 0 {
		t.Errorf("something was written: %v", resp.Kvs)
	}
}

// prev_kv and the lease of puts in transactions were not checked.
func TestCVE_2026_44283_PutsInTransactions(t *testing.T) {
	t.Parallel()
	s := start(t)
	root := s.as(t, "root")
	_, err := s.lease.LeaseGrant(root, &pb.LeaseGrantRequest{ID: 5, TTL: 1000})
	check(t, err)
	_, err = s.kv.Put(root, &pb.PutRequest{Key: []byte("b"), Lease: 5})
	check(t, err)
	_, err = s.kv.Put(root, &pb.PutRequest{Key: []byte("a/1"), Value: []byte("secret")})
	check(t, err)
	txn := func(r *pb.PutRequest) *pb.TxnRequest { return &pb.TxnRequest{Success: []*pb.RequestOp{putOp(r)}} }
	_, err = s.kv.Txn(s.as(t, "writer"), txn(&pb.PutRequest{Key: []byte("a/1"), PrevKv: true}))
	denied(t, "prev_kv without the right to read", err)
	_, err = s.kv.Txn(s.as(t, "ranged"), txn(&pb.PutRequest{Key: []byte("a/1"), Lease: 5}))
	denied(t, "the lease of a key that one may not write", err)
	_, err = s.kv.Put(s.as(t, "ranged"), &pb.PutRequest{Key: []byte("a/1"), Lease: 5})
	denied(t, "the same outside a transaction", err)
	_, err = s.lease.LeaseRevoke(s.as(t, "ranged"), &pb.LeaseRevokeRequest{ID: 5})
	denied(t, "revoking it", err)
	_, err = s.kv.Txn(s.as(t, "ranged"), txn(&pb.PutRequest{Key: []byte("a/1"), PrevKv: true}))
	check(t, err)
}

// A watch from a key on was permitted to who may read that key alone, and told all later keys.
func TestGHSA_xg4h_WatchFromKey(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, user := range []string{"exact", "ranged"} {
		w, err := s.watch.Watch(s.as(t, user))
		check(t, err)
		for _, end := range []string{"\x00", "b", "a/1\x00\x00"} {
			check(t, w.Send(watchOf("a/1", end)))
			resp, err := w.Recv()
			check(t, err)
			permitted := user == "ranged" && end == "a/1\x00\x00"
			if resp.Canceled == permitted {
				t.Errorf("%s watches from a/1 to %q: %v", user, end, resp)
			}
		}
	}
}

// The keys of a lease were told to who may not read them.
func TestCVE_2023_32082_KeysOfALease(t *testing.T) {
	t.Parallel()
	s := start(t)
	root := s.as(t, "root")
	_, err := s.lease.LeaseGrant(root, &pb.LeaseGrantRequest{ID: 5, TTL: 1000})
	check(t, err)
	_, err = s.kv.Put(root, &pb.PutRequest{Key: []byte("secret"), Lease: 5})
	check(t, err)
	ctx := s.as(t, "ranged")
	_, err = s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 5, Keys: true})
	denied(t, "with keys", err)
	resp, err := s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 5})
	check(t, err)
	if len(resp.Keys) != 0 || resp.GrantedTTL != 1000 {
		t.Errorf("without keys: %v", resp)
	}
	_, err = s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	denied(t, "list of leases", err)
}

// Passwords were shown by the debugging endpoints.
func TestCVE_2021_28235_PasswordIsShownNowhere(t *testing.T) {
	t.Parallel()
	s := start(t, "--enable-pprof", "--log-level=debug", "--warning-unary-request-duration=1ns")
	const secret = "sesame-open-yourself"
	_, err := s.auth.UserAdd(s.as(t, "root"), &pb.AuthUserAddRequest{Name: "u", Password: secret})
	check(t, err)
	resp, err := s.auth.Authenticate(harness.Context(t), &pb.AuthenticateRequest{Name: "u", Password: secret})
	check(t, err)
	_, err = s.auth.Authenticate(harness.Context(t), &pb.AuthenticateRequest{Name: "none", Password: secret})
	if err == nil {
		t.Error("wrong password accepted")
	}
	_, err = s.kv.Range(withToken(harness.Context(t), resp.Token), &pb.RangeRequest{Key: []byte("x")})
	denied(t, "range", err)
	for _, path := range []string{"/debug/vars", "/debug/requests?fam=grpc.Recv.etcdserverpb.Auth&b=0&exp=1", "/debug/pprof/goroutine?debug=2", "/metrics"} {
		answer, err := http.Get("http://" + s.Endpoint + path)
		check(t, err)
		body, err := io.ReadAll(answer.Body)
		check(t, err)
		answer.Body.Close()
		if strings.Contains(string(body), secret) || strings.Contains(string(body), resp.Token) {
			t.Errorf("%s shows a secret", path)
		}
	}
	time.Sleep(100 * time.Millisecond) // the log is written behind
	if log := s.Log.String(); strings.Contains(log, secret) || strings.Contains(log, resp.Token) {
		t.Error("the log shows a secret")
	}
	if isQuire(t) {
		noSecretInFiles(t, s.DataDir, secret)
	}
}

func isQuire(t *testing.T) bool {
	t.Helper()
	return strings.Contains(filepath.Base(harness.Binary(t)), "quire")
}

// noSecretInFiles looks through a data directory.
func noSecretInFiles(t *testing.T, dir, secret string) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), secret) {
			t.Errorf("%s holds the password", path)
		}
		return err
	}))
}

// A JWT without a user name ended the process.
func TestIssue15676_JWTWithoutUser(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	secret := []byte("of both")
	check(t, os.WriteFile(file, secret, 0o600))
	s := start(t, "--auth-token=jwt,sign-method=HS256,priv-key="+file)
	rev, err := s.auth.AuthStatus(harness.Context(t), &pb.AuthStatusRequest{})
	check(t, err)
	sign := func(claims jwt.MapClaims) context.Context {
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
		check(t, err)
		return withToken(harness.Context(t), token)
	}
	get := &pb.RangeRequest{Key: []byte("a/1")}
	for what, claims := range map[string]jwt.MapClaims{
		"no user":          {"revision": rev.AuthRevision},
		"user is a number": {"revision": rev.AuthRevision, "username": 5},
		"no revision":      {"username": "root"},
		"nothing":          {},
	} {
		_, err := s.kv.Range(sign(claims), get)
		badToken(t, what, err)
	}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"username": "root", "revision": rev.AuthRevision}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	check(t, err)
	_, err = s.kv.Range(withToken(harness.Context(t), unsigned), get)
	badToken(t, "alg none", err)
	_, err = s.kv.Range(sign(jwt.MapClaims{"username": "ranged", "revision": rev.AuthRevision}), get)
	check(t, err)
	_, err = s.kv.Range(sign(jwt.MapClaims{"username": "ranged", "revision": rev.AuthRevision - 1}), get)
	if err == nil || !strings.Contains(err.Error(), "revision of auth store is old") {
		t.Errorf("old revision: %v", err)
	}
	_, err = s.kv.Range(sign(jwt.MapClaims{"username": "gone", "revision": rev.AuthRevision}), get)
	denied(t, "user that does not exist", err)
}

// FAULTS C17: a token is void after a change of the password, and after authentication was off.
func TestTokenReplay(t *testing.T) {
	t.Parallel()
	s := start(t)
	root, ctx := s.as(t, "root"), s.as(t, "ranged")
	get := &pb.RangeRequest{Key: []byte("a/1")}
	_, err := s.kv.Range(ctx, get)
	check(t, err)
	_, err = s.auth.UserChangePassword(root, &pb.AuthUserChangePasswordRequest{Name: "ranged", Password: "pw"})
	check(t, err)
	_, err = s.kv.Range(ctx, get)
	badToken(t, "after a change of the password", err)
	ctx = s.as(t, "ranged")
	_, err = s.auth.AuthDisable(root, &pb.AuthDisableRequest{})
	check(t, err)
	_, err = s.auth.AuthEnable(harness.Context(t), &pb.AuthEnableRequest{})
	check(t, err)
	_, err = s.kv.Range(ctx, get)
	badToken(t, "after authentication was off", err)
}

// Watches end with the right to them; quire's own, upstream's go on.
func TestWatchEndsWithTheRight(t *testing.T) {
	t.Parallel()
	if !isQuire(t) {
		t.Skip("upstream checks a watch only when it is made")
	}
	s := start(t)
	root, client := s.as(t, "root"), s.Client(t)
	w := client.Watch(s.as(t, "ranged"), "a/", clientv3Prefix)
	_, err := s.kv.Put(root, put("a/1"))
	check(t, err)
	if resp := <-w; len(resp.Events) != 1 {
		t.Fatalf("%+v", resp)
	}
	_, err = s.auth.RoleRevokePermission(root, &pb.AuthRoleRevokePermissionRequest{Role: "ranged", Key: []byte("a/"), RangeEnd: []byte("a0")})
	check(t, err)
	if resp, ok := <-w; ok { // clientv3 closes the channel of a watch that a server ends
		t.Errorf("more: %+v", resp)
	}
	raw, err := s.watch.Watch(s.as(t, "reader"))
	check(t, err)
	check(t, raw.Send(watchOf("a/", "a0")))
	created, err := raw.Recv()
	check(t, err)
	_, err = s.auth.UserDelete(root, &pb.AuthUserDeleteRequest{Name: "reader"})
	check(t, err)
	ended, err := raw.Recv()
	check(t, err)
	if created.Canceled || !ended.Canceled || !strings.Contains(ended.CancelReason, "permission denied") {
		t.Errorf("%v, then %v", created, ended)
	}
}
