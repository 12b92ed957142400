package rpc

import (
	"context"
	"net"
	"net/url"
	"strings"

	pb "quire/api/etcdserverpb"
)

const (
	clusterService  = "etcdserverpb.Cluster"
	promoteFullName = "/" + clusterService + "/MemberPromote"
)

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

// Membership changes the membership and the cluster's version (package
// membership). The lists are the applied members by ID.
type Membership interface {
	Add(ctx context.Context, peerURLs []string, learner bool) (added *pb.Member, all []*pb.Member, err error)
	Remove(ctx context.Context, id uint64) ([]*pb.Member, error)
	// Update takes the URLs as they came; sound says that they are URLs of peers.
	Update(ctx context.Context, id uint64, peerURLs []string, sound bool) ([]*pb.Member, error)
	Promote(ctx context.Context, id uint64) ([]*pb.Member, error)
	Downgrade(ctx context.Context, r *pb.DowngradeRequest) (clusterVersion string, err error)
}

func (s *Server) serveMemberAdd(c *Call) {
	var r pb.MemberAddRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	urls, ok := peerURLs(r.PeerURLs)
	if !ok {
		c.Fail(errMemberBadURLs) // etcd looks at them before it asks who the client is
		return
	}
	if !c.require(AuthRoot) {
		return
	}
	added, all, err := s.cfg.Membership.Add(c.Ctx, urls, r.IsLearner)
	if err != nil {
		c.Fail(err)
		return
	}
	c.finishMessage(&pb.MemberAddResponse{Member: added, Members: all}, 0)
}

func (s *Server) serveMemberRemove(c *Call) {
	var r pb.MemberRemoveRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	all, err := s.cfg.Membership.Remove(c.Ctx, r.ID)
	if err != nil {
		c.Fail(err)
		return
	}
	c.finishMessage(&pb.MemberRemoveResponse{Members: all}, 0)
}

func (s *Server) serveMemberUpdate(c *Call) {
	var r pb.MemberUpdateRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	_, sound := peerURLs(r.PeerURLs)
	all, err := s.cfg.Membership.Update(c.Ctx, r.ID, r.PeerURLs, sound)
	if err != nil {
		c.Fail(err)
		return
	}
	c.finishMessage(&pb.MemberUpdateResponse{Members: all}, 0)
}

func (s *Server) serveMemberPromote(c *Call) {
	var r pb.MemberPromoteRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	all, err := s.cfg.Membership.Promote(c.Ctx, r.ID)
	if err != nil {
		s.promoteFails.add(StatusOf(err).Text, 1)
		c.Fail(err)
		return
	}
	c.finishMessage(&pb.MemberPromoteResponse{Members: all}, 0)
}

// peerURLs follows etcd: at least one, all of a scheme that peers can dial, each
// host:port and nothing behind it. It returns them in their normal form.
func peerURLs(raw []string) (urls []string, ok bool) {
	for _, in := range raw {
		u, err := url.Parse(strings.TrimSpace(in))
		if err != nil {
			return nil, false
		}
		switch u.Scheme {
		case "http", "https":
			if _, _, err := net.SplitHostPort(u.Host); err != nil || u.Path != "" {
				return nil, false
			}
		case "unix", "unixs":
		default:
			return nil, false
		}
		urls = append(urls, u.String())
	}
	return urls, len(urls) > 0
}
