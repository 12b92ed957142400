package rpc

import (
	"errors"

	pb "quire/api/etcdserverpb"
	"quire/engine"
	"quire/engine/auth"

	"google.golang.org/protobuf/encoding/protowire"
)

const leaseService = "etcdserverpb.Lease"

func (s *Server) leaseMethods() []*Method {
	return []*Method{
		{Service: leaseService, Name: "LeaseGrant", Auth: AuthHandler, Unary: s.serveLeaseGrant},
		{Service: leaseService, Name: "LeaseRevoke", Auth: AuthHandler, Unary: s.serveLeaseRevoke},
		{Service: leaseService, Name: "LeaseKeepAlive", Auth: AuthHandler, Open: s.openKeepAlive, ClientStreams: true},
		{Service: leaseService, Name: "LeaseTimeToLive", Auth: AuthHandler, Unary: s.serveTimeToLive},
		{Service: leaseService, Name: "LeaseLeases", Auth: AuthHandler, Unary: s.serveLeases},
	}
}

func (s *Server) serveLeaseGrant(c *Call) {
	if !s.admit(c, leaseCost) {
		return
	}
	var r pb.LeaseGrantRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	if !c.require(AuthUser) {
		return
	}
	body := c.Req
	if r.ID == 0 {
		r.ID = s.cfg.Leases.NewLeaseID()
		b, err := r.MarshalVT()
		if err != nil {
			c.Fail(err)
			return
		}
		body = b
	}
	c.propose(engine.OpLeaseGrant, body)
}

func (s *Server) serveLeaseRevoke(c *Call) {
	var r pb.LeaseRevokeRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	if c.require(AuthUser) {
		c.proposeAs(engine.OpLeaseRevoke, c.Req)
	}
}

func (s *Server) serveTimeToLive(c *Call) {
	var r pb.LeaseTimeToLiveRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	c.linearize(func(c *Call) {
		if !c.require(AuthUser) {
			return
		}
		before := s.cfg.Auth.Revision()
		if err := s.mayKnowKeys(c, &r); err != nil {
			c.Fail(err)
			return
		}
		info, err := s.cfg.Leases.LeaseTimeToLive(c.Ctx, r.ID, r.Keys)
		if r.Keys && s.cfg.Auth.Enabled() && s.cfg.Auth.Revision() != before {
			err = auth.ErrOldRevision
		}
		resp := pb.LeaseTimeToLiveResponse{ID: r.ID, TTL: -1}
		switch {
		case err == nil:
			resp.TTL, resp.GrantedTTL, resp.Keys = info.TTL, info.GrantedTTL, info.Keys
		case !errors.Is(err, engine.ErrLeaseNotFound):
			c.Fail(err)
			return
		}
		c.finishMessage(&resp, s.cfg.KV.Revision())
	})
}

// mayKnowKeys checks the right to read the keys of a lease, if they are asked
// for (CVE-2023-32082).
func (s *Server) mayKnowKeys(c *Call, r *pb.LeaseTimeToLiveRequest) error {
	if !r.Keys || !s.cfg.Auth.Enabled() {
		return nil
	}
	_, acc, err := c.access()
	if err != nil {
		return err
	}
	return s.cfg.Rights.MayReadLease(&acc, r.ID)
}

func (s *Server) serveLeases(c *Call) {
	ids := s.cfg.Leases.Leases()
	if !c.require(AuthUser) {
		return
	}
	if s.cfg.Auth.Enabled() {
		before := s.cfg.Auth.Revision()
		_, acc, err := c.access()
		if err == nil {
			err = s.cfg.Rights.MayReadLeases(&acc)
		}
		if err == nil && !acc.AllLeases() && s.cfg.Auth.Revision() != before {
			err = auth.ErrOldRevision
		}
		if err != nil {
			c.Fail(err)
			return
		}
	}
	b := c.body()
	for _, id := range ids {
		var buf [16]byte
		status := appendUint(buf[:0], 1, uint64(id))
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendBytes(b, status)
	}
	c.Finish(b, s.cfg.KV.Revision())
}

// keepAliveSession answers each request of a keep-alive stream in order. It
// holds at most one answer: the transport pulls after every Recv.
type keepAliveSession struct {
	stream  *Stream
	pending bool
	id, ttl int64
	rev     int64
}

func (s *Server) openKeepAlive(st *Stream) Session { return &keepAliveSession{stream: st} }

func (k *keepAliveSession) Recv(msg []byte) error {
	var r pb.LeaseKeepAliveRequest
	if err := decode(&msg, &r); err != nil {
		return err
	}
	cfg := &k.stream.srv.cfg
	// The revision is read first, so that no answer claims a revision at
	// which the lease was gone already.
	k.rev = cfg.KV.Revision()
	if err := k.mayRenew(r.ID); err != nil {
		return err
	}
	ttl, err := cfg.Leases.LeaseRenew(k.stream.Ctx, r.ID)
	if errors.Is(err, engine.ErrLeaseNotFound) {
		ttl, err = 0, nil
	}
	if err != nil {
		return err
	}
	k.pending, k.id, k.ttl = true, r.ID, ttl
	return nil
}

// mayRenew checks the right to write the keys of the lease; who has no right to
// any of them keeps nothing alive.
func (k *keepAliveSession) mayRenew(id int64) error {
	s := k.stream.srv
	before := s.cfg.Auth.Revision()
	if !s.cfg.Auth.Enabled() {
		return nil
	}
	who, err := s.identify(k.stream.Ctx)
	if err != nil {
		return err
	}
	acc := s.cfg.Auth.Access(who)
	switch {
	case acc.AllLeases():
		return nil
	case !who.Known:
		return auth.ErrUserEmpty
	}
	if err := s.cfg.Rights.MayWriteLease(&acc, id); err != nil {
		return err
	}
	if s.cfg.Auth.Revision() != before {
		return auth.ErrOldRevision
	}
	return nil
}

func (k *keepAliveSession) RecvEnd() bool { return true }

func (k *keepAliveSession) Next(out *Out) (Next, error) {
	if !k.pending {
		return NextIdle, nil
	}
	k.pending = false
	b := appendUint(out.begin(), 2, uint64(k.id))
	b = appendUint(b, 3, uint64(k.ttl))
	out.end(b, k.stream.srv.header.putBefore(b, headerRoom, k.rev))
	return NextMore, nil
}

func (k *keepAliveSession) Close() {}
