package rpc

import (
	"net"
	"net/url"
	"strings"

	pb "quire/api/etcdserverpb"
)

const clusterService = "etcdserverpb.Cluster"

func (s *Server) clusterMethods() []*Method {
	return []*Method{
		{Service: clusterService, Name: "MemberAdd", Auth: AuthHandler, Unary: s.serveMemberAdd, Blocking: true},
		{Service: clusterService, Name: "MemberRemove", Auth: AuthRoot, Unary: s.serveMemberRemove, Blocking: true},
		{Service: clusterService, Name: "MemberUpdate", Auth: AuthRoot, Unary: s.serveMemberUpdate, Blocking: true},
		{Service: clusterService, Name: "MemberList", Auth: AuthHandler, Unary: s.serveMemberList},
		{Service: clusterService, Name: "MemberPromote", Auth: AuthRoot, Unary: s.serveMemberPromote, Blocking: true},
	}
}

// serveMemberList answers with the applied membership. As in etcd the header
// has no revision.
func (s *Server) serveMemberList(c *Call) {
	var r pb.MemberListRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	list := func(c *Call) {
		if !c.require(AuthUser) {
			return
		}
		c.finishMessage(&pb.MemberListResponse{Members: s.cfg.Members()}, 0)
	}
	if r.Linearizable {
		c.linearize(list)
		return
	}
	list(c)
}

// The membership changes check their request as etcd does and then hand it to
// Config.ChangeMembers; a server that has none refuses them as unimplemented.

func (s *Server) serveMemberAdd(c *Call) {
	var r pb.MemberAddRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	if !validPeerURLs(r.PeerURLs) {
		c.Fail(errMemberBadURLs)
		return
	}
	if c.require(AuthRoot) {
		s.changeMembers(c)
	}
}

func (s *Server) serveMemberRemove(c *Call) { s.changeKnownMember(c, &pb.MemberRemoveRequest{}) }

func (s *Server) serveMemberUpdate(c *Call) { s.changeKnownMember(c, &pb.MemberUpdateRequest{}) }

func (s *Server) serveMemberPromote(c *Call) { s.changeKnownMember(c, &pb.MemberPromoteRequest{}) }

// memberRequest is a request about an existing member.
type memberRequest interface {
	request
	GetID() uint64
}

func (s *Server) changeKnownMember(c *Call, r memberRequest) {
	if err := decode(&c.Req, r); err != nil {
		c.Fail(err)
		return
	}
	for _, m := range s.cfg.Members() {
		if m.ID == r.GetID() {
			s.changeMembers(c)
			return
		}
	}
	c.Fail(tabled("etcdserver: member not found"))
}

func (s *Server) changeMembers(c *Call) {
	if s.cfg.ChangeMembers == nil {
		c.Fail(unimplemented(c.Method.Service, c.Method.Name))
		return
	}
	body, err := s.cfg.ChangeMembers(c.Ctx, c.Method.Name, c.Req)
	if err != nil {
		c.Fail(err)
		return
	}
	c.Finish(append(c.body(), body...), 0)
}

// validPeerURLs follows etcd: at least one, all of one scheme that peers can
// dial, each host:port and nothing behind it.
func validPeerURLs(urls []string) bool {
	if len(urls) == 0 {
		return false
	}
	for _, raw := range urls {
		u, err := url.Parse(strings.TrimSpace(raw))
		if err != nil {
			return false
		}
		switch u.Scheme {
		case "http", "https", "unix", "unixs":
		default:
			return false
		}
		if u.Path != "" {
			return false
		}
		if strings.HasPrefix(u.Scheme, "unix") {
			continue
		}
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return false
		}
	}
	return true
}
