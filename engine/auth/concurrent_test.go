package auth

import (
	"fmt"
	"sync"
	"testing"

	"quire/api/authpb"
	pb "quire/api/etcdserverpb"
)

// withUser is an enabled store with root and a user u, who may read and write n
// ranges.
func withUser(t testing.TB, n int) *Store {
	t.Helper()
	s := NewStore(nil)
	errs := []error{s.AddUser(&pb.AuthUserAddRequest{Name: root}), s.GrantRole(root, root), s.AddUser(&pb.AuthUserAddRequest{Name: "u"}),
		s.AddRole("r"), s.GrantRole("u", "r"), s.Enable()}
	for i := range n {
		errs = append(errs, s.GrantPermission("r", permission(i)))
	}
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// permission i is for the keys that begin with "key000i/".
func permission(i int) *authpb.Permission {
	return &authpb.Permission{PermType: authpb.Permission_READWRITE, Key: fmt.Appendf(nil, "key%04d/", i), RangeEnd: fmt.Appendf(nil, "key%04d0", i)}
}

// TestConcurrent checks rights while they change: what was granted for good is
// always there, and a change is seen as a whole.
func TestConcurrent(t *testing.T) {
	s := withUser(t, 10)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a := s.Access(Identity{User: "u", Revision: s.Revision() + 1_000_000, Known: true})
				if err := a.Read([]byte("key0003/x"), nil); err != nil {
					t.Errorf("what is granted: %v", err)
					return
				}
				both := [2]bool{a.Read([]byte("key0020/x"), nil) == nil, a.Write([]byte("key0020/x"), nil) == nil}
				if both[0] != both[1] {
					t.Error("half a change")
					return
				}
				if err := s.Admin(Identity{User: "u"}); err != ErrPermissionDenied {
					t.Errorf("administrator: %v", err)
					return
				}
				s.State()
			}
		})
	}
	p := permission(20)
	for range 2000 {
		for _, err := range []error{s.GrantPermission("r", p), s.RevokePermission("r", p.Key, p.RangeEnd), s.AddRole("x"), s.GrantRole("u", "x"), s.DeleteRole("x")} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	wg.Wait()
}

// BenchmarkCheck is one check of one key.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("permissions=%d", n), func(b *testing.B) {
			s := withUser(b, n)
			id, key := Identity{User: "u", Revision: s.Revision(), Known: true}, []byte("key0000/x")
			b.ReportAllocs()
			for b.Loop() {
				a := s.Access(id)
				if err := a.Write(key, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
