package engine

import "errors"

// OpKind says what one replicated operation does. The numbers are part of the
// log format: never reuse one.
type OpKind byte

// The body of each kind is the wire encoding of the named message.
const (
	OpPut             OpKind = 1 // etcdserverpb.PutRequest
	OpDeleteRange     OpKind = 2 // etcdserverpb.DeleteRangeRequest
	OpTxn             OpKind = 3 // etcdserverpb.TxnRequest, with at least one write
	OpCompact         OpKind = 4 // etcdserverpb.CompactionRequest
	OpLeaseGrant      OpKind = 5 // etcdserverpb.LeaseGrantRequest, ID never 0
	OpLeaseRevoke     OpKind = 6 // etcdserverpb.LeaseRevokeRequest
	OpLeaseExpire     OpKind = 7 // term, count, lease IDs (see AppendExpire): revokes decided by a leader's clock
	OpLeaseCheckpoint OpKind = 8 // etcdserverpb.LeaseCheckpointRequest
	OpAlarm           OpKind = 9 // etcdserverpb.AlarmRequest
	OpMemberAttr      OpKind = 10
	OpClusterVersion  OpKind = 11 // version string
)

var errShortOp = errors.New("engine: operation without a kind")

// AppendOp appends one operation to dst: the kind, then the body as it came
// over the wire. The caller has validated the body.
func AppendOp(dst []byte, kind OpKind, body []byte) []byte {
	dst = append(dst, byte(kind))
	return append(dst, body...)
}

// splitOp is the inverse of AppendOp; body aliases op.
func splitOp(op []byte) (OpKind, []byte, error) {
	if len(op) == 0 {
		return 0, nil, errShortOp
	}
	return OpKind(op[0]), op[1:], nil
}
