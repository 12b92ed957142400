package engine

import (
	"encoding/binary"
	"errors"

	"quire/engine/auth"
)

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

	// OpAs does another operation on behalf of a user: uvarint revision of the auth
	// store, uvarint length and user name, the other operation (see AppendAs).
	OpAs                 OpKind = 12
	OpAuthEnable         OpKind = 13 // empty
	OpAuthDisable        OpKind = 14 // empty
	OpAuthenticate       OpKind = 15 // uvarint length and user name, beginning of the token (see AppendAuthenticate)
	OpUserAdd            OpKind = 16 // etcdserverpb.AuthUserAddRequest, the password hashed
	OpUserDelete         OpKind = 17 // etcdserverpb.AuthUserDeleteRequest
	OpUserChangePassword OpKind = 18 // etcdserverpb.AuthUserChangePasswordRequest, the password hashed
	OpUserGrantRole      OpKind = 19 // etcdserverpb.AuthUserGrantRoleRequest
	OpUserRevokeRole     OpKind = 20 // etcdserverpb.AuthUserRevokeRoleRequest
	OpRoleAdd            OpKind = 21 // etcdserverpb.AuthRoleAddRequest
	OpRoleDelete         OpKind = 22 // etcdserverpb.AuthRoleDeleteRequest
	OpRoleGrant          OpKind = 23 // etcdserverpb.AuthRoleGrantPermissionRequest
	OpRoleRevoke         OpKind = 24 // etcdserverpb.AuthRoleRevokePermissionRequest

	// OpLeaseRecord is an OpLeaseCheckpoint that a leader's clock has decided: uvarint
	// term, etcdserverpb.LeaseCheckpointRequest. An entry of another term drops it.
	OpLeaseRecord OpKind = 33

	OpDowngrade OpKind = 32 // text: the version to which the cluster is to be downgraded; empty to call it off
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

// AppendAs appends the head of an OpAs to dst; the operation that is done on
// behalf of id follows.
func AppendAs(dst []byte, id auth.Identity) []byte {
	dst = append(dst, byte(OpAs))
	dst = binary.AppendUvarint(dst, id.Revision)
	return appendName(dst, id.User)
}

// splitAs takes the body of an OpAs apart; both results alias body.
func splitAs(body []byte) (revision uint64, user, op []byte, err error) {
	revision, n := binary.Uvarint(body)
	if n <= 0 {
		return 0, nil, nil, errShortOp
	}
	user, op, err = cutName(body[n:])
	return revision, user, op, err
}

// AppendAuthenticate appends the body of an OpAuthenticate to dst: the token
// that a user gets is prefix, a dot and the log index of the operation.
func AppendAuthenticate(dst []byte, user, prefix string) []byte {
	return append(appendName(dst, user), prefix...)
}

func appendName(dst []byte, name string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(name)))
	return append(dst, name...)
}

// cutName cuts a length and a name off b.
func cutName(b []byte) (name, rest []byte, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, errShortOp
	}
	return b[n : n+int(size)], b[n+int(size):], nil
}
