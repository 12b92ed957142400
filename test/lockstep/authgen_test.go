package lockstep

import (
	"math/rand/v2"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// authGenerator makes steps about users and roles, and requests of all kinds in the name of users who may or may not do
// what they ask for. It learns from the reference's answers who there is and which tokens are good.
type authGenerator struct {
	*generator
	enabled   bool
	signed    bool              // tokens are signed, and old with every change
	passwords map[string]string // of users
	tokens    []heldToken
	granted   []*pb.AuthRoleGrantPermissionRequest // to roles, some taken back since
	given     []*pb.AuthUserGrantRoleRequest       // to users, likewise
}

type heldToken struct {
	user string
	good bool
}

func newAuthGenerator(seed uint64, signed bool) *authGenerator {
	g := &authGenerator{generator: newGenerator(seed), signed: signed, passwords: map[string]string{}}
	g.random = rand.New(rand.NewPCG(seed, 4))
	return g
}

const root = "root"

var (
	userNames = []string{root, "ann", "bob", "cid"}
	roleNames = []string{root, "r1", "r2", "r3"}
	passwords = []string{"one", "two", "drei", strings.Repeat("7", 72), strings.Repeat("8", 73)}
)

func pick[T any](g *authGenerator, of []T) T { return of[g.random.IntN(len(of))] }

func (g *authGenerator) oneIn(n int) bool { return g.random.IntN(n) == 0 }

// user is mostly one of a few, rarely none.
func (g *authGenerator) user() string {
	if g.oneIn(25) {
		return pick(g, []string{"", "nobody", "é"})
	}
	return pick(g, userNames)
}

func (g *authGenerator) role() string {
	if g.oneIn(25) {
		return pick(g, []string{"", "none"})
	}
	return pick(g, roleNames)
}

func (g *authGenerator) next() step {
	if len(g.queue) == 0 {
		g.queue = g.group()
	}
	s := g.queue[0]
	g.queue = g.queue[1:]
	return s
}

// group is one step with a token, or several that switch authentication on again.
func (g *authGenerator) group() []step {
	if !g.enabled && g.oneIn(8) {
		return []step{
			{method: "UserAdd", msg: &pb.AuthUserAddRequest{Name: root, Password: "one"}},
			{method: "UserAdd", msg: &pb.AuthUserAddRequest{Name: "ann", Password: "two"}},
			{method: "RoleAdd", msg: &pb.AuthRoleAddRequest{Name: "r1"}},
			{method: "UserGrantRole", msg: &pb.AuthUserGrantRoleRequest{User: "ann", Role: "r1"}},
			{method: "UserGrantRole", msg: &pb.AuthUserGrantRoleRequest{User: root, Role: root}},
			{method: "AuthEnable", msg: &pb.AuthEnableRequest{}},
		}
	}
	if g.enabled && g.oneIn(8) || g.enabled && !g.holds(root) && g.oneIn(3) {
		return []step{g.logIn()}
	}
	method, msg := g.request()
	order(msg.ProtoReflect())
	return []step{{method: method, msg: msg, as: g.as()}}
}

// holds tells whether there is a good token of a user.
func (g *authGenerator) holds(user string) bool {
	for _, t := range g.tokens {
		if t.good && t.user == user {
			return true
		}
	}
	return false
}

// as is a token: root's or another good one, any that was handed out, none, or one that never was.
func (g *authGenerator) as() string {
	n := g.random.IntN(100)
	var good []int
	for i, t := range g.tokens {
		if t.good && (n >= 40 || t.user == root) {
			good = append(good, i)
		}
	}
	switch {
	case n < 85 && len(good) > 0:
		return strconv.Itoa(pick(g, good))
	case n < 92 && len(g.tokens) > 0:
		return strconv.Itoa(g.random.IntN(len(g.tokens)))
	case n < 95:
		return pick(g, []string{"junk", "abcdefghijklmnop.1", "a.b.c", "x."})
	}
	return ""
}

func (g *authGenerator) logIn() step {
	r := &pb.AuthenticateRequest{Name: g.user()}
	if !g.holds(root) && g.oneIn(2) {
		r.Name = root
	}
	r.Password = g.passwords[r.Name]
	if g.oneIn(8) {
		r.Password = pick(g, passwords)
	}
	return step{method: "Authenticate", msg: r, as: g.as()}
}

// request is a method and its request.
func (g *authGenerator) request() (string, proto.Message) {
	switch n := g.random.IntN(100); {
	case n < 25:
		return g.changeRequest()
	case n < 33:
		return g.question()
	case n < 50:
		return "Range", g.rangeRequest()
	case n < 52:
		return "RangeStream", g.rangeRequest()
	case n < 66:
		return "Put", g.put()
	case n < 72:
		return "DeleteRange", g.deleteRange()
	case n < 84:
		r := g.txn(0)
		dropIgnores(r)
		return "Txn", r
	case n < 94:
		s := g.leaseStep()[0]
		return s.method, s.msg
	case n < 97:
		return watchMay, &pb.WatchCreateRequest{Key: g.key(), RangeEnd: g.end()}
	}
	return g.upkeep()
}

// order turns the ranges in a request whose end comes before their key into one key: which right one needs for no key at
// all depends, in upstream, on the shape of the tree in which it keeps the rights.
func order(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	if k, e := fields.ByName("key"), fields.ByName("range_end"); k != nil && e != nil && m.Descriptor().Name() != "Permission" {
		if key, end := string(m.Get(k).Bytes()), string(m.Get(e).Bytes()); end != "" && end != "\x00" && end <= key {
			m.Clear(e)
		}
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				order(v.List().Get(i).Message())
			}
		default:
			order(v.Message())
		}
		return true
	})
}

// changeRequest changes users, roles or the switch.
func (g *authGenerator) changeRequest() (string, proto.Message) {
	switch n := g.random.IntN(100); {
	case n < 14:
		r := &pb.AuthUserAddRequest{Name: g.user(), Password: pick(g, passwords)}
		switch g.random.IntN(6) {
		case 0:
			r.Options = &authpb.UserAddOptions{NoPassword: true}
		case 1:
			r.Options = &authpb.UserAddOptions{}
		case 2:
			r.HashedPassword = "not base64"
		}
		return "UserAdd", r
	case n < 20:
		return "UserDelete", &pb.AuthUserDeleteRequest{Name: g.user()}
	case n < 28:
		r := &pb.AuthUserChangePasswordRequest{Name: g.user(), Password: pick(g, passwords)}
		if g.oneIn(8) && r.Name != root { // whose password must stay known
			r.Password, r.HashedPassword = "", pick(g, []string{"", "aGFzaA==", "not base64"})
		}
		return "UserChangePassword", r
	case n < 42:
		return "UserGrantRole", &pb.AuthUserGrantRoleRequest{User: g.user(), Role: g.role()}
	case n < 48:
		r := &pb.AuthUserRevokeRoleRequest{Name: g.user(), Role: g.role()}
		if len(g.given) > 0 && !g.oneIn(4) {
			old := pick(g, g.given)
			r.Name, r.Role = old.User, old.Role
		}
		return "UserRevokeRole", r
	case n < 58:
		return "RoleAdd", &pb.AuthRoleAddRequest{Name: g.role()}
	case n < 62:
		return "RoleDelete", &pb.AuthRoleDeleteRequest{Role: g.role()}
	case n < 85:
		r := &pb.AuthRoleGrantPermissionRequest{Name: g.role(), Perm: &authpb.Permission{PermType: authpb.Permission_Type(g.random.IntN(3)), Key: g.key(), RangeEnd: g.end()}}
		if len(g.granted) > 0 && g.oneIn(3) { // another permission from the same key on, or the same with another kind
			old := pick(g, g.granted)
			r.Name, r.Perm.Key = old.Name, old.Perm.Key
			if g.oneIn(2) {
				r.Perm.RangeEnd = old.Perm.RangeEnd
			}
		}
		if g.oneIn(40) {
			r.Perm = nil
		}
		return "RoleGrantPermission", r
	case n < 95:
		r := &pb.AuthRoleRevokePermissionRequest{Role: g.role(), Key: g.key(), RangeEnd: g.end()}
		if len(g.granted) > 0 && !g.oneIn(5) {
			old := pick(g, g.granted)
			r.Role, r.Key, r.RangeEnd = old.Name, old.Perm.Key, old.Perm.RangeEnd
		}
		return "RoleRevokePermission", r
	case n < 98:
		return "AuthEnable", &pb.AuthEnableRequest{}
	}
	return "AuthDisable", &pb.AuthDisableRequest{}
}

func (g *authGenerator) question() (string, proto.Message) {
	switch g.random.IntN(5) {
	case 0:
		return "AuthStatus", &pb.AuthStatusRequest{}
	case 1:
		return "UserGet", &pb.AuthUserGetRequest{Name: g.user()}
	case 2:
		return "UserList", &pb.AuthUserListRequest{}
	case 3:
		return "RoleGet", &pb.AuthRoleGetRequest{Role: g.role()}
	}
	return "RoleList", &pb.AuthRoleListRequest{}
}

// upkeep is what mostly administrators may do.
func (g *authGenerator) upkeep() (string, proto.Message) {
	switch g.random.IntN(9) {
	case 0:
		return "Compact", &pb.CompactionRequest{Revision: g.compactRevision()}
	case 1:
		return "HashKV", &pb.HashKVRequest{Revision: g.hashRevision()}
	case 2:
		return "Hash", &pb.HashRequest{}
	case 3:
		return "Status", &pb.StatusRequest{}
	case 4:
		return "Alarm", &pb.AlarmRequest{Action: pick(g, []pb.AlarmRequest_AlarmAction{pb.AlarmRequest_GET, pb.AlarmRequest_DEACTIVATE})}
	case 5:
		return "Defragment", &pb.DefragmentRequest{}
	case 6:
		return "MoveLeader", &pb.MoveLeaderRequest{TargetID: 1000}
	case 7:
		return "MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"no url"}}
	}
	return "MemberList", &pb.MemberListRequest{Linearizable: g.oneIn(2)}
}

// learn takes the reference's answer to the last step.
func (g *authGenerator) learn(s step, a answer) {
	g.generator.learn(s, a)
	if a.code != "" {
		return
	}
	switch r := s.msg.(type) {
	case *pb.AuthEnableRequest:
		g.enabled = true
	case *pb.AuthDisableRequest:
		g.enabled = false
		g.forget("")
	case *pb.AuthenticateRequest:
		g.tokens = append(g.tokens, heldToken{r.Name, true})
	case *pb.AuthRoleGrantPermissionRequest:
		g.granted = append(g.granted, r)
	case *pb.AuthUserGrantRoleRequest:
		g.given = append(g.given, r)
	case *pb.AuthUserAddRequest:
		g.passwords[r.Name] = r.Password
	case *pb.AuthUserDeleteRequest:
		delete(g.passwords, r.Name)
		g.forget(r.Name)
	case *pb.AuthUserChangePasswordRequest:
		g.passwords[r.Name] = r.Password
		g.forget(r.Name)
	}
	if s.method == restart || g.signed && changes(s.method) {
		g.forget("")
	}
}

// changes tells whether a method changes users, roles or the switch.
func changes(method string) bool {
	return strings.HasPrefix(method, "User") && method != "UserGet" && method != "UserList" ||
		strings.HasPrefix(method, "Role") && method != "RoleGet" && method != "RoleList"
}

// forget notes that a user's tokens are void; "" means everybody's.
func (g *authGenerator) forget(user string) {
	for i := range g.tokens {
		if user == "" || g.tokens[i].user == user {
			g.tokens[i].good = false
		}
	}
}
