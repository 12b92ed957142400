package engine

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"

	"quire/api/mvccpb"

	pb "quire/api/etcdserverpb"
)

func randCompare(r *rand.Rand, m *model) *pb.Compare {
	c := &pb.Compare{Result: pb.Compare_CompareResult(r.IntN(4)), Target: pb.Compare_CompareTarget(r.IntN(5))}
	c.Key, c.RangeEnd = randSpan(r)
	n := r.Int64N(m.rev + 1)
	switch c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: n % 4}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: n}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: n}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: []byte{byte('a' + r.IntN(26))}}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: n % 4}
	}
	return c
}

// randOps uses each of the key numbers at most once for a write, as rpc demands.
func randOps(r *rand.Rand, m *model, keys []int, depth int) (ops []*pb.RequestOp) {
	for i := range r.IntN(4) {
		k := fmt.Appendf(nil, "k%02d", keys[i])
		switch n := r.IntN(8); {
		case n < 3:
			q := randRange(r, m.rev+1)
			q.SortOrder, q.SortTarget = 0, 0
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: q}})
		case n < 6:
			p := randPut(r)
			p.Key = k
			if p.IgnoreValue {
				p.Value = nil
			}
			if p.IgnoreLease {
				p.Lease = 0
			}
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}})
		case n < 7:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
				RequestDeleteRange: &pb.DeleteRangeRequest{Key: k, PrevKv: r.IntN(2) == 0}}})
		case depth < 2 && len(keys) > 8:
			n := &pb.TxnRequest{Compare: []*pb.Compare{randCompare(r, m)}}
			n.Success, n.Failure = randOps(r, m, keys[4:8], depth+1), randOps(r, m, keys[4:8], depth+1)
			return append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: n}})
		}
	}
	return ops
}

// txn executes req on the model; the write is not ended yet.
func (m *model) txn(req *pb.TxnRequest) (*pb.TxnResponse, *write, error) {
	w := m.begin()
	if err := m.checkTxn(req); err != nil {
		return nil, nil, err
	}
	resp, err := m.runTxn(req, w)
	return resp, w, err
}

func (m *model) taken(req *pb.TxnRequest) ([]*pb.RequestOp, bool) {
	for _, c := range req.Compare {
		if !m.holds(c) {
			return req.Failure, false
		}
	}
	return req.Success, true
}

func (m *model) holds(c *pb.Compare) bool {
	kvs := inRange(m.states[m.rev], c.Key, c.RangeEnd)
	if len(kvs) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		kvs = []*mvccpb.KeyValue{{}}
	}
	for _, kv := range kvs {
		var d int
		switch c.Target {
		case pb.Compare_VERSION:
			d = cmp.Compare(kv.Version, c.GetVersion())
		case pb.Compare_CREATE:
			d = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
		case pb.Compare_MOD:
			d = cmp.Compare(kv.ModRevision, c.GetModRevision())
		case pb.Compare_VALUE:
			d = bytes.Compare(kv.Value, c.GetValue())
		case pb.Compare_LEASE:
			d = cmp.Compare(kv.Lease, c.GetLease())
		}
		ok := map[pb.Compare_CompareResult]bool{pb.Compare_EQUAL: d == 0, pb.Compare_NOT_EQUAL: d != 0,
			pb.Compare_GREATER: d > 0, pb.Compare_LESS: d < 0}[c.Result]
		if !ok {
			return false
		}
	}
	return true
}

func (m *model) checkTxn(req *pb.TxnRequest) error {
	ops, _ := m.taken(req)
	for _, o := range ops {
		var err error
		switch {
		case o.GetRequestRange() != nil:
			if q := o.GetRequestRange(); q.Revision > m.rev {
				err = ErrFutureRev
			} else if q.Revision > 0 && q.Revision < m.compact {
				err = ErrCompacted
			}
		case o.GetRequestPut() != nil:
			err = m.checkPut(m.states[m.rev], o.GetRequestPut())
		case o.GetRequestTxn() != nil:
			err = m.checkTxn(o.GetRequestTxn())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *model) runTxn(req *pb.TxnRequest, w *write) (*pb.TxnResponse, error) {
	ops, ok := m.taken(req)
	resp := &pb.TxnResponse{Succeeded: ok}
	now := func() int64 {
		if len(w.evs) > 0 {
			return m.rev + 1
		}
		return m.rev
	}
	for _, o := range ops {
		switch {
		case o.GetRequestRange() != nil:
			m.states[m.rev+1] = w.state
			rr, err := m.rangeAt(o.GetRequestRange(), now())
			delete(m.states, m.rev+1)
			if err != nil {
				return nil, err
			}
			rr.Header = &pb.ResponseHeader{Revision: now()}
			resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: rr}})
		case o.GetRequestPut() != nil:
			pr := &pb.PutResponse{}
			if prev := w.put(o.GetRequestPut()); o.GetRequestPut().PrevKv {
				pr.PrevKv = prev
			}
			pr.Header = &pb.ResponseHeader{Revision: m.rev + 1}
			resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: pr}})
		case o.GetRequestDeleteRange() != nil:
			d := o.GetRequestDeleteRange()
			prevs := w.del(d.Key, d.RangeEnd)
			dr := &pb.DeleteRangeResponse{Deleted: int64(len(prevs)), Header: &pb.ResponseHeader{Revision: now()}}
			if d.PrevKv {
				dr.PrevKvs = prevs
			}
			resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: dr}})
		default:
			tr, err := m.runTxn(o.GetRequestTxn(), w)
			if err != nil {
				return nil, err
			}
			tr.Header = &pb.ResponseHeader{}
			resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: tr}})
		}
	}
	return resp, nil
}
