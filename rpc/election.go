package rpc

import (
	"bytes"

	pb "quire/api/etcdserverpb"
	"quire/api/v3electionpb"
)

const electionService = "v3electionpb.Election"

func (s *Server) electionMethods() []*Method {
	return []*Method{
		{Service: electionService, Name: "Campaign", Auth: AuthHandler, Unary: s.serveCampaign, Blocking: true},
		{Service: electionService, Name: "Proclaim", Auth: AuthHandler, Unary: s.serveProclaim, Blocking: true},
		{Service: electionService, Name: "Leader", Auth: AuthHandler, Unary: s.serveLeader, Blocking: true},
		{Service: electionService, Name: "Observe", Auth: AuthHandler, Open: s.openObserve},
		{Service: electionService, Name: "Resign", Auth: AuthHandler, Unary: s.serveResign, Blocking: true},
	}
}

// serveCampaign waits until the client leads. The leader's key holds what it
// proclaims.
func (s *Server) serveCampaign(c *Call) {
	var r v3electionpb.CampaignRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	lease, err := s.session(c.Ctx, r.Lease)
	if err != nil {
		c.Fail(lineStatus(err))
		return
	}
	l := s.newLine(c.Ctx, r.Name)
	leader := &v3electionpb.LeaderKey{Name: r.Name, Key: l.place(lease), Lease: lease}
	rev, err := l.campaign(leader, r.Value)
	if err != nil {
		c.Fail(lineStatus(err))
		return
	}
	c.finishMessage(&v3electionpb.CampaignResponse{Leader: leader}, rev)
}

// campaign joins the line, or finds itself there and proclaims value, fills in
// leader.Rev and waits. It returns the revision at which it joined or was found.
func (l line) campaign(leader *v3electionpb.LeaderKey, value []byte) (rev int64, err error) {
	resp, err := l.ifCreated(l.ctx, leader.Key, 0,
		[]*pb.RequestOp{putOp(leader.Key, value, leader.Lease)},
		[]*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: leader.Key})})
	if err != nil {
		return 0, err
	}
	leader.Rev = resp.Header.Revision
	if kvs := rangeOf(resp, 0); len(kvs) > 0 {
		leader.Rev = kvs[0].CreateRevision
		if !bytes.Equal(kvs[0].Value, value) {
			if _, err := l.proclaim(leader, value); err != nil {
				_, _ = l.resign(leader)
				return 0, err
			}
		}
	}
	if err := l.awaitTurn(leader.Rev); err != nil {
		if l.ctx.Err() != nil {
			gone := l
			gone.ctx = afterwards(l.ctx)
			_, _ = gone.resign(leader)
		}
		return 0, err
	}
	return resp.Header.Revision, nil
}

// proclaim gives the leader's key another value, if it still is the leader's.
func (l line) proclaim(leader *v3electionpb.LeaderKey, value []byte) (rev int64, err error) {
	resp, err := l.ifCreated(l.ctx, leader.Key, leader.Rev, []*pb.RequestOp{putOp(leader.Key, value, leader.Lease)}, nil)
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		return 0, errElectionNotLeader
	}
	return resp.Header.Revision, nil
}

// resign deletes the leader's key, if it still is the leader's.
func (l line) resign(leader *v3electionpb.LeaderKey) (rev int64, err error) {
	resp, err := l.ifCreated(l.ctx, leader.Key, leader.Rev, []*pb.RequestOp{deleteOp(leader.Key)}, nil)
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

func (s *Server) serveProclaim(c *Call) {
	var r v3electionpb.ProclaimRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	s.asLeader(c, r.Leader, func(l line, leader *v3electionpb.LeaderKey) (message, int64, error) {
		rev, err := l.proclaim(leader, r.Value)
		return &v3electionpb.ProclaimResponse{}, rev, err
	})
}

func (s *Server) serveResign(c *Call) {
	var r v3electionpb.ResignRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	s.asLeader(c, r.Leader, func(l line, leader *v3electionpb.LeaderKey) (message, int64, error) {
		rev, err := l.resign(leader)
		return &v3electionpb.ResignResponse{}, rev, err
	})
}

// asLeader runs what a client asks for with the key that Campaign gave it.
func (s *Server) asLeader(c *Call, leader *v3electionpb.LeaderKey, do func(line, *v3electionpb.LeaderKey) (message, int64, error)) {
	if leader == nil {
		c.Fail(errMissingLeaderKey)
		return
	}
	lease, err := s.session(c.Ctx, leader.Lease)
	if err != nil {
		c.Fail(lineStatus(err))
		return
	}
	leader.Lease = lease
	resp, rev, err := do(s.newLine(c.Ctx, leader.Name), leader)
	if err != nil {
		c.Fail(lineStatus(err))
		return
	}
	c.finishMessage(resp, rev)
}

func (s *Server) serveLeader(c *Call) {
	var r v3electionpb.LeaderRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	l := s.newLine(c.Ctx, r.Name)
	resp, err := l.read(l.first())
	switch {
	case err != nil:
		c.Fail(lineStatus(err))
	case len(resp.Kvs) == 0:
		c.Fail(errElectionNoLeader)
	default:
		c.finishMessage(&v3electionpb.LeaderResponse{Kv: resp.Kvs[0]}, resp.Header.Revision)
	}
}
