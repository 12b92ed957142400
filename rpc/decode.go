package rpc

import "google.golang.org/protobuf/proto"

// request is a generated request message.
type request interface {
	proto.Message
	UnmarshalVTUnsafe([]byte) error
	MarshalVT() ([]byte, error)
}

// decode reads *wire into r, whose bytes alias it. The fast decoder is stricter than
// protobuf in one point (a known field number with another wire type, which
// protobuf takes for an unknown field) and laxer in two (numbers of more than 64
// bits, groups that end as another). Where that can matter protobuf decides, and
// *wire becomes the encoding of what it understood, because the bytes go on to the
// log.
func decode(wire *[]byte, r request) error {
	if plain(*wire) && r.UnmarshalVTUnsafe(*wire) == nil {
		return nil
	}
	proto.Reset(r)
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

// plain tells whether a message has nothing at its top level that the two decoders
// take differently. It looks at tags and lengths only.
func plain(msg []byte) bool {
	for ok := true; len(msg) > 0; {
		if _, msg, ok = nextField(msg); !ok {
			return false
		}
	}
	return true
}
