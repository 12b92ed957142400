package rpc

import "google.golang.org/protobuf/proto"

// request is a generated request message.
type request interface {
	proto.Message
	UnmarshalVTUnsafe([]byte) error
	MarshalVT() ([]byte, error)
}

// decode reads *wire into r, whose bytes alias it. The fast decoder refuses a known
// field number that comes with another wire type, which protobuf takes for an
// unknown field; then protobuf decides, and *wire becomes the encoding of what it
// understood, because the bytes go on to the log.
func decode(wire *[]byte, r request) error {
	if r.UnmarshalVTUnsafe(*wire) == nil {
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
