package rpc

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Two decoders are at work. The generated one (UnmarshalVTUnsafe) is fast and
// points into the request, but it forgives what protobuf forbids (a varint beyond
// 64 bits, a group that ends as another) and refuses what protobuf permits (a
// known field number with another wire type, which is an unknown field). The
// library, which etcd uses, decides. So the generated decoder is used where a
// check of the encoding has shown that both agree; everything else goes through
// the library, and what goes on to the log is then the encoding of what it
// understood, because the engine reads that with the generated decoder again.

// request is a generated request message.
type request interface {
	proto.Message
	UnmarshalVTUnsafe([]byte) error
	MarshalVT() ([]byte, error)
}

// decode reads *wire into the empty r and may replace *wire.
func decode(wire *[]byte, r request) error {
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(*wire, r); err != nil {
		return malformed(err)
	}
	b, err := r.MarshalVT()
	if err != nil {
		return malformed(err)
	}
	*wire = b
	return nil
}

// decodeChecked is decode for requests of which many come: if the check finds
// nothing, r points into *wire.
func decodeChecked(wire *[]byte, r request, check func([]byte) error) error {
	if check(*wire) == nil && r.UnmarshalVTUnsafe(*wire) == nil {
		return nil
	}
	proto.Reset(r)
	return decode(wire, r)
}

var errNotWellFormed = errors.New("rpc: a decoder has to look at it")

// wellFormed checks the encoding of a message without message fields.
func wellFormed(msg []byte) error {
	for len(msg) > 0 {
		num, _, n := protowire.ConsumeField(msg)
		if n < 0 || num > protowire.MaxValidNumber {
			return errNotWellFormed
		}
		msg = msg[n:]
	}
	return nil
}

// maxTxnDepth is how deep transactions may nest to be decoded here; the library
// has a bound of its own and decides about deeper ones.
const maxTxnDepth = 1000

// wellFormedTxn checks the encoding of a TxnRequest and of everything in it.
func wellFormedTxn(msg []byte) error { return wellFormedNested(msg, maxTxnDepth) }

func wellFormedNested(msg []byte, depth int) error {
	if depth == 0 {
		return errNotWellFormed
	}
	return eachMessage(msg, func(num protowire.Number, sub []byte) error {
		switch num {
		case 1: // compare
			return wellFormed(sub)
		case 2, 3: // success, failure
			return wellFormedOp(sub, depth)
		}
		return nil
	})
}

func wellFormedOp(msg []byte, depth int) error {
	return eachMessage(msg, func(num protowire.Number, sub []byte) error {
		switch num {
		case 1, 2, 3: // range, put, delete
			return wellFormed(sub)
		case 4:
			return wellFormedNested(sub, depth-1)
		}
		return nil
	})
}

// eachMessage checks the encoding of msg and calls do for its fields of bytes.
func eachMessage(msg []byte, do func(protowire.Number, []byte) error) error {
	for len(msg) > 0 {
		num, typ, tag := protowire.ConsumeTag(msg)
		if tag < 0 || num > protowire.MaxValidNumber {
			return errNotWellFormed
		}
		n := protowire.ConsumeFieldValue(num, typ, msg[tag:])
		if n < 0 {
			return errNotWellFormed
		}
		if typ == protowire.BytesType {
			sub, _ := protowire.ConsumeBytes(msg[tag : tag+n])
			if err := do(num, sub); err != nil {
				return err
			}
		}
		msg = msg[tag+n:]
	}
	return nil
}
