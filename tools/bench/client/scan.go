package client

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrReply is a reply whose bytes are not the message they should be.
type ErrReply struct {
	Message string // protobuf message that was being read
	Field   protowire.Number
	Err     error
}

func (e *ErrReply) Error() string {
	return fmt.Sprintf("bad %s at field %d: %v", e.Message, e.Field, e.Err)
}

// Unwrap gives the wire format error.
func (e *ErrReply) Unwrap() error { return e.Err }

// field is one field of a message: number holds the value of a varint, bytes
// that of a length-delimited field.
type field struct {
	num    protowire.Number
	number uint64
	bytes  []byte
}

// scan calls visit for every field of a message in order.
func scan(message string, body []byte, visit func(field) error) error {
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return &ErrReply{message, num, protowire.ParseError(n)}
		}
		body = body[n:]
		f := field{num: num}
		switch typ {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(body)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(body)
		default:
			n = protowire.ConsumeFieldValue(num, typ, body)
		}
		if n < 0 {
			return &ErrReply{message, num, protowire.ParseError(n)}
		}
		body = body[n:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

// headerRevision reads ResponseHeader.revision.
func headerRevision(header []byte) (rev int64, err error) {
	err = scan("ResponseHeader", header, func(f field) error {
		if f.num == 3 {
			rev = int64(f.number)
		}
		return nil
	})
	return rev, err
}

// PutReply reads a PutResponse, or any response of which only the header
// matters.
type PutReply struct {
	Revision int64
}

// Decode implements Reply.
func (r *PutReply) Decode(body []byte) error {
	*r = PutReply{}
	return scan("PutResponse", body, func(f field) (err error) {
		if f.num == 1 {
			r.Revision, err = headerRevision(f.bytes)
		}
		return err
	})
}

// RangeReply reads a RangeResponse.
type RangeReply struct {
	Revision int64 // of the header
	Kvs      int   // key-value pairs in the response
	Mod      int64 // mod revision of the first of them
	More     bool
	Count    int64
}

// Decode implements Reply.
func (r *RangeReply) Decode(body []byte) error {
	*r = RangeReply{}
	return scan("RangeResponse", body, func(f field) (err error) {
		switch f.num {
		case 1:
			r.Revision, err = headerRevision(f.bytes)
		case 2:
			if r.Kvs++; r.Kvs == 1 {
				r.Mod, err = modRevision(f.bytes)
			}
		case 3:
			r.More = f.number != 0
		case 4:
			r.Count = int64(f.number)
		}
		return err
	})
}

// modRevision reads KeyValue.mod_revision.
func modRevision(kv []byte) (rev int64, err error) {
	err = scan("KeyValue", kv, func(f field) error {
		if f.num == 3 {
			rev = int64(f.number)
		}
		return nil
	})
	return rev, err
}

// TxnReply reads a TxnResponse whose failure branch is one range.
type TxnReply struct {
	Revision  int64
	Succeeded bool
	Mod       int64 // mod revision of the first pair of the range that failed
}

// Decode implements Reply.
func (r *TxnReply) Decode(body []byte) error {
	*r = TxnReply{}
	return scan("TxnResponse", body, func(f field) (err error) {
		switch f.num {
		case 1:
			r.Revision, err = headerRevision(f.bytes)
		case 2:
			r.Succeeded = f.number != 0
		case 3:
			err = scan("ResponseOp", f.bytes, func(f field) error {
				if f.num != 1 { // only response_range
					return nil
				}
				var inner RangeReply
				if err := inner.Decode(f.bytes); err != nil {
					return err
				}
				r.Mod = inner.Mod
				return nil
			})
		}
		return err
	})
}
