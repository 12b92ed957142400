package auth

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"quire/api/authpb"
	pb "quire/api/etcdserverpb"
)

var (
	seedFlag  = flag.Uint64("auth.seed", 0, "run only this seed")
	seedsFlag = flag.Int("auth.seeds", 300, "how many seeds the random test runs")
)

// model is the deliberately simple store: no caches, no merged ranges.
type model struct {
	enabled  bool
	revision uint64
	users    map[string]*modelUser
	roles    map[string][]modelPerm
}

type modelUser struct {
	roles      map[string]bool
	hash       string
	noPassword bool
}

type modelPerm struct {
	key, end string
	kind     authpb.Permission_Type
}

func (p modelPerm) holds(key string) bool {
	switch p.end {
	case "":
		return key == p.key
	case "\x00":
		return key >= p.key
	}
	return key >= p.key && key < p.end
}

// allowed asks for every key at which the answer could change.
func (m *model) allowed(user string, revision uint64, key, end string, write bool) error {
	if !m.enabled {
		return nil
	}
	if revision == 0 {
		return ErrUserEmpty
	}
	if revision < m.revision {
		return ErrOldRevision
	}
	u := m.users[user]
	if u == nil {
		return ErrPermissionDenied
	}
	if u.roles[root] {
		return nil
	}
	var perms []modelPerm
	points := []string{key}
	for role := range u.roles {
		for _, p := range m.roles[role] {
			if write && p.kind == authpb.Permission_READ || !write && p.kind == authpb.Permission_WRITE {
				continue
			}
			perms = append(perms, p)
			points = append(points, p.key, p.key+"\x00", p.end)
		}
	}
	asked := modelPerm{key: key, end: end}
	for _, at := range points {
		if at != key && !asked.holds(at) {
			continue
		}
		if !slices.ContainsFunc(perms, func(p modelPerm) bool { return p.holds(at) }) {
			return ErrPermissionDenied
		}
	}
	return nil
}

func (m *model) admin(user string) error {
	switch {
	case !m.enabled:
		return nil
	case user == "":
		return ErrUserEmpty
	case m.users[user] == nil:
		return ErrUserNotFound
	case !m.users[user].roles[root]:
		return ErrPermissionDenied
	}
	return nil
}

// TestModel runs random changes against the model and compares every answer,
// with the state saved and restored in between.
func TestModel(t *testing.T) {
	first, last := uint64(1), uint64(*seedsFlag)
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	for seed := first; seed <= last; seed++ {
		rnd := rand.New(rand.NewPCG(seed, 1))
		s, m := NewStore(nil), &model{revision: 1, users: map[string]*modelUser{}, roles: map[string][]modelPerm{}}
		for range 200 {
			change(t, rnd, s, m)
			compare(t, rnd, s, m)
			if rnd.IntN(40) == 0 {
				st := s.State()
				s = NewStore(&st)
			}
		}
		if t.Failed() {
			t.Fatalf("replay: go test ./engine/auth -run TestModel -auth.seed=%d", seed)
		}
	}
}

func pick(rnd *rand.Rand, of ...string) string { return of[rnd.IntN(len(of))] }

func name(rnd *rand.Rand) string { return pick(rnd, root, "u", "v", "w", "", "nobody") }
func role(rnd *rand.Rand) string { return pick(rnd, root, "r", "s", "t", "", "none") }
func keyOf(rnd *rand.Rand) string {
	return pick(rnd, "a", "a\x00", "aa", "ab", "b", "ba", "c", "\xff", "\x00", "d")
}

// rangeOf is a key and a range_end, in order or not.
func rangeOf(rnd *rand.Rand) (key, end string) {
	switch key = keyOf(rnd); rnd.IntN(4) {
	case 0:
		return key, ""
	case 1:
		return key, "\x00"
	}
	return key, keyOf(rnd)
}

// change makes one change on both sides and compares the errors.
func change(t *testing.T, rnd *rand.Rand, s *Store, m *model) {
	t.Helper()
	var got, want error
	var what string
	u, r := name(rnd), role(rnd)
	switch rnd.IntN(12) {
	case 0:
		what, got, want = "enable", s.Enable(), m.enable()
	case 1:
		if rnd.IntN(4) == 0 {
			what = "disable"
			s.Disable()
			m.disable()
		}
	case 2, 3:
		noPassword, hash := rnd.IntN(3) == 0, pick(rnd, "aGFzaA==", "b3RoZXI=", "not base64", "")
		what = "add user"
		req := &pb.AuthUserAddRequest{Name: u, HashedPassword: hash, Options: &authpb.UserAddOptions{NoPassword: noPassword}}
		if !noPassword && rnd.IntN(2) == 0 {
			req.Options = nil
		}
		got, want = s.AddUser(req), m.addUser(u, hash, noPassword)
	case 4:
		if rnd.IntN(3) == 0 {
			what, got, want = "delete user", s.DeleteUser(u), m.deleteUser(u)
		}
	case 5:
		hash := pick(rnd, "bmV3", "not base64")
		what, want = "change password", m.changePassword(u, hash)
		got = s.ChangePassword(&pb.AuthUserChangePasswordRequest{Name: u, HashedPassword: hash})
	case 6, 7:
		what, got, want = "grant role", s.GrantRole(u, r), m.grantRole(u, r)
	case 8:
		what, got, want = "revoke role", s.RevokeRole(u, r), m.revokeRole(u, r)
	case 9:
		if rnd.IntN(5) > 0 {
			what, got, want = "add role", s.AddRole(r), m.addRole(r)
		} else {
			what, got, want = "delete role", s.DeleteRole(r), m.deleteRole(r)
		}
	case 10:
		key, end := rangeOf(rnd)
		if rnd.IntN(20) == 0 {
			key = ""
		}
		p := modelPerm{key, end, authpb.Permission_Type(rnd.IntN(3))}
		what, want = "grant permission", m.grantPermission(r, p)
		got = s.GrantPermission(r, &authpb.Permission{PermType: p.kind, Key: []byte(key), RangeEnd: []byte(end)})
	case 11:
		key, end := rangeOf(rnd)
		what, got, want = "revoke permission", s.RevokePermission(r, []byte(key), []byte(end)), m.revokePermission(r, key, end)
	}
	if got != want {
		t.Errorf("%s (user %q, role %q): got %v, want %v", what, u, r, got, want)
	}
}

// compare checks everything that the store tells.
func compare(t *testing.T, rnd *rand.Rand, s *Store, m *model) {
	t.Helper()
	if on, rev := s.Status(); on != m.enabled || rev != m.revision || s.Enabled() != on || s.Revision() != rev {
		t.Errorf("enabled %v revision %d, want %v %d", on, rev, m.enabled, m.revision)
	}
	for range 5 {
		u := name(rnd)
		id := Identity{User: u, Known: true, Revision: m.revision + uint64(rnd.IntN(3)) - 1}
		if rnd.IntN(10) == 0 {
			id = Identity{}
		}
		key, end := rangeOf(rnd)
		a := s.Access(id)
		for _, write := range []bool{false, true} {
			check := a.Read
			if write {
				check = a.Write
			}
			if got, want := check([]byte(key), []byte(end)), m.allowed(id.User, id.Revision, key, end, write); got != want {
				t.Errorf("%+v on [%q, %q) write %v: got %v, want %v\nperms %v", id, key, end, write, got, want, m.roles)
			}
		}
		if got, want := s.Admin(id), m.admin(id.User); got != want {
			t.Errorf("admin %+v: got %v, want %v", id, got, want)
		}
	}
	for u, mu := range m.users {
		got, err := s.UserRoles(u)
		want := sortedKeys(mu.roles)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("roles of %q: %v %v, want %v", u, got, err, want)
		}
		hash, rev, err := s.Password(u)
		switch {
		case !m.enabled && err == ErrNotEnabled, mu.noPassword && err == ErrNoPasswordUser:
		case err != nil || string(hash) != mu.hash || rev != m.revision:
			t.Errorf("password of %q: %q at %d, %v; want %q at %d", u, hash, rev, err, mu.hash, m.revision)
		}
	}
	if got, want := s.UserNames(), sortedKeys(m.users); !slices.Equal(got, want) {
		t.Errorf("users %v, want %v", got, want)
	}
	if got, want := s.RoleNames(), sortedKeys(m.roles); !slices.Equal(got, want) {
		t.Errorf("roles %v, want %v", got, want)
	}
	for r, want := range m.roles {
		got, err := s.RolePermissions(r)
		if r == root {
			want = []modelPerm{{"", "\x00", authpb.Permission_READWRITE}}
		}
		if err != nil || len(got) != len(want) {
			t.Errorf("permissions of %q: %v %v, want %v", r, got, err, want)
			continue
		}
		for i, p := range got {
			if string(p.Key) != want[i].key || string(p.RangeEnd) != want[i].end || p.PermType != want[i].kind {
				t.Errorf("permissions of %q: %v, want %v", r, got, want)
				break
			}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (m *model) enable() error {
	switch {
	case m.enabled:
		return nil
	case m.users[root] == nil:
		return ErrRootUserNotExist
	case !m.users[root].roles[root]:
		return ErrRootRoleNotExist
	}
	m.enabled = true
	return nil
}

func (m *model) disable() {
	if m.enabled {
		m.enabled = false
		m.revision++
	}
}

func (m *model) hash(text string) (string, error) {
	plain, ok := map[string]string{"aGFzaA==": "hash", "b3RoZXI=": "other", "bmV3": "new", "": ""}[text]
	if !ok {
		return "", ErrNoPasswordUser
	}
	return plain, nil
}

func (m *model) addUser(name, hash string, noPassword bool) (err error) {
	u := &modelUser{roles: map[string]bool{}, noPassword: noPassword}
	switch {
	case name == "":
		return ErrUserEmpty
	case m.users[name] != nil:
		return ErrUserAlreadyExist
	case !noPassword:
		if u.hash, err = m.hash(hash); err != nil {
			return err
		}
	}
	m.users[name] = u
	m.revision++
	return nil
}

func (m *model) deleteUser(name string) error {
	switch {
	case m.enabled && name == root:
		return ErrInvalidManagement
	case m.users[name] == nil:
		return ErrUserNotFound
	}
	delete(m.users, name)
	m.revision++
	return nil
}

func (m *model) changePassword(name, hash string) error {
	u := m.users[name]
	if u == nil {
		return ErrUserNotFound
	}
	if !u.noPassword {
		plain, err := m.hash(hash)
		if err != nil {
			return err
		}
		u.hash = plain
	}
	m.revision++
	return nil
}

func (m *model) grantRole(name, role string) error {
	switch {
	case m.users[name] == nil:
		return ErrUserNotFound
	case role != root && !m.hasRole(role):
		return ErrRoleNotFound
	case m.users[name].roles[role]:
		return nil
	}
	m.users[name].roles[role] = true
	m.revision++
	return nil
}

func (m *model) revokeRole(name, role string) error {
	switch {
	case m.enabled && name == root && role == root:
		return ErrInvalidManagement
	case m.users[name] == nil:
		return ErrUserNotFound
	case !m.users[name].roles[role]:
		return ErrRoleNotGranted
	}
	delete(m.users[name].roles, role)
	m.revision++
	return nil
}

func (m *model) hasRole(role string) bool {
	_, ok := m.roles[role]
	return ok
}

func (m *model) addRole(role string) error {
	switch {
	case role == "":
		return ErrRoleEmpty
	case m.hasRole(role):
		return ErrRoleAlreadyExist
	}
	m.roles[role] = nil
	m.revision++
	return nil
}

func (m *model) deleteRole(role string) error {
	switch {
	case m.enabled && role == root:
		return ErrInvalidManagement
	case !m.hasRole(role):
		return ErrRoleNotFound
	}
	delete(m.roles, role)
	for _, u := range m.users {
		delete(u.roles, role)
	}
	m.revision++
	return nil
}

func (m *model) grantPermission(role string, p modelPerm) error {
	switch {
	case p.key == "" || p.end != "" && p.end != "\x00" && p.key >= p.end:
		return ErrInvalidManagement
	case !m.hasRole(role):
		return ErrRoleNotFound
	}
	perms := m.roles[role]
	for i := range perms {
		if perms[i].key == p.key {
			if perms[i].end == p.end {
				perms[i].kind = p.kind
				m.revision++
				return nil
			}
			break // only the first with this key is looked at
		}
	}
	perms = append(slices.Clone(perms), p)
	sort.Sort(modelByKey(perms))
	m.roles[role] = perms
	m.revision++
	return nil
}

type modelByKey []modelPerm

func (p modelByKey) Len() int           { return len(p) }
func (p modelByKey) Less(i, j int) bool { return p[i].key < p[j].key }
func (p modelByKey) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }

func (m *model) revokePermission(role, key, end string) error {
	if !m.hasRole(role) {
		return ErrRoleNotFound
	}
	kept := slices.DeleteFunc(slices.Clone(m.roles[role]), func(p modelPerm) bool { return p.key == key && p.end == end })
	if len(kept) == len(m.roles[role]) {
		return ErrPermissionNotGranted
	}
	m.roles[role] = kept
	m.revision++
	return nil
}

// TestUnite checks the merged ranges' invariant: sorted, apart, not empty.
func TestUnite(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 1))
	for range 2000 {
		var r ranges
		for range rnd.IntN(8) {
			if key, end := rangeOf(rnd); validRange([]byte(key), []byte(end)) {
				r = append(r, spanOf([]byte(key), []byte(end)))
			}
		}
		in := fmt.Sprintf("%q", r)
		r = r.unite()
		for i := range r {
			if r[i].hi != nil && bytes.Compare(r[i].lo, r[i].hi) >= 0 {
				t.Fatalf("%s: %q is empty", in, r[i])
			}
			if i > 0 && (r[i-1].hi == nil || bytes.Compare(r[i-1].hi, r[i].lo) >= 0) {
				t.Fatalf("%s: %q and %q are not apart", in, r[i-1], r[i])
			}
		}
	}
}
