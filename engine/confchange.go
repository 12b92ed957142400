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

// ConfChange is one membership change. It travels as a raftpb.ConfChangeV2 with
// one change, whose context carries the wire bytes of the pb.Member and behind
// them, as a field that pb.Member does not have, the bound on learners that the
// proposer's flags give: so every member decides the same. A promotion and a
// removal have no member. The engine reads that encoding itself, because it knows
// nothing of raft: transition = 1, changes = 2 {type = 1, node_id = 2}, context = 3.
type ConfChange struct {
	Kind   uint64 // raftpb.ConfChangeType
	Node   uint64
	Member *pb.Member
	// MaxLearners refuses one learner more; 0: no bound.
	MaxLearners int
}

// fieldMaxLearners is the number of the field behind the member.
const fieldMaxLearners = 100

var errConfChange = errors.New("engine: configuration change is not a single change with a member")

// EncodeConfChange returns the wire bytes of a change for the consensus room.
func EncodeConfChange(c ConfChange) ([]byte, error) {
	single := appendUint(appendUint(nil, 1<<3, c.Kind), 2<<3, c.Node)
	b := appendMessage(nil, 2<<3|2, single)
	if c.Member != nil {
		ctx, err := c.Member.MarshalVT()
		if err != nil {
			return nil, err
		}
		if c.MaxLearners > 0 {
			ctx = binary.AppendUvarint(ctx, fieldMaxLearners<<3)
			ctx = binary.AppendUvarint(ctx, uint64(c.MaxLearners))
		}
		b = appendMessage(b, 3<<3|2, ctx)
	}
	return b, nil
}

func appendUint(dst []byte, tag byte, v uint64) []byte {
	return binary.AppendUvarint(append(dst, tag), v)
}

// DecodeConfChange is the inverse of EncodeConfChange.
func DecodeConfChange(b []byte) (*ConfChange, error) {
	cc := new(ConfChange)
	changes := 0
	err := eachWireField(b, func(num, v uint64, p []byte) error {
		switch num {
		case 2:
			changes++
			return eachWireField(p, func(num, v uint64, _ []byte) error {
				switch num {
				case 1:
					cc.Kind = v
				case 2:
					cc.Node = v
				}
				return nil
			})
		case 3:
			if len(p) > 0 {
				return cc.context(p)
			}
		}
		return nil
	})
	if err == nil && (changes != 1 || cc.Node == 0) {
		err = errConfChange
	}
	return cc, err
}

func (c *ConfChange) context(p []byte) error {
	c.Member = new(pb.Member)
	if err := c.Member.UnmarshalVT(p); err != nil {
		return err
	}
	c.Member.ProtoReflect().SetUnknown(nil)
	return eachWireField(p, func(num, v uint64, _ []byte) error {
		if num == fieldMaxLearners {
			c.MaxLearners = int(v)
		}
		return nil
	})
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
