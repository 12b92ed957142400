package engine

import (
	"encoding/base64"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quire/api/authpb"
	"quire/disk"
	"quire/engine/auth"
	"quire/pagestore"

	pb "quire/api/etcdserverpb"
)

// as wraps an operation as the rpc room does.
func (r *rig) as(user string, op []byte) []byte {
	return append(AppendAs(nil, auth.Identity{User: user, Revision: r.e.auth.Revision(), Known: true}), op...)
}

// must applies operations that have to succeed.
func (r *rig) must(ops ...[]byte) {
	r.t.Helper()
	for i, rep := range r.apply(ops...) {
		if rep.Err != nil {
			r.t.Fatalf("operation %d: %v", i, rep.Err)
		}
	}
}

var noPassword = &authpb.UserAddOptions{NoPassword: true}

// withUsers switches auth on: root; reader may read [a, b), writer may write
// it, both may do both, one may do both with the key a1 alone.
func withUsers(t *testing.T, seed uint64) *rig {
	r := newRig(t, seed)
	r.must(op(t, OpUserAdd, &pb.AuthUserAddRequest{Name: "root", Options: noPassword}),
		op(t, OpUserGrantRole, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}))
	for name, p := range map[string]*authpb.Permission{
		"reader": {PermType: authpb.Permission_READ, Key: []byte("a"), RangeEnd: []byte("b")},
		"writer": {PermType: authpb.Permission_WRITE, Key: []byte("a"), RangeEnd: []byte("b")},
		"both":   {PermType: authpb.Permission_READWRITE, Key: []byte("a"), RangeEnd: []byte("b")},
		"one":    {PermType: authpb.Permission_READWRITE, Key: []byte("a1")},
	} {
		r.must(op(t, OpUserAdd, &pb.AuthUserAddRequest{Name: name, Options: noPassword}),
			op(t, OpRoleAdd, &pb.AuthRoleAddRequest{Name: name}),
			op(t, OpRoleGrant, &pb.AuthRoleGrantPermissionRequest{Name: name, Perm: p}),
			op(t, OpUserGrantRole, &pb.AuthUserGrantRoleRequest{User: name, Role: name}))
	}
	r.must(op(t, OpUserAdd, &pb.AuthUserAddRequest{Name: "none", Options: noPassword}),
		op(t, OpAuthEnable, &pb.AuthEnableRequest{}))
	return r
}

func putOp(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}
func getOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}
func delOp(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}
func txnOp(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

// TestPermissions is who may do what, as of apply. Several rows are advisories
// that etcd had: CVE-2026-33343 (nested transactions), CVE-2026-44283 (prev_kv
// and leases of puts in transactions), and the branch that is not taken.
func TestPermissions(t *testing.T) {
	const leaseOfB = 5 // its key is b1
	key := func(k string) []byte { return []byte(k) }
	never := []*pb.Compare{{Key: key("a1"), Target: pb.Compare_VERSION, Result: pb.Compare_LESS, TargetUnion: &pb.Compare_Version{Version: -1}}}
	txn := func(r *pb.TxnRequest) func(*testing.T) []byte {
		return func(t *testing.T) []byte { return op(t, OpTxn, r) }
	}
	put := func(r *pb.PutRequest) func(*testing.T) []byte {
		return func(t *testing.T) []byte { return op(t, OpPut, r) }
	}
	del := func(r *pb.DeleteRangeRequest) func(*testing.T) []byte {
		return func(t *testing.T) []byte { return op(t, OpDeleteRange, r) }
	}
	for _, c := range []struct {
		what    string
		op      func(*testing.T) []byte
		allowed string // users, besides root
	}{
		{"put", put(&pb.PutRequest{Key: key("a1")}), "writer both one"},
		{"put elsewhere", put(&pb.PutRequest{Key: key("b1")}), ""},
		{"put at the end of the range", put(&pb.PutRequest{Key: key("b")}), ""},
		{"put with prev_kv", put(&pb.PutRequest{Key: key("a1"), PrevKv: true}), "both one"},
		{"put with the lease of another key", put(&pb.PutRequest{Key: key("a1"), Lease: leaseOfB}), ""},
		{"delete", del(&pb.DeleteRangeRequest{Key: key("a"), RangeEnd: key("b")}), "writer both"},
		{"delete one", del(&pb.DeleteRangeRequest{Key: key("a1")}), "writer both one"},
		{"delete with prev_kv", del(&pb.DeleteRangeRequest{Key: key("a"), RangeEnd: key("b"), PrevKv: true}), "both"},
		{"delete to the end", del(&pb.DeleteRangeRequest{Key: key("a"), RangeEnd: []byte{0}}), ""},
		{"txn that compares elsewhere", txn(&pb.TxnRequest{Compare: []*pb.Compare{{Key: key("b1")}}, Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: key("a1")})}}), ""},
		{"txn that compares a range", txn(&pb.TxnRequest{Compare: []*pb.Compare{{Key: key("a"), RangeEnd: key("b")}}, Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: key("a1")})}}), "both"},
		{"txn that puts elsewhere in a branch not taken", txn(&pb.TxnRequest{Compare: never, Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: key("b1")})}}), ""},
		{"txn that reads elsewhere in a branch not taken", txn(&pb.TxnRequest{Compare: never, Success: []*pb.RequestOp{getOp("b1", ""), putOp(&pb.PutRequest{Key: key("a1")})}}), ""},
		{"nested txn that puts elsewhere", txn(&pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Failure: []*pb.RequestOp{txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: key("b1")})}})}})}}), ""},
		{"nested txn that compares elsewhere", txn(&pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Compare: []*pb.Compare{{Key: key("b1")}}, Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: key("a1")})}})}}), ""},
		{"nested txn that puts", txn(&pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: key("a1")})}})}}), "writer both one"},
		{"txn that puts with prev_kv", txn(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: key("a1"), PrevKv: true})}}), "both one"},
		{"txn that puts with the lease of another key", txn(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: key("a1"), Lease: leaseOfB})}}), ""},
		{"txn that deletes with prev_kv", txn(&pb.TxnRequest{Success: []*pb.RequestOp{delOp(&pb.DeleteRangeRequest{Key: key("a1"), PrevKv: true})}}), "both one"},
		{"revoke of a lease of another key", func(t *testing.T) []byte { return op(t, OpLeaseRevoke, &pb.LeaseRevokeRequest{ID: leaseOfB}) }, ""},
		{"user list changes", func(t *testing.T) []byte { return op(t, OpUserDelete, &pb.AuthUserDeleteRequest{Name: "none"}) }, ""},
		{"role changes", func(t *testing.T) []byte { return op(t, OpRoleAdd, &pb.AuthRoleAddRequest{Name: "new"}) }, ""},
		{"switching off", func(t *testing.T) []byte { return op(t, OpAuthDisable, &pb.AuthDisableRequest{}) }, ""},
	} {
		r := withUsers(t, 1)
		r.must(op(t, OpLeaseGrant, &pb.LeaseGrantRequest{ID: leaseOfB, TTL: 100}),
			r.as("root", op(t, OpPut, &pb.PutRequest{Key: key("b1"), Lease: leaseOfB})))
		for _, user := range []string{"reader", "writer", "both", "one", "none", "unknown"} {
			want := auth.ErrPermissionDenied
			if slices.Contains(strings.Fields(c.allowed), user) {
				want = nil
			} else if user == "unknown" && OpKind(c.op(t)[0]) >= OpAuthEnable {
				want = auth.ErrUserNotFound
			}
			before := r.e.Revision()
			if got := r.apply(r.as(user, c.op(t)))[0].Err; got != want {
				t.Errorf("%s, as %s: %v, want %v", c.what, user, got, want)
			}
			if want != nil && r.e.Revision() != before {
				t.Errorf("%s, as %s: refused, but something was written", c.what, user)
			}
		}
		stale := append(AppendAs(nil, auth.Identity{User: "both", Revision: r.e.auth.Revision() - 1}), c.op(t)...)
		switch got := r.apply(stale)[0].Err; {
		case OpKind(c.op(t)[0]) >= OpAuthEnable && got == auth.ErrPermissionDenied:
		case OpKind(c.op(t)[0]) < OpAuthEnable && got == auth.ErrOldRevision:
		default:
			t.Errorf("%s, by an old revision: %v", c.what, got)
		}
		if got := r.apply(c.op(t))[0].Err; got != auth.ErrUserEmpty {
			t.Errorf("%s, as nobody: %v", c.what, got)
		}
		if got := r.apply(r.as("root", c.op(t)))[0].Err; got != nil {
			t.Errorf("%s, as root: %v", c.what, got)
		}
		if err := r.e.Abandon(); err != nil {
			t.Fatal(err)
		}
	}
}

// What the engine does itself needs nobody's rights.
func TestOwnOperationsNeedNoRights(t *testing.T) {
	r := withUsers(t, 1)
	r.must(op(t, OpLeaseGrant, &pb.LeaseGrantRequest{ID: 5, TTL: 100}),
		r.as("root", op(t, OpPut, &pb.PutRequest{Key: []byte("k"), Lease: 5})),
		op(t, OpAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}),
		op(t, OpAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}),
		op(t, OpCompact, &pb.CompactionRequest{Revision: 2}),
		AppendOp(nil, OpLeaseExpire, AppendExpire(nil, 1, []int64{5})))
	if got := r.e.Leases(); len(got) != 0 {
		t.Errorf("leases %v, want none", got)
	}
}

// listener notes what it is told.
type listener struct {
	told []string
}

func (l *listener) Changed() { l.told = append(l.told, "changed") }
func (l *listener) Issued(_ uint64, user, token string) {
	l.told = append(l.told, "issued "+user+" "+token)
}
func (l *listener) Revoked(user string) { l.told = append(l.told, "revoked "+user) }
func (l *listener) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(l.told, want) {
		t.Errorf("told %q, want %q", l.told, want)
	}
	l.told = nil
}

func TestAuthListener(t *testing.T) {
	r, l := withUsers(t, 1), &listener{}
	r.e.opts.AuthListener = l
	hash := base64.StdEncoding.EncodeToString([]byte("hash"))
	root := func(o []byte) { t.Helper(); r.must(r.as("root", o)) }
	login := AppendOp(nil, OpAuthenticate, AppendAuthenticate(nil, "u", "prefix"))
	if got := r.apply(login)[0].Err; got != auth.ErrAuthFailed {
		t.Errorf("log-in of an unknown user: %v", got)
	}
	if got := r.apply(AppendOp(nil, OpAuthenticate, AppendAuthenticate(nil, "none", "prefix")))[0].Err; got != auth.ErrAuthFailed {
		t.Errorf("log-in of a user without password: %v", got)
	}
	l.expect(t)
	root(op(t, OpUserAdd, &pb.AuthUserAddRequest{Name: "u", HashedPassword: hash}))
	l.expect(t, "changed")
	rep := r.apply(login)[0]
	var resp pb.AuthenticateResponse
	if err := resp.UnmarshalVT(rep.Body); err != nil || rep.Err != nil || !strings.HasPrefix(resp.Token, "prefix.") {
		t.Errorf("log-in: %v, %v, token %q", rep.Err, err, resp.Token)
	}
	l.expect(t, "issued u "+resp.Token)
	root(op(t, OpUserGrantRole, &pb.AuthUserGrantRoleRequest{User: "u", Role: "reader"}))
	l.expect(t, "changed")
	root(op(t, OpUserGrantRole, &pb.AuthUserGrantRoleRequest{User: "u", Role: "reader"}))
	l.expect(t) // had it already
	root(op(t, OpUserChangePassword, &pb.AuthUserChangePasswordRequest{Name: "u", HashedPassword: hash}))
	l.expect(t, "revoked u", "changed")
	root(op(t, OpUserDelete, &pb.AuthUserDeleteRequest{Name: "u"}))
	l.expect(t, "revoked u", "changed")
	if got := r.apply(r.as("root", op(t, OpUserDelete, &pb.AuthUserDeleteRequest{Name: "u"})))[0].Err; got != auth.ErrUserNotFound {
		t.Errorf("deleting twice: %v", got)
	}
	l.expect(t)
	root(op(t, OpAuthDisable, &pb.AuthDisableRequest{}))
	l.expect(t, "revoked ", "changed")
	if got := r.apply(login)[0].Err; got != auth.ErrNotEnabled {
		t.Errorf("log-in while switched off: %v", got)
	}
}

// TestAuthSurvives compares the auth state with a store that saw the same
// changes, over checkpoints and crashes.
func TestAuthSurvives(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		r, twin := newRig(t, seed), auth.NewStore(nil)
		names := []string{"root", "u", "v"}
		for range 80 {
			user, role := names[rnd.IntN(3)], names[rnd.IntN(3)]
			perm := &authpb.Permission{PermType: authpb.Permission_Type(rnd.IntN(3)), Key: randKey(rnd)}
			var got []byte
			var want error
			switch rnd.IntN(9) {
			case 0:
				m := &pb.AuthUserAddRequest{Name: user, HashedPassword: "aGFzaA=="}
				got, want = op(t, OpUserAdd, m), twin.AddUser(m)
			case 1:
				got, want = op(t, OpRoleAdd, &pb.AuthRoleAddRequest{Name: role}), twin.AddRole(role)
			case 2, 3:
				got, want = op(t, OpUserGrantRole, &pb.AuthUserGrantRoleRequest{User: user, Role: role}), twin.GrantRole(user, role)
			case 4:
				got, want = op(t, OpRoleGrant, &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: perm}), twin.GrantPermission(role, perm)
			case 5:
				got, want = op(t, OpAuthEnable, &pb.AuthEnableRequest{}), twin.Enable()
			case 6:
				if rnd.IntN(3) > 0 {
					continue
				}
				got, want = op(t, OpUserDelete, &pb.AuthUserDeleteRequest{Name: user}), twin.DeleteUser(user)
			case 7:
				if err := r.e.Checkpoint(); err != nil {
					t.Fatal(err)
				}
				continue
			case 8:
				r.crash()
				continue
			}
			if err := r.apply(r.as("root", got))[0].Err; err != want {
				t.Fatalf("operation %d: %v, want %v", got[0], err, want)
			}
			sameAuth(t, r.e.AuthState(), twin.State())
		}
		if err := r.e.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A fresh store takes over what it is given; restore and import use that.
func TestBootstrapAuth(t *testing.T) {
	given := goldenAuthState()
	e, err := Open(disk.NewMem(1), Options{ClusterID: 7, MemberID: 9, Auth: &given, Pages: pagestore.Options{Inline: true}})
	if err != nil {
		t.Fatal(err)
	}
	sameAuth(t, e.AuthState(), goldenAuthState())
	if err := e.Auth().Admin(auth.Identity{}); err != auth.ErrUserEmpty {
		t.Errorf("not switched on: %v", err)
	}
	if err := e.Abandon(); err != nil {
		t.Fatal(err)
	}
}

// #14571: members that have restarted decide like those that have not.
func TestRestartedMemberAgrees(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 6))
		a, b := withUsers(t, seed), withUsers(t, seed)
		users := []string{"root", "reader", "writer", "both", "one", "none", "gone"}
		for i := range 60 {
			user := users[rnd.IntN(len(users))]
			var o []byte
			switch rnd.IntN(8) {
			case 0:
				o = op(t, OpUserGrantRole, &pb.AuthUserGrantRoleRequest{User: users[rnd.IntN(len(users))], Role: users[1+rnd.IntN(5)]})
				user = "root"
			case 1:
				o = op(t, OpRoleGrant, &pb.AuthRoleGrantPermissionRequest{Name: users[1+rnd.IntN(5)], Perm: &authpb.Permission{
					PermType: authpb.Permission_Type(rnd.IntN(3)), Key: []byte{'a' + byte(rnd.IntN(3))}, RangeEnd: []byte{'b' + byte(rnd.IntN(3))}}})
				user = "root"
			default:
				o = op(t, OpPut, &pb.PutRequest{Key: []byte{'a' + byte(rnd.IntN(4)), '1'}, PrevKv: rnd.IntN(2) == 0})
			}
			o = a.as(user, o)
			if got, want := b.apply(o)[0], a.apply(o)[0]; got.Err != want.Err || got.Revision != want.Revision {
				t.Fatalf("step %d: %v at %d, the other %v at %d", i, got.Err, got.Revision, want.Err, want.Revision)
			}
			switch rnd.IntN(8) {
			case 0:
				if err := b.e.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			case 1:
				b.crash()
			}
		}
		sameAuth(t, a.e.AuthState(), b.e.AuthState())
		for _, r := range []*rig{a, b} {
			if err := r.e.Abandon(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
