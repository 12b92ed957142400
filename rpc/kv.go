package rpc

import (
	"math/bits"

	pb "quire/api/etcdserverpb"
	"quire/engine"
	"quire/engine/auth"
)

const (
	kvService           = "etcdserverpb.KV"
	rangeStreamFullName = "/" + kvService + "/RangeStream"
	compactFullName     = "/" + kvService + "/Compact"
	rangeFullName       = "/" + kvService + "/Range"
)

func (s *Server) kvMethods() []*Method {
	return []*Method{
		{Service: kvService, Name: "Range", Auth: AuthHandler, Unary: s.serveRange, Learner: true},
		{Service: kvService, Name: "RangeStream", Auth: AuthHandler, Open: s.openRangeStream},
		{Service: kvService, Name: "Put", Auth: AuthHandler, Unary: s.servePut},
		{Service: kvService, Name: "DeleteRange", Auth: AuthHandler, Unary: s.serveDeleteRange},
		{Service: kvService, Name: "Txn", Auth: AuthHandler, Unary: s.serveTxn},
		{Service: kvService, Name: "Compact", Auth: AuthRoot, Unary: s.serveCompact},
	}
}

func (s *Server) serveRange(c *Call) {
	r := &c.rng
	r.Reset()
	if !scanRangeInto(r, c.Req) {
		r.Reset()
		if err := decode(&c.Req, r); err != nil {
			c.Fail(err)
			return
		}
	}
	if err := s.checkLearnerRead(r.Serializable); err != nil {
		c.Fail(err)
		return
	}
	if err := checkRange(r); err != nil {
		c.Fail(err)
		return
	}
	if r.Serializable {
		doRange(c)
		return
	}
	c.linearize(doRange)
}

func doRange(c *Call) {
	id, acc, err := c.access()
	if err == nil {
		err = acc.Read(c.rng.Key, c.rng.RangeEnd)
	}
	if err != nil {
		c.Fail(err)
		return
	}
	b, rev, err := c.srv.cfg.KV.Range(&c.rng, c.body())
	c.finishRead(id, b, rev, err)
}

// finishRead ends the call with what was read, unless the right to it is not
// certain any more.
func (c *Call) finishRead(id auth.Identity, b []byte, rev int64, err error) {
	if changed := c.srv.still(id); changed != nil {
		err = changed
	}
	if err != nil {
		c.Fail(err)
		return
	}
	c.Finish(b, rev)
}

func (s *Server) servePut(c *Call) {
	if cost, ok := scanPut(c.Req); ok {
		if s.admit(c, cost) {
			c.proposeAs(engine.OpPut, c.Req)
		}
		return
	}
	r := &pb.PutRequest{}
	if err := decode(&c.Req, r); err != nil {
		c.Fail(err)
		return
	}
	if !s.admit(c, costPut(r)) {
		return
	}
	if err := checkPut(r); err != nil {
		c.Fail(err)
		return
	}
	c.proposeAs(engine.OpPut, c.Req)
}

func (s *Server) serveDeleteRange(c *Call) {
	if scanDelete(c.Req) {
		c.proposeAs(engine.OpDeleteRange, c.Req)
		return
	}
	r := &pb.DeleteRangeRequest{}
	if err := decode(&c.Req, r); err != nil {
		c.Fail(err)
		return
	}
	if err := checkDelete(r); err != nil {
		c.Fail(err)
		return
	}
	c.proposeAs(engine.OpDeleteRange, c.Req)
}

func (s *Server) serveTxn(c *Call) {
	if cost, ok := scanTxn(c.Req, s.cfg.MaxTxnOps); ok {
		if s.admit(c, cost) {
			c.proposeAs(engine.OpTxn, c.Req)
		}
		return
	}
	s.decodeTxn(c)
}

// decodeTxn serves what the scan has left: whatever only reads, nests, writes
// more than once or is wrong.
func (s *Server) decodeTxn(c *Call) {
	r := &c.txn
	r.Reset()
	if err := decodeChecked(&c.Req, r, wellFormedTxn); err != nil {
		c.Fail(err)
		return
	}
	if !s.admit(c, costTxn(r)) {
		return
	}
	if err := checkTxn(r, s.cfg.MaxTxnOps); err != nil {
		c.Fail(err)
		return
	}
	if err := checkOverlaps(r); err != nil {
		c.Fail(err)
		return
	}
	readOnly, serializable := classifyTxn(r)
	c.onlyReads = readOnly
	switch {
	case !readOnly:
		s.proposeTxn(c, r)
	case serializable:
		doReadTxn(c)
	default:
		c.linearize(doReadTxn)
	}
}

// proposeTxn proposes a transaction with the client's rights, unless it needs
// none because it touches no key.
func (s *Server) proposeTxn(c *Call, r *pb.TxnRequest) {
	if !s.cfg.Auth.Enabled() {
		c.propose(engine.OpTxn, c.Req)
		return
	}
	nobody := s.cfg.Auth.Access(auth.Identity{})
	if s.cfg.Rights.MayTxn(&nobody, r) != nil {
		c.proposeAs(engine.OpTxn, c.Req)
		return
	}
	if _, err := c.identity(); err != nil { // a wrong token is refused all the same
		c.Fail(err)
		return
	}
	c.propose(engine.OpTxn, c.Req)
}

func doReadTxn(c *Call) {
	var id auth.Identity
	if c.srv.cfg.Auth.Enabled() {
		var err error
		if id, err = c.mayTxn(); err != nil {
			c.Fail(err)
			return
		}
	}
	b, rev, err := c.srv.cfg.KV.ReadTxn(&c.txn, c.body())
	c.finishRead(id, b, rev, err)
}

// mayTxn checks the right to everything in the call's transaction.
func (c *Call) mayTxn() (auth.Identity, error) {
	id, acc, err := c.access()
	if err == nil {
		err = c.srv.cfg.Rights.MayTxn(&acc, &c.txn)
	}
	return id, err
}

// classifyTxn tells whether a transaction only reads, and then whether all of
// its reads may be stale. A nested transaction counts as a write, as in etcd.
func classifyTxn(r *pb.TxnRequest) (readOnly, serializable bool) {
	serializable = true
	for _, ops := range [2][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			rng := op.GetRequestRange()
			if rng == nil {
				return false, false
			}
			serializable = serializable && rng.Serializable
		}
	}
	return true, serializable
}

func (s *Server) serveCompact(c *Call) {
	var r pb.CompactionRequest
	if err := decode(&c.Req, &r); err != nil {
		c.Fail(err)
		return
	}
	rev, physical := r.Revision, r.Physical
	c.applied = func(c *Call, _ *engine.Reply) {
		if !physical {
			c.Reply(nil, s.cfg.KV.Revision())
			return
		}
		c.next = func(c *Call) { s.awaitCompacted(c, rev) }
		c.wake(c)
	}
	c.propose(engine.OpCompact, c.Req)
}

// awaitCompacted ends a physical compaction. The request timeout does not
// count here: removing takes as long as it takes.
func (s *Server) awaitCompacted(c *Call, rev int64) {
	s.dog.remove(c)
	if err := s.cfg.KV.AwaitCompacted(c.Ctx, rev); err != nil {
		c.Fail(err)
		return
	}
	c.Finish(c.body(), s.cfg.KV.Revision())
}

// proposalBytes is the size that etcd compares with the request limit: that of
// its InternalRaftRequest, which wraps the request (tag and length) and adds a
// header with a 64-bit request ID (14 bytes).
func proposalBytes(body []byte) int {
	return 14 + 1 + uvarintBytes(uint64(len(body))) + len(body)
}

func uvarintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
