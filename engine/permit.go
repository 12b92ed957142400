package engine

import (
	pb "quire/api/etcdserverpb"
	"quire/engine/auth"
)

// Who may do what with keys. Operations are checked when they are applied, so
// that every member decides alike and nothing slips in between a check and a
// change of permissions; reads are checked by whoever asks, before and after.

// actAs takes an OpAs apart and notes the identity.
func (a *applier) actAs(body []byte) (OpKind, []byte, error) {
	revision, user, op, err := splitAs(body)
	if err != nil {
		return 0, nil, err
	}
	if string(user) != a.asName { // most operations of one entry are of few users
		a.asName = string(user)
	}
	a.as = auth.Identity{User: a.asName, Revision: revision, Known: true}
	return splitOp(op)
}

// mayPut checks a put: the key to write, the other keys of its lease, for who
// may not write those could not revoke the lease either, and the key to read if
// its old value is asked for.
func (a *applier) mayPut(r *pb.PutRequest) error { return a.e.mayPut(&a.access, r) }

// mayDelete checks a delete.
func (a *applier) mayDelete(r *pb.DeleteRangeRequest) error { return mayDelete(&a.access, r) }

// mayTxn checks everything that a transaction might do, whichever way its
// compares turn out.
func (a *applier) mayTxn(r *pb.TxnRequest) error { return a.e.MayTxn(&a.access, r) }

// mayWriteLease checks the revoking of a lease.
func (a *applier) mayWriteLease(id int64) error { return a.e.MayWriteLease(&a.access, id) }

func (e *Engine) mayPut(acc *auth.Access, r *pb.PutRequest) error {
	if err := acc.Write(r.Key, nil); err != nil {
		return err
	}
	if r.Lease != 0 {
		if err := e.MayWriteLease(acc, r.Lease); err != nil {
			return err
		}
	}
	if r.PrevKv {
		return acc.Read(r.Key, nil)
	}
	return nil
}

func mayDelete(acc *auth.Access, r *pb.DeleteRangeRequest) error {
	if err := acc.Write(r.Key, r.RangeEnd); err != nil {
		return err
	}
	if r.PrevKv {
		return acc.Read(r.Key, r.RangeEnd)
	}
	return nil
}

// MayTxn checks every compare and both branches of a transaction, and of those
// nested in it.
func (e *Engine) MayTxn(acc *auth.Access, r *pb.TxnRequest) error {
	if acc.All() {
		return nil
	}
	for _, c := range r.Compare {
		if err := acc.Read(c.Key, c.RangeEnd); err != nil {
			return err
		}
	}
	for _, ops := range [2][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if err := e.mayOp(acc, op); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Engine) mayOp(acc *auth.Access, op *pb.RequestOp) error {
	switch t := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return acc.Read(t.RequestRange.Key, t.RequestRange.RangeEnd)
	case *pb.RequestOp_RequestPut:
		return e.mayPut(acc, t.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return mayDelete(acc, t.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return e.MayTxn(acc, t.RequestTxn)
	}
	return nil
}

// MayWriteLease checks the right to write every key of a lease.
func (e *Engine) MayWriteLease(acc *auth.Access, id int64) error {
	return e.mayLease(acc, id, acc.Write)
}

// MayReadLease checks the right to read every key of a lease.
func (e *Engine) MayReadLease(acc *auth.Access, id int64) error {
	return e.mayLease(acc, id, acc.Read)
}

func (e *Engine) mayLease(acc *auth.Access, id int64, check func(key, end []byte) error) error {
	if acc.AllLeases() {
		return nil
	}
	return e.lessor.eachKey(id, func(key []byte) error { return check(key, nil) })
}

// MayReadLeases checks the right to read every key of every lease.
func (e *Engine) MayReadLeases(acc *auth.Access) error {
	if acc.AllLeases() {
		return nil
	}
	for _, id := range e.lessor.list() {
		if err := e.MayReadLease(acc, id); err != nil {
			return err
		}
	}
	return nil
}
