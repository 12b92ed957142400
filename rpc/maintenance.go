package rpc

import (
	"context"

	"go.uber.org/zap"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

const (
	maintenanceService = "etcdserverpb.Maintenance"
	snapshotFullName   = "/" + maintenanceService + "/Snapshot"
)

func (s *Server) maintenanceMethods() []*Method {
	return []*Method{
		{Service: maintenanceService, Name: "Alarm", Auth: AuthHandler, Unary: s.serveAlarm},
		{Service: maintenanceService, Name: "Status", Auth: AuthUser, Unary: s.serveStatus, Learner: true},
		{Service: maintenanceService, Name: "Defragment", Auth: AuthRoot, Unary: s.serveDefragment, Blocking: true},
		{Service: maintenanceService, Name: "Hash", Auth: AuthRoot, Unary: s.serveHash, Blocking: true},
		{Service: maintenanceService, Name: "HashKV", Auth: AuthRoot, Unary: s.serveHashKV, Blocking: true},
		{Service: maintenanceService, Name: "Snapshot", Auth: AuthRoot, Open: s.openSnapshot, Learner: true},
		{Service: maintenanceService, Name: "MoveLeader", Auth: AuthRoot, Unary: s.serveMoveLeader, Blocking: true},
		{Service: maintenanceService, Name: "Downgrade", Auth: AuthRoot, Unary: s.serveDowngrade, Blocking: true},
	}
}

// serveAlarm replicates all three actions: a list of alarms is as current as
// the log.
func (s *Server) serveAlarm(c *Call) {
	var r pb.AlarmRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	need := AuthRoot
	if r.Action == pb.AlarmRequest_GET {
		need = AuthUser
	}
	if !c.require(need) {
		return
	}
	c.applied = func(c *Call, r *engine.Reply) {
		rev := r.Revision
		if rev == 0 {
			rev = s.cfg.KV.Revision()
		}
		c.Reply(r.Body, rev)
	}
	c.propose(engine.OpAlarm, c.Req)
}

func (s *Server) serveStatus(c *Call) {
	st := s.cfg.RaftStatus()
	total, inUse := s.cfg.Space.DBSize()
	resp := pb.StatusResponse{
		Version:          s.cfg.Version,
		DbSize:           total,
		DbSizeInUse:      inUse,
		DbSizeQuota:      s.cfg.Space.Quota(),
		Leader:           st.Lead,
		RaftIndex:        st.Commit,
		RaftTerm:         st.Term,
		RaftAppliedIndex: st.Applied,
		IsLearner:        st.IsLearner,
		StorageVersion:   s.cfg.Upkeep.StorageVersion(),
		DowngradeInfo:    &pb.DowngradeInfo{},
	}
	if target := s.cfg.Upkeep.Downgrade(); target != "" {
		resp.DowngradeInfo.Enabled, resp.DowngradeInfo.TargetVersion = true, target
	}
	if st.Lead == 0 {
		resp.Errors = append(resp.Errors, errNoLeader.Text)
	}
	for _, a := range s.cfg.Space.Alarms() {
		resp.Errors = append(resp.Errors, alarmText(a))
	}
	c.finishMessage(&resp, s.cfg.KV.Revision())
}

func (s *Server) serveDefragment(c *Call) {
	s.defragmenting.Add(1)
	defer s.defragmenting.Add(-1)
	s.cfg.Logger.Info("starting defragment")
	if s.cfg.StopServingOnDefrag {
		s.health.set(healthpb.HealthCheckResponse_NOT_SERVING)
		defer s.health.set(healthpb.HealthCheckResponse_SERVING)
	}
	if err := s.cfg.Upkeep.Defragment(c.Ctx); err != nil {
		s.cfg.Logger.Warn("failed to defragment", zap.Error(err))
		c.Fail(err)
		return
	}
	s.cfg.Logger.Info("finished defragment")
	c.finishBare(c.body()) // etcd's answer has no header
}

func (s *Server) serveHash(c *Call) {
	began := s.cfg.Clock.now()
	h, rev, err := s.cfg.Upkeep.Hash()
	s.hashing.all.Observe(s.cfg.Clock.now().Sub(began).Seconds())
	if err != nil {
		c.Fail(err)
		return
	}
	c.finishMessage(&pb.HashResponse{Hash: h}, rev)
}

func (s *Server) serveHashKV(c *Call) {
	var r pb.HashKVRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	began := s.cfg.Clock.now()
	h, compactRev, currentRev, err := s.cfg.Upkeep.HashKV(r.Revision)
	s.hashing.rev.Observe(s.cfg.Clock.now().Sub(began).Seconds())
	if err != nil {
		c.Fail(err)
		return
	}
	hashRev := r.Revision
	if hashRev == 0 {
		hashRev = currentRev
	}
	c.finishMessage(&pb.HashKVResponse{Hash: h, CompactRevision: compactRev, HashRevision: hashRev}, currentRev)
}

func (s *Server) serveMoveLeader(c *Call) {
	var r pb.MoveLeaderRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	if !s.cfg.RaftStatus().IsLeader {
		c.Fail(errNotLeader)
		return
	}
	for _, m := range s.cfg.Members() {
		if m.ID != r.TargetID || m.IsLearner {
			continue
		}
		if r.TargetID != s.cfg.MemberID {
			if err := s.moveLeader(c.Ctx, r.TargetID); err != nil {
				c.Fail(err)
				return
			}
		}
		c.finishBare(c.body())
		return
	}
	c.Fail(errBadLeaderTransferee)
}

// moveLeader does not wait for ever for a member that does not answer.
func (s *Server) moveLeader(ctx context.Context, to uint64) error {
	limited, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout())
	defer cancel()
	err := s.cfg.MoveLeader(limited, to)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return errTransferTimeout
	}
	return err
}

func (s *Server) serveDowngrade(c *Call) {
	var r pb.DowngradeRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	version, err := s.cfg.Membership.Downgrade(c.Ctx, &r)
	if err != nil {
		c.Fail(err)
		return
	}
	c.finishMessage(&pb.DowngradeResponse{Version: version}, s.cfg.KV.Revision())
}
