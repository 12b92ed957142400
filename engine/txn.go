package engine

import (
	"bytes"
	"cmp"

	pb "quire/api/etcdserverpb"
	"quire/index"
)

// txnPlan is a transaction whose compares have been decided. All compares of a
// nested transaction are decided before anything is written, as in etcd.
type txnPlan struct {
	succeeded bool
	compares  uint64 // that were decided
	ops       []*pb.RequestOp
	nested    []*txnPlan // one per nested transaction among ops, in order
}

// txnReader is what the compares and the ranges of a transaction read.
type txnReader struct {
	k   *keyspace
	rev int64 // state they see
}

// plan decides the compares of req and of the branches taken.
func (r txnReader) plan(req *pb.TxnRequest) (*txnPlan, error) {
	p := &txnPlan{succeeded: true, ops: req.Success}
	for _, c := range req.Compare {
		ok, err := r.holds(c)
		if err != nil {
			return nil, err
		}
		p.compares++
		if !ok {
			p.succeeded, p.ops = false, req.Failure
			break
		}
	}
	for _, op := range p.ops {
		if t, ok := op.Request.(*pb.RequestOp_RequestTxn); ok {
			n, err := r.plan(t.RequestTxn)
			if err != nil {
				return nil, err
			}
			p.nested = append(p.nested, n)
		}
	}
	return p, nil
}

// holds decides one compare: it must hold for every key of its range; a range
// without keys compares as one key with all numbers 0, and never on its value.
func (r txnReader) holds(c *pb.Compare) (bool, error) {
	needRecord := c.Target == pb.Compare_VALUE || c.Target == pb.Compare_LEASE
	found, all := false, true
	var readErr error
	r.k.eachAt(newSpan(c.Key, c.RangeEnd), r.rev, 0, func(hit *index.Hit) bool {
		found = true
		kv := keyValue{create: hit.Create, mod: hit.Main, version: hit.Ver}
		if needRecord {
			if readErr = r.k.readKV(hit.Loc, &kv); readErr != nil {
				return false
			}
		}
		all = compareHolds(c, &kv)
		return all
	})
	if readErr != nil {
		return false, readErr
	}
	if !found {
		return c.Target != pb.Compare_VALUE && compareHolds(c, &keyValue{}), nil
	}
	return all, nil
}

func compareHolds(c *pb.Compare, kv *keyValue) bool {
	var r int
	switch c.Target {
	case pb.Compare_VALUE:
		r = bytes.Compare(kv.value, c.GetValue())
	case pb.Compare_CREATE:
		r = cmp.Compare(kv.create, c.GetCreateRevision())
	case pb.Compare_MOD:
		r = cmp.Compare(kv.mod, c.GetModRevision())
	case pb.Compare_VERSION:
		r = cmp.Compare(kv.version, c.GetVersion())
	case pb.Compare_LEASE:
		r = cmp.Compare(kv.lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return r == 0
	case pb.Compare_NOT_EQUAL:
		return r != 0
	case pb.Compare_GREATER:
		return r > 0
	case pb.Compare_LESS:
		return r < 0
	}
	return true
}

// check refuses a transaction before anything is written: a range at a revision
// that is gone or to come, a put that may not be.
func (r txnReader) check(p *txnPlan, checkPut func(*pb.PutRequest) error) error {
	n := 0
	for _, op := range p.ops {
		var err error
		switch t := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			switch rev := t.RequestRange.Revision; {
			case rev == 0:
			case rev > r.rev:
				err = ErrFutureRev
			case rev < r.k.compactRev.Load():
				err = ErrCompacted
			}
		case *pb.RequestOp_RequestPut:
			err = checkPut(t.RequestPut)
		case *pb.RequestOp_RequestTxn:
			err = r.check(p.nested[n], checkPut)
			n++
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// txnWriter carries out the writes of a plan; nil in a read-only transaction.
type txnWriter interface {
	readRev() int64
	putIn(dst []byte, req *pb.PutRequest) []byte
	deleteIn(dst []byte, req *pb.DeleteRangeRequest) []byte
}

// execute runs the branch taken and appends the body of the TxnResponse (all
// but the header) to dst.
func (r txnReader) execute(dst []byte, p *txnPlan, w txnWriter) ([]byte, error) {
	if p.succeeded {
		dst = append(dst, 2<<3, 1)
	}
	n := 0
	for _, op := range p.ops {
		start := len(dst)
		var tag byte
		switch t := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			tag = 1<<3 | 2
			rr := r
			if w != nil {
				rr.rev = w.readRev()
			}
			dst = appendRevHeader(dst, rr.rev)
			var err error
			if dst, err = r.k.rangeAt(dst, t.RequestRange, rr.rev); err != nil {
				return dst, err
			}
		case *pb.RequestOp_RequestPut:
			tag = 2<<3 | 2
			dst = w.putIn(dst, t.RequestPut)
		case *pb.RequestOp_RequestDeleteRange:
			tag = 3<<3 | 2
			dst = w.deleteIn(dst, t.RequestDeleteRange)
		case *pb.RequestOp_RequestTxn:
			tag = 4<<3 | 2
			dst = append(dst, 1<<3|2, 0) // an empty header, as etcd answers
			var err error
			if dst, err = r.execute(dst, p.nested[n], w); err != nil {
				return dst, err
			}
			n++
		}
		dst = wrapMessage(dst, start, tag)
		dst = wrapMessage(dst, start, 3<<3|2)
	}
	return dst, nil
}

// appendRevHeader appends a response header that has a revision only.
func appendRevHeader(dst []byte, rev int64) []byte {
	start := len(dst)
	dst = appendInt(dst, 3<<3, rev)
	return wrapMessage(dst, start, 1<<3|2)
}

// wrapMessage turns dst[start:] into a length-delimited field.
func wrapMessage(dst []byte, start int, tag byte) []byte {
	var head [11]byte
	h := append(head[:0], tag)
	n := len(dst) - start
	for v := uint64(n); ; v >>= 7 {
		if v < 0x80 {
			h = append(h, byte(v))
			break
		}
		h = append(h, byte(v)|0x80)
	}
	dst = append(dst, h...)
	copy(dst[start+len(h):], dst[start:start+n])
	copy(dst[start:], h)
	return dst
}

func (a *applier) putIn(dst []byte, req *pb.PutRequest) []byte {
	dst = appendRevHeader(dst, a.rev+1)
	return a.putOne(dst, req)
}

func (a *applier) deleteIn(dst []byte, req *pb.DeleteRangeRequest) []byte {
	start := len(dst)
	dst = a.deleteRange(dst, req)
	// The header precedes the body but tells whether something was written.
	hdr := appendRevHeader(nil, a.readRev())
	dst = append(dst, hdr...)
	copy(dst[start+len(hdr):], dst[start:len(dst)-len(hdr)])
	copy(dst[start:], hdr)
	return dst
}

// runTxn executes a transaction with writes.
func (a *applier) runTxn(body []byte) (int64, error) {
	var req pb.TxnRequest
	if err := req.UnmarshalVTUnsafe(body); err != nil {
		return 0, err
	}
	if a.e.alarms.has(pb.AlarmType_NOSPACE) && hasPut(&req) {
		return 0, ErrNoSpace
	}
	if err := a.mayTxn(&req); err != nil {
		return 0, err
	}
	r := txnReader{k: a.k, rev: a.rev}
	p, err := r.plan(&req)
	if err == nil {
		err = r.check(p, a.checkPut)
	}
	if err != nil {
		return 0, err
	}
	if a.body, err = r.execute(a.body, p, a); err != nil {
		// Checked before: a failure now would leave half a transaction.
		a.fail(err)
	}
	ranges, txns := p.tally(true)
	a.entry.txnRanges, a.entry.txns = a.entry.txnRanges+ranges, a.entry.txns+txns
	return a.readRev(), err
}

func hasPut(req *pb.TxnRequest) bool {
	for _, ops := range [2][]*pb.RequestOp{req.Success, req.Failure} {
		for _, op := range ops {
			switch t := op.Request.(type) {
			case *pb.RequestOp_RequestPut:
				return true
			case *pb.RequestOp_RequestTxn:
				if hasPut(t.RequestTxn) {
					return true
				}
			}
		}
	}
	return false
}

// ReadTxn executes a transaction without writes at the applied state and appends
// the body of its response to dst.
func (e *Engine) ReadTxn(req *pb.TxnRequest, dst []byte) (body []byte, rev int64, err error) {
	if err := e.servable(); err != nil {
		return dst, 0, err
	}
	start := len(dst)
	k, pin := e.read()
	defer pin.Release()
	for range readAttempts {
		r := txnReader{k: k, rev: k.visible.Load()}
		p, err := r.plan(req)
		if err == nil {
			err = r.check(p, func(*pb.PutRequest) error { return nil })
		}
		if err == nil {
			dst, err = r.execute(dst[:start], p, nil)
		}
		if k.compactRev.Load() > r.rev {
			continue // compaction overtook the snapshot
		}
		if err == nil {
			e.tally.transacted(p.tally(false))
		}
		return dst, r.rev, err
	}
	return dst[:start], 0, ErrCompacted
}
