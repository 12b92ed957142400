package rpc

import (
	"context"
	"testing"
	"time"

	"quire/api/authpb"
	pb "quire/api/etcdserverpb"
)

// watcherOf is a Watch stream of a test.
type watcherOf struct {
	t    testing.TB
	got  chan *pb.WatchResponse
	open *localStream
}

func (a *authMember) watch(ctx context.Context) *watcherOf {
	a.Helper()
	ctx, cancel := context.WithCancel(ctx)
	st, err := a.openLocal(ctx, a.byName["/"+watchService+"/Watch"])
	if err != nil {
		a.Fatal(err)
	}
	w := &watcherOf{a, make(chan *pb.WatchResponse, 100), st}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			b, err := st.recv()
			if err != nil {
				return
			}
			resp := new(pb.WatchResponse)
			if err := resp.UnmarshalVT(append([]byte(nil), b...)); err != nil {
				panic(err)
			}
			w.got <- resp
		}
	}()
	a.Cleanup(func() {
		cancel()
		<-done
		st.close()
	})
	return w
}

// create asks for a watcher and returns the answer.
func (w *watcherOf) create(key, end string) *pb.WatchResponse {
	w.t.Helper()
	err := w.open.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}}})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.next()
}

func (w *watcherOf) next() *pb.WatchResponse {
	w.t.Helper()
	select {
	case resp := <-w.got:
		return resp
	case <-time.After(10 * time.Second):
		w.t.Fatal("no response")
		return nil
	}
}

// ends expects that the watcher is canceled with a reason.
func (w *watcherOf) ends(id int64, reason string) {
	w.t.Helper()
	if resp := w.next(); resp.Created || !resp.Canceled || resp.WatchId != id || resp.CancelReason != reason {
		w.t.Fatalf("got %v, want the end of %d: %s", resp, id, reason)
	}
}

const (
	reasonDenied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
	reasonToken  = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
	reasonNobody = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
)

// TestWatchIsPermitted is the check when a watcher is made; GHSA-xg4h is the
// watch from a permitted key on.
func TestWatchIsPermitted(t *testing.T) {
	a := newAuthMember(t)
	for _, c := range []struct {
		who, key, end, reason string
	}{
		{"ann", "a", "", ""}, {"ann", "a1", "a5", ""}, {"ann", "a", "b", ""},
		{"ann", "b", "", reasonDenied},
		{"ann", "a", "b\x00", reasonDenied},
		{"ann", "a", "\x00", reasonDenied},    // from the key on
		{"ann", "\x00", "\x00", reasonDenied}, // everything
		{"ann", "", "", reasonDenied},         // an empty key is the smallest
		{"root", "\x00", "\x00", ""},
		{"nobody", "a", "", reasonNobody},
		{"junk", "a", "", reasonToken},
	} {
		ctx := a.Context()
		switch c.who {
		case "ann", "root":
			ctx = a.login(c.who, c.who+"pw")
		case "junk":
			ctx = withToken(ctx, "junk")
		}
		resp := a.watch(ctx).create(c.key, c.end)
		if !resp.Created || resp.Canceled != (c.reason != "") || resp.CancelReason != c.reason {
			t.Errorf("%s watches [%q, %q): %v", c.who, c.key, c.end, resp)
		}
	}
}

// TestWatchLosesItsRight is every way in which a watcher ends after it was made.
func TestWatchLosesItsRight(t *testing.T) {
	for what, c := range map[string]struct {
		lose   func(*authMember, context.Context)
		reason string // of the watcher on "a"; "" if it stays
	}{
		"permission revoked": {func(a *authMember, root context.Context) {
			a.as(root, authMethod+"RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("a"), RangeEnd: []byte("b")}, &pb.AuthRoleRevokePermissionResponse{})
		}, reasonDenied},
		"role deleted": {func(a *authMember, root context.Context) {
			a.as(root, authMethod+"RoleDelete", &pb.AuthRoleDeleteRequest{Role: "r"}, &pb.AuthRoleDeleteResponse{})
		}, reasonDenied},
		"role revoked": {func(a *authMember, root context.Context) {
			a.as(root, authMethod+"UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "ann", Role: "r"}, &pb.AuthUserRevokeRoleResponse{})
		}, reasonDenied},
		"user deleted": {func(a *authMember, root context.Context) {
			a.as(root, authMethod+"UserDelete", &pb.AuthUserDeleteRequest{Name: "ann"}, &pb.AuthUserDeleteResponse{})
		}, reasonDenied},
		"password changed": {func(a *authMember, root context.Context) {
			a.as(root, authMethod+"UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "x"}, &pb.AuthUserChangePasswordResponse{})
		}, reasonToken},
		"token over": {func(a *authMember, root context.Context) {
			a.tokens.Revoked("ann") // as a deadline that has passed: nothing else knows
			a.as(root, authMethod+"RoleAdd", &pb.AuthRoleAddRequest{Name: "another"}, &pb.AuthRoleAddResponse{})
		}, ""},
		"something else changed": {func(a *authMember, root context.Context) {
			a.as(root, authMethod+"UserAdd", &pb.AuthUserAddRequest{Name: "bob", Password: "x"}, &pb.AuthUserAddResponse{})
		}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			a := newAuthMember(t)
			root := a.login("root", "rootpw")
			// A second permission, so that one watcher of the stream may stay.
			a.as(root, authMethod+"RoleAdd", &pb.AuthRoleAddRequest{Name: "r2"}, &pb.AuthRoleAddResponse{})
			a.as(root, authMethod+"RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r2", Perm: &authpb.Permission{Key: []byte("z")}}, &pb.AuthRoleGrantPermissionResponse{})
			a.as(root, authMethod+"UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "ann", Role: "r2"}, &pb.AuthUserGrantRoleResponse{})
			w, all := a.watch(a.login("ann", "annpw")), a.watch(root)
			for _, resp := range []*pb.WatchResponse{w.create("a", ""), w.create("z", ""), all.create("\x00", "\x00")} {
				if resp.Canceled {
					t.Fatal(resp)
				}
			}
			c.lose(a, root)
			switch c.reason {
			case "":
			case reasonDenied:
				w.ends(0, c.reason)
				if what == "user deleted" {
					w.ends(1, c.reason)
				}
			default:
				w.ends(0, c.reason)
				w.ends(1, c.reason)
			}
			for _, key := range []string{"a", "z"} {
				if err := a.put(root, key); err != nil {
					t.Fatal(err)
				}
			}
			for _, key := range []string{"a", "z"} {
				gone := what == "user deleted" || c.reason == reasonToken || c.reason == reasonDenied && key == "a"
				if !gone {
					if resp := w.next(); len(resp.Events) != 1 || string(resp.Events[0].Kv.Key) != key {
						t.Errorf("want %s, got %v", key, resp)
					}
				}
			}
			for n := 0; n < 2; {
				n += len(all.next().Events)
			}
			select {
			case resp := <-w.got:
				t.Errorf("more: %v", resp)
			default:
			}
		})
	}
}

// Switching authentication on ends the watchers of those who never said who they
// are, but not of those whose certificate does.
func TestWatchFromBeforeAuth(t *testing.T) {
	a := newAuthMember(t)
	root := a.login("root", "rootpw")
	a.as(root, authMethod+"AuthDisable", &pb.AuthDisableRequest{}, &pb.AuthDisableResponse{})
	a.cfg.ClientCertAuth = true
	nobody, ann, bad := a.watch(a.Context()), a.watch(certified(a.Context(), "ann", true)), a.watch(withToken(a.Context(), "junk"))
	for _, w := range []*watcherOf{nobody, ann, bad} {
		for _, key := range []string{"a", "z"} {
			if resp := w.create(key, ""); resp.Canceled {
				t.Fatal(resp)
			}
		}
	}
	a.must(authMethod+"AuthEnable", &pb.AuthEnableRequest{}, &pb.AuthEnableResponse{})
	nobody.ends(0, reasonNobody)
	nobody.ends(1, reasonNobody)
	bad.ends(0, reasonToken)
	bad.ends(1, reasonToken)
	ann.ends(1, reasonDenied)
	if err := a.put(a.login("root", "rootpw"), "a"); err != nil {
		t.Fatal(err)
	}
	if resp := ann.next(); resp.WatchId != 0 || len(resp.Events) != 1 {
		t.Errorf("got %v", resp)
	}
	// A certificate has no password that could change.
	a.as(a.login("root", "rootpw"), authMethod+"UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "x"}, &pb.AuthUserChangePasswordResponse{})
	if err := a.put(a.login("root", "rootpw"), "a"); err != nil {
		t.Fatal(err)
	}
	if resp := ann.next(); resp.WatchId != 0 || len(resp.Events) != 1 {
		t.Errorf("got %v", resp)
	}
}
