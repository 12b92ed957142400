package rpc

import (
	pb "quire/api/etcdserverpb"
)

// The checks return the first fault in the order in which etcd looks for them.

func checkRange(r *pb.RangeRequest) error {
	if len(r.Key) == 0 {
		return errEmptyKey
	}
	if r.SortOrder < pb.RangeRequest_NONE || r.SortOrder > pb.RangeRequest_DESCEND {
		return errInvalidSortOption
	}
	if r.SortTarget < pb.RangeRequest_KEY || r.SortTarget > pb.RangeRequest_VALUE {
		return errInvalidSortOption
	}
	return nil
}

// checkRangeStream adds what the streaming form does not serve; clients fall
// back to Range on Unimplemented.
func checkRangeStream(r *pb.RangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	inKeyOrder := r.SortOrder == pb.RangeRequest_NONE ||
		(r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND)
	if !inKeyOrder {
		return errStreamSort
	}
	if r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0 {
		return errStreamFilters
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	if len(r.Key) == 0 {
		return errEmptyKey
	}
	if r.IgnoreValue && len(r.Value) != 0 {
		return errValueProvided
	}
	if r.IgnoreLease && r.Lease != 0 {
		return errLeaseProvided
	}
	return nil
}

func checkDelete(r *pb.DeleteRangeRequest) error {
	if len(r.Key) == 0 {
		return errEmptyKey
	}
	return nil
}

// checkTxn bounds the operations: what the widest list of one level uses is
// not available to the levels below, which also bounds the nesting.
func checkTxn(r *pb.TxnRequest, maxOps int) error {
	widest := max(len(r.Compare), len(r.Success), len(r.Failure))
	if widest > maxOps {
		return errTooManyOps
	}
	for _, cmp := range r.Compare {
		if len(cmp.Key) == 0 {
			return errEmptyKey
		}
	}
	for _, ops := range [2][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if err := checkOp(op, maxOps-widest); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, maxOps int) error {
	switch u := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(u.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(u.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return checkDelete(u.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxn(u.RequestTxn, maxOps)
	}
	return errKeyNotFound // an operation that asks for nothing
}
