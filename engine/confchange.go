package engine

import (
	"encoding/binary"
	"errors"

	pb "quire/api/etcdserverpb"
)

// Kinds of a configuration change, the numbers of raftpb.ConfChangeType.
const (
	confAddVoter   = 0
	confRemove     = 1
	confUpdate     = 2
	confAddLearner = 3
)

// confChange is one membership change. It travels as a raftpb.ConfChangeV2 with
// one change, whose context carries the wire bytes of the pb.Member; a promotion
// has no context. The engine reads that encoding itself, because it knows
// nothing of raft: transition = 1, changes = 2 {type = 1, node_id = 2}, context = 3.
type confChange struct {
	kind   uint64
	node   uint64
	member *pb.Member
}

var errConfChange = errors.New("engine: configuration change is not a single change with a member")

// EncodeConfChange returns the wire bytes of a change for the consensus room.
// m is nil for a removal and for a promotion.
func EncodeConfChange(kind, node uint64, m *pb.Member) ([]byte, error) {
	single := appendUint(appendUint(nil, 1<<3, kind), 2<<3, node)
	b := appendMessage(nil, 2<<3|2, single)
	if m != nil {
		ctx, err := m.MarshalVT()
		if err != nil {
			return nil, err
		}
		b = appendMessage(b, 3<<3|2, ctx)
	}
	return b, nil
}

func appendUint(dst []byte, tag byte, v uint64) []byte {
	return binary.AppendUvarint(append(dst, tag), v)
}

func decodeConfChange(b []byte) (*confChange, error) {
	cc := new(confChange)
	changes := 0
	err := eachWireField(b, func(num, v uint64, p []byte) error {
		switch num {
		case 2:
			changes++
			return eachWireField(p, func(num, v uint64, _ []byte) error {
				switch num {
				case 1:
					cc.kind = v
				case 2:
					cc.node = v
				}
				return nil
			})
		case 3:
			if len(p) > 0 {
				cc.member = new(pb.Member)
				return cc.member.UnmarshalVT(p)
			}
		}
		return nil
	})
	if err == nil && (changes != 1 || cc.node == 0) {
		err = errConfChange
	}
	return cc, err
}

// eachWireField walks varint and length-delimited fields.
func eachWireField(b []byte, fn func(num, v uint64, p []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return errConfChange
		}
		b = b[n:]
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return errConfChange
		}
		b = b[n:]
		var p []byte
		switch tag & 7 {
		case 0:
		case 2:
			if v > uint64(len(b)) {
				return errConfChange
			}
			p, b = b[:v], b[v:]
		default:
			return errConfChange
		}
		if err := fn(tag>>3, v, p); err != nil {
			return err
		}
	}
	return nil
}
