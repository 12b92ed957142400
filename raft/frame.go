package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The data of an entry starts with who proposed it: one byte frameLocal, or
// frameForwarded and an origin. The operations follow, each as uvarint length
// and bytes. A membership change carries the same head in front of its
// Context, because raft itself must be able to read the change.
const (
	frameLocal     = 1 // proposed by the leader itself; its index and term identify it
	frameForwarded = 2 // proposed by a follower, which does not know the index
)

const originBytes = 1 + 4*8

var errFrame = errors.New("malformed entry")

// origin identifies a batch that a follower sent to the leader. The term is
// the one in which it was sent: a leader of another term refuses it, so a
// delayed copy can never enter a later log.
type origin struct {
	member, session, term, seq uint64
}

func appendOrigin(dst []byte, o origin) []byte {
	return appendU64s(append(dst, frameForwarded), o.member, o.session, o.term, o.seq)
}

// cutFrame splits the head off an entry's data; org is zero for frameLocal.
func cutFrame(data []byte) (org origin, ops []byte, err error) {
	if len(data) == 0 {
		return origin{}, nil, nil
	}
	switch data[0] {
	case frameLocal:
		return origin{}, data[1:], nil
	case frameForwarded:
		if len(data) < originBytes {
			return origin{}, nil, fmt.Errorf("%w: origin cut off after %d bytes", errFrame, len(data))
		}
		f := data[1:]
		return origin{u64at(f, 0), u64at(f, 1), u64at(f, 2), u64at(f, 3)}, data[originBytes:], nil
	}
	return origin{}, nil, fmt.Errorf("%w: frame kind %d", errFrame, data[0])
}

// NextOp cuts the first operation off the data that StateMachine.Apply was
// given. op and rest share memory with data.
func NextOp(data []byte) (op, rest []byte, err error) {
	n, w := binary.Uvarint(data)
	if w <= 0 || n > uint64(len(data)-w) {
		return nil, nil, fmt.Errorf("%w: operation length %d in %d bytes", errFrame, n, len(data))
	}
	end := w + int(n)
	return data[w:end:end], data[end:], nil
}
