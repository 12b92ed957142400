package rpc

import (
	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// What etcd charges against the quota, in bytes beyond keys and values.
const (
	leaseCost = 64
	kvCost    = 256
)

func costPut(r *pb.PutRequest) int { return kvCost + len(r.Key) + len(r.Value) }

// costTxn is that of the dearer branch.
func costTxn(r *pb.TxnRequest) int {
	return max(costOps(r.Success), costOps(r.Failure))
}

func costOps(ops []*pb.RequestOp) (cost int) {
	for _, op := range ops {
		switch u := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			cost += costPut(u.RequestPut)
		case *pb.RequestOp_RequestTxn:
			cost += costTxn(u.RequestTxn)
		}
	}
	return cost
}

// admit reports whether cost more bytes fit the quota. If not it raises the
// NOSPACE alarm and ends the call with etcd's text, after the alarm has been
// applied so that the client that hits the limit also sees the alarm. While
// the alarm stands, it is the engine that refuses what passes here.
func (s *Server) admit(c *Call, cost int) bool {
	if cost == 0 || !s.cfg.Space.QuotaExceeded(cost) {
		return true
	}
	// Whoever does not say who they are raises no alarm.
	if !c.require(AuthUser) {
		return false
	}
	if s.cfg.Space.HasAlarm(pb.AlarmType_NOSPACE) {
		c.Fail(errNoSpace)
		return false
	}
	req := pb.AlarmRequest{
		Action:   pb.AlarmRequest_ACTIVATE,
		MemberID: s.cfg.MemberID,
		Alarm:    pb.AlarmType_NOSPACE,
	}
	body, err := req.MarshalVT()
	if err != nil {
		c.Fail(err)
		return false
	}
	c.applied = func(c *Call, _ *engine.Reply) { c.Fail(errNoSpace) }
	c.propose(engine.OpAlarm, body)
	return false
}
