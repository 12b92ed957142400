package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"quire/api/authpb"
	pb "quire/api/etcdserverpb"
	"quire/engine"
	"quire/engine/auth"
)

const authMethod = "/" + authService + "/"

// authMember is a member with authentication on: root, and ann who may read and
// write [a, b).
type authMember struct {
	caller
	*realMember
}

func newAuthMember(t testing.TB) *authMember {
	t.Helper()
	m := newRealMember(t)
	a := &authMember{caller{t, m.Server}, m}
	a.must(authMethod+"UserAdd", &pb.AuthUserAddRequest{Name: "root", Password: "rootpw"}, &pb.AuthUserAddResponse{})
	a.must(authMethod+"UserAdd", &pb.AuthUserAddRequest{Name: "ann", Password: "annpw"}, &pb.AuthUserAddResponse{})
	a.must(authMethod+"RoleAdd", &pb.AuthRoleAddRequest{Name: "r"}, &pb.AuthRoleAddResponse{})
	a.must(authMethod+"RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{
		PermType: authpb.Permission_READWRITE, Key: []byte("a"), RangeEnd: []byte("b")}}, &pb.AuthRoleGrantPermissionResponse{})
	a.must(authMethod+"UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "ann", Role: "r"}, &pb.AuthUserGrantRoleResponse{})
	a.must(authMethod+"UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}, &pb.AuthUserGrantRoleResponse{})
	a.must(authMethod+"AuthEnable", &pb.AuthEnableRequest{}, &pb.AuthEnableResponse{})
	return a
}

// login returns a context with a token of the user.
func (a *authMember) login(user, password string) context.Context {
	a.Helper()
	ctx, err := a.tryLogin(user, password)
	if err != nil {
		a.Fatalf("log-in of %s: %v", user, err)
	}
	return ctx
}

func (a *authMember) tryLogin(user, password string) (context.Context, error) {
	var resp pb.AuthenticateResponse
	err := a.try(a.Context(), authMethod+"Authenticate", &pb.AuthenticateRequest{Name: user, Password: password}, &resp)
	return withToken(a.Context(), resp.Token), err
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.NewIncomingContext(ctx, metadata.Pairs("token", token))
}

// as runs a method that has to succeed.
func (a *authMember) as(ctx context.Context, method string, req, resp wireMessage) {
	a.Helper()
	if err := a.try(ctx, method, req, resp); err != nil {
		a.Fatalf("%s: %v", method, err)
	}
}

func (a *authMember) put(ctx context.Context, key string) error {
	return a.try(ctx, putMethod, &pb.PutRequest{Key: []byte(key)}, &pb.PutResponse{})
}

// certified is the context of a client with a certificate, verified or not.
func certified(ctx context.Context, name string, verified bool) context.Context {
	info := credentials.TLSInfo{State: tls.ConnectionState{}}
	if verified {
		info.State.VerifiedChains = [][]*x509.Certificate{{}, {{Subject: pkix.Name{CommonName: name}}}}
	}
	return peer.NewContext(ctx, &peer.Peer{AuthInfo: info})
}

// TestWhoAsks is every way to say who one is. CVE-2018-16886 is the gateway's
// certificate.
func TestWhoAsks(t *testing.T) {
	a := newAuthMember(t)
	var login pb.AuthenticateResponse
	a.must(authMethod+"Authenticate", &pb.AuthenticateRequest{Name: "ann", Password: "annpw"}, &login)
	ctx, rev := context.Background(), a.engine.Auth().Revision()
	meta := func(ctx context.Context, kv ...string) context.Context {
		return metadata.NewIncomingContext(ctx, metadata.Pairs(kv...))
	}
	ann, root, nobody := auth.Identity{User: "ann", Revision: rev, Known: true}, auth.Identity{User: "root", Revision: rev, Known: true}, auth.Identity{}
	for _, c := range []struct {
		what string
		ctx  context.Context
		cert bool // certificates count
		want auth.Identity
		err  error
	}{
		{"nothing", ctx, true, nobody, nil},
		{"token", meta(ctx, "token", login.Token), false, ann, nil},
		{"bearer", meta(ctx, "authorization", "Bearer "+login.Token), false, ann, nil},
		{"authorization", meta(ctx, "authorization", login.Token), false, ann, nil},
		{"token before authorization", meta(ctx, "token", login.Token, "authorization", "junk"), false, ann, nil},
		{"bad token before a good authorization", meta(ctx, "token", "junk", "authorization", login.Token), false, nobody, errInvalidAuthToken},
		{"empty token", meta(ctx, "token", ""), false, nobody, errInvalidAuthToken},
		{"forged token", meta(ctx, "token", "abcdefghijklmnop.18446744073709551615"), false, nobody, errInvalidAuthToken},
		{"certificate", certified(meta(ctx), "root", true), true, root, nil},
		{"certificate that does not count", certified(meta(ctx), "root", true), false, nobody, nil},
		{"certificate that was not verified", certified(meta(ctx), "root", false), true, nobody, nil},
		{"certificate without a name", certified(meta(ctx), "", true), true, auth.Identity{Revision: rev, Known: true}, nil},
		{"gateway's certificate", certified(meta(ctx, "grpcgateway-accept", "*/*"), "root", true), true, nobody, nil},
		{"token through a gateway", certified(meta(ctx, "grpcgateway-accept", "*/*", "token", login.Token), "root", true), true, ann, nil},
		{"token before certificate", certified(meta(ctx, "token", login.Token), "root", true), true, ann, nil},
		{"bad token before certificate", certified(meta(ctx, "token", "junk"), "root", true), true, nobody, errInvalidAuthToken},
		{"plain connection", peer.NewContext(ctx, &peer.Peer{}), true, nobody, nil},
	} {
		a.cfg.ClientCertAuth = c.cert
		got, err := a.identify(c.ctx)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %+v %v, want %+v %v", c.what, got, err, c.want, c.err)
		}
	}
	a.cfg.ClientCertAuth = true
	wantStatus(t, a.try(certified(ctx, "", true), authMethod+"UserList", &pb.AuthUserListRequest{}, &pb.AuthUserListResponse{}), codes.InvalidArgument, "etcdserver: user name is empty")
	a.as(certified(ctx, "root", true), authMethod+"AuthDisable", &pb.AuthDisableRequest{}, &pb.AuthDisableResponse{})
	if got, err := a.identify(meta(ctx, "token", "junk")); got != nobody || err != nil {
		t.Errorf("switched off: %+v %v", got, err)
	}
}

// Tokens that were good are void after what voids them (FAULTS: token replay).
func TestTokenReplay(t *testing.T) {
	a := newAuthMember(t)
	root, ann := a.login("root", "rootpw"), a.login("ann", "annpw")
	refused := func(what string, ctx context.Context) {
		t.Helper()
		if err := a.put(ctx, "a"); !errors.Is(err, errInvalidAuthToken) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := a.put(ann, "a"); err != nil {
		t.Fatal(err)
	}
	a.as(root, authMethod+"UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "newpw"}, &pb.AuthUserChangePasswordResponse{})
	refused("after a change of the password", ann)
	if _, err := a.tryLogin("ann", "annpw"); !errors.Is(err, StatusOf(auth.ErrAuthFailed)) {
		t.Errorf("old password: %v", err)
	}
	ann = a.login("ann", "newpw")
	if err := a.put(ann, "a"); err != nil {
		t.Fatal(err)
	}
	a.as(root, authMethod+"UserDelete", &pb.AuthUserDeleteRequest{Name: "ann"}, &pb.AuthUserDeleteResponse{})
	refused("after the user was deleted", ann)
	a.as(root, authMethod+"UserAdd", &pb.AuthUserAddRequest{Name: "ann", Password: "annpw"}, &pb.AuthUserAddResponse{})
	refused("after the user was made again", ann)
	a.as(root, authMethod+"AuthDisable", &pb.AuthDisableRequest{}, &pb.AuthDisableResponse{})
	a.must(authMethod+"AuthEnable", &pb.AuthEnableRequest{}, &pb.AuthEnableResponse{})
	refused("after authentication was off", root)
	if err := a.put(a.Context(), "a"); !errors.Is(err, StatusOf(auth.ErrUserEmpty)) {
		t.Errorf("without a token: %v", err)
	}
}

// A log-in during which users or roles change is done again, so that the token
// it gives belongs to the password of now.
func TestLogInWhileRightsChange(t *testing.T) {
	a := newAuthMember(t)
	root := a.login("root", "rootpw")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond / 2):
			}
			name := fmt.Sprintf("r%d", i)
			if err := a.try(root, authMethod+"RoleAdd", &pb.AuthRoleAddRequest{Name: name}, &pb.AuthRoleAddResponse{}); err != nil {
				t.Errorf("role add: %v", err)
				return
			}
		}
	})
	for range 20 {
		ctx := a.login("ann", "annpw")
		// The put itself may meet a change, which is refused as etcd does.
		for err := a.put(ctx, "a"); err != nil; err = a.put(ctx, "a") {
			if !errors.Is(err, StatusOf(auth.ErrOldRevision)) {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// A password that was changed while it was being checked gives no token.
func TestLogInWithAPasswordThatChanges(t *testing.T) {
	a := newAuthMember(t)
	root := a.login("root", "rootpw")
	block, release := make(chan struct{}), make(chan struct{})
	for range cap(a.passwords.jobs) / passwordsWaiting { // keeps every worker busy
		c := &Call{srv: a.Server, wake: func(*Call) {}, free: func(*Call) {}}
		c.refs.Store(1)
		a.passwords.jobs <- passwordJob{c, func() { block <- struct{}{}; <-release }, nil}
		<-block
	}
	result := make(chan error, 1)
	go func() {
		_, err := a.tryLogin("ann", "annpw")
		result <- err
	}()
	if !eventually(func() bool { return len(a.passwords.jobs) == 1 }) {
		t.Fatal("the log-in does not wait")
	}
	// The hash of "x", so that no worker is needed.
	hash := "JDJhJDA0JHVZQ1dCUlFhVlFuVVZxVVYuVnhvTU9Sek9JdVNXRGRRbWdRMkZ5cGtXSXVSaXlDOFpwOTJP"
	a.as(root, authMethod+"UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "ann", HashedPassword: hash}, &pb.AuthUserChangePasswordResponse{})
	close(release)
	if err := <-result; !errors.Is(err, StatusOf(auth.ErrAuthFailed)) {
		t.Errorf("log-in with what was the password: %v", err)
	}
}

// What waits for the password workers is bounded, and what has ended is not done.
func TestPasswordStorm(t *testing.T) {
	a := newAuthMember(t)
	busy, block, release := cap(a.passwords.jobs)/passwordsWaiting, make(chan struct{}), make(chan struct{})
	for range busy {
		c := &Call{srv: a.Server, wake: func(*Call) {}, free: func(*Call) {}}
		c.refs.Store(1)
		a.passwords.jobs <- passwordJob{c, func() { block <- struct{}{}; <-release }, nil}
		<-block
	}
	gone, cancel := context.WithCancel(a.Context())
	results := make(chan error, 2*cap(a.passwords.jobs))
	for range cap(results) {
		go func() {
			req, _ := (&pb.AuthenticateRequest{Name: "ann", Password: "annpw"}).MarshalVT()
			_, err := a.Invoke(gone, authMethod+"Authenticate", req)
			results <- err
		}()
	}
	for range cap(results) / 2 { // those that found the queue full
		wantStatus(t, <-results, codes.ResourceExhausted, "etcdserver: too many requests")
	}
	cancel()
	for range cap(results) / 2 { // those that waited, and whose clients are gone
		wantStatus(t, <-results, codes.Canceled, "context canceled")
	}
	// Half a minute of work at the usual cost, of which none is done.
	close(release)
	if !eventually(func() bool { return len(a.passwords.jobs) == 0 }) {
		t.Error("what nobody waits for is being done")
	}
	a.login("ann", "annpw")
}

// tappedRaft shows what goes into the log.
type tappedRaft struct {
	Proposer
	mu  sync.Mutex
	ops [][]byte
}

func (r *tappedRaft) Enqueue(w interface{ Dropped(error) }, head, body []byte) error {
	r.mu.Lock()
	r.ops = append(r.ops, slices.Concat(head, body))
	r.mu.Unlock()
	return r.Proposer.Enqueue(w, head, body)
}

// No password goes into the log, whatever form the request has.
func TestPasswordsStayOutOfTheLog(t *testing.T) {
	a := newAuthMember(t)
	tap := &tappedRaft{Proposer: a.node}
	a.cfg.Raft = tap
	root := a.login("root", "rootpw")
	const secret = "sesame"
	for _, r := range []*pb.AuthUserAddRequest{
		{Name: "u1", Password: secret},
		{Name: "u2", Password: secret, Options: &authpb.UserAddOptions{NoPassword: true}},
		{Name: "u3", Password: secret, HashedPassword: secret},
	} {
		a.as(root, authMethod+"UserAdd", r, &pb.AuthUserAddResponse{})
	}
	a.as(root, authMethod+"UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "u1", Password: secret, HashedPassword: secret}, &pb.AuthUserChangePasswordResponse{})
	a.login("u1", secret)
	if len(tap.ops) < 6 {
		t.Fatalf("%d operations seen", len(tap.ops))
	}
	for _, op := range tap.ops {
		if bytes.Contains(op, []byte(secret)) {
			t.Errorf("in the log: %q", op)
		}
	}
}

// Who does not say who they are cannot fill the log, nor raise an alarm.
func TestNobodyWritesNothing(t *testing.T) {
	a := newAuthMember(t)
	tap := &tappedRaft{Proposer: a.node}
	a.cfg.Raft = tap
	for method, req := range map[string]wireMessage{
		"KV/Put":                   &pb.PutRequest{Key: []byte("a")},
		"KV/DeleteRange":           &pb.DeleteRangeRequest{Key: []byte("a")},
		"KV/Txn":                   &pb.TxnRequest{Success: []*pb.RequestOp{putOp([]byte("a"), nil, 0)}},
		"Lease/LeaseGrant":         &pb.LeaseGrantRequest{TTL: 5},
		"Lease/LeaseRevoke":        &pb.LeaseRevokeRequest{ID: 5},
		"Auth/AuthDisable":         &pb.AuthDisableRequest{},
		"Auth/UserAdd":             &pb.AuthUserAddRequest{Name: "u", Password: "p"},
		"Auth/UserDelete":          &pb.AuthUserDeleteRequest{Name: "ann"},
		"Auth/UserChangePassword":  &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "p"},
		"Auth/RoleGrantPermission": &pb.AuthRoleGrantPermissionRequest{Name: "r"},
		"KV/Compact":               &pb.CompactionRequest{Revision: 1},
		"Maintenance/Alarm":        &pb.AlarmRequest{},
	} {
		b, err := req.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Invoke(t.Context(), "/etcdserverpb."+method, b)
		wantStatus(t, err, codes.InvalidArgument, "etcdserver: user name is empty")
		if _, err = a.Invoke(withToken(t.Context(), "junk"), "/etcdserverpb."+method, b); !errors.Is(err, errInvalidAuthToken) {
			t.Errorf("%s with a bad token: %v", method, err)
		}
	}
	f := newFake()
	f.size, f.quota = 1000, 1000
	a.cfg.Space = f
	if err := a.put(t.Context(), "a"); !errors.Is(err, StatusOf(auth.ErrUserEmpty)) {
		t.Errorf("over the quota: %v", err)
	}
	if len(tap.ops) != 0 {
		t.Errorf("%d operations in the log", len(tap.ops))
	}
	// A transaction that touches nothing needs no rights, as in etcd.
	empty := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{}}}}}
	a.as(t.Context(), "/etcdserverpb.KV/Txn", empty, &pb.TxnResponse{})
}

// The server's own calls do not depend on anybody's rights.
func TestOwnCalls(t *testing.T) {
	a := newAuthMember(t)
	if err := a.put(a.login("ann", "annpw"), "a"); err != nil {
		t.Fatal(err)
	}
	if err := a.Compact(t.Context(), a.engine.Revision()); err != nil {
		t.Errorf("compaction: %v", err)
	}
	for _, stale := range []bool{false, true} {
		if err := a.tryRead(t.Context(), stale); err != nil {
			t.Errorf("health read: %v", err)
		}
	}
}

// TestMethodRights is what the rows of the method table say.
func TestMethodRights(t *testing.T) {
	s := newTestServer(t, newFake())
	want := map[AuthNeed]string{
		AuthAnybody: "Auth/AuthStatus Auth/Authenticate",
		AuthUser:    "Maintenance/Status",
		AuthRoot: "KV/Compact Cluster/MemberRemove Cluster/MemberUpdate Cluster/MemberPromote Maintenance/Defragment Maintenance/Hash " +
			"Maintenance/HashKV Maintenance/Snapshot Maintenance/MoveLeader Maintenance/Downgrade",
	}
	for _, m := range s.methods {
		name := strings.TrimPrefix(m.FullName(), "/etcdserverpb.")
		need := AuthHandler
		for n, names := range want {
			if slices.Contains(strings.Fields(names), name) {
				need = n
			}
		}
		if m.Auth != need {
			t.Errorf("%s needs %d, want %d", name, m.Auth, need)
		}
	}
}

// A method that does not say what it needs is refused: it would be open.
func TestMethodWithoutRightsIsRefused(t *testing.T) {
	s := newTestServer(t, newFake())
	s.methods[3].Auth = authUnset
	if err := s.checkMethods(); err == nil || !strings.Contains(err.Error(), s.methods[3].FullName()) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkAuth is a put and a read with and without authentication.
func BenchmarkAuth(b *testing.B) {
	for _, on := range []bool{false, true} {
		f := newFake()
		store := auth.NewStore(nil)
		s := newTestServer(b, f, func(c *Config) {
			c.Raft, c.Auth, c.Tokens = &instantRaft{engine.Reply{Revision: 5}}, store, fixedToken{}
		})
		ctx := withToken(b.Context(), "abcdefghijklmnop.7")
		if on {
			for _, err := range []error{
				store.AddUser(&pb.AuthUserAddRequest{Name: "root"}), store.GrantRole("root", "root"),
				store.AddUser(&pb.AuthUserAddRequest{Name: "ann"}), store.AddRole("r"), store.GrantRole("ann", "r"),
				store.GrantPermission("r", &authpb.Permission{PermType: authpb.Permission_READWRITE, Key: []byte("a"), RangeEnd: []byte("z")}),
				store.Enable(),
			} {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		rangeBytes, err := (&pb.RangeRequest{Key: []byte("key")}).MarshalVT()
		if err != nil {
			b.Fatal(err)
		}
		for name, req := range map[string][]byte{putMethod: putBytes(b, "key", string(make([]byte, 256))), rangeMethod: rangeBytes} {
			b.Run(fmt.Sprintf("%s/auth=%v", name[strings.LastIndex(name, "/")+1:], on), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Invoke(ctx, name, req); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// fixedToken believes everything.
type fixedToken struct{}

func (fixedToken) Identify(_ context.Context, _ string, revision uint64) (auth.Identity, bool) {
	return auth.Identity{User: "ann", Revision: revision, Known: true}, true
}
func (fixedToken) Logged() bool                        { return true }
func (fixedToken) Sign(string, uint64) (string, error) { return "", nil }
func (fixedToken) Issued(uint64, string, string)       {}
func (fixedToken) Revoked(string)                      {}

// FuzzAuthRequests gives bytes of all kinds to the methods of the Auth service:
// what the protobuf library does not understand is refused as such, and nothing else.
func FuzzAuthRequests(f *testing.F) {
	s := newTestServer(f, newFake(), func(c *Config) {
		c.Raft, c.BcryptCost = &instantRaft{engine.Reply{Revision: 5}}, 4
	})
	requests := map[string]func() proto.Message{
		"AuthEnable":           func() proto.Message { return &pb.AuthEnableRequest{} },
		"AuthStatus":           func() proto.Message { return &pb.AuthStatusRequest{} },
		"Authenticate":         func() proto.Message { return &pb.AuthenticateRequest{} },
		"UserAdd":              func() proto.Message { return &pb.AuthUserAddRequest{} },
		"UserGet":              func() proto.Message { return &pb.AuthUserGetRequest{} },
		"UserDelete":           func() proto.Message { return &pb.AuthUserDeleteRequest{} },
		"UserChangePassword":   func() proto.Message { return &pb.AuthUserChangePasswordRequest{} },
		"UserGrantRole":        func() proto.Message { return &pb.AuthUserGrantRoleRequest{} },
		"RoleGet":              func() proto.Message { return &pb.AuthRoleGetRequest{} },
		"RoleGrantPermission":  func() proto.Message { return &pb.AuthRoleGrantPermissionRequest{} },
		"RoleRevokePermission": func() proto.Message { return &pb.AuthRoleRevokePermissionRequest{} },
	}
	for _, m := range []wireMessage{
		&pb.AuthUserAddRequest{Name: "u", Password: "p", Options: &authpb.UserAddOptions{NoPassword: true}},
		&pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{Key: []byte("k"), RangeEnd: []byte{0}}},
		&pb.AuthenticateRequest{Name: "u", Password: "p"},
	} {
		b, err := m.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, empty := range requests {
			_, err := s.Invoke(t.Context(), authMethod+name, b)
			refused := err != nil && StatusOf(err).Code == codes.Internal
			if want := proto.Unmarshal(b, empty()) != nil; refused != want {
				t.Errorf("%s: %v, malformed %v", name, err, want)
			}
		}
	})
}
