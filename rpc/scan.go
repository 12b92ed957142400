package rpc

import (
	"google.golang.org/protobuf/encoding/protowire"

	pb "quire/api/etcdserverpb"
)

// The common shapes of the hot requests are scanned in place: for a write the
// raw bytes are what is proposed, so it only has to be validated, and a Range
// has a dozen flat fields. A scan says yes only to what the decoding path
// accepts too; to everything else, valid or not, it says "decode it". Scanned
// transactions have at most one write on each branch and nothing nested, which
// is all that Kubernetes sends. BenchmarkValidate: 170 ns and no allocation
// instead of 680 ns and 11 for a Kubernetes update; 30 ns for a put, of which 10
// are for being as strict as etcd (decode.go).

// field is one field of a scanned message: v for varints, b for bytes.
type field struct {
	num protowire.Number
	typ protowire.Type
	v   uint64
	b   []byte
}

// nextField cuts the next field off msg; ok is false for anything but varints
// and bytes.
func nextField(msg []byte) (f field, rest []byte, ok bool) {
	tag, msg, ok := nextVarint(msg)
	f.num, f.typ = protowire.Number(tag>>3), protowire.Type(tag&7)
	if !ok || tag>>3 == 0 || tag>>3 > 64 {
		return f, nil, false
	}
	f.v, msg, ok = nextVarint(msg)
	switch {
	case !ok:
	case f.typ == protowire.VarintType:
		return f, msg, true
	case f.typ == protowire.BytesType && f.v <= uint64(len(msg)):
		f.b = msg[:f.v]
		return f, msg[f.v:], true
	}
	return f, nil, false
}

// nextVarint cuts a varint off msg, most often of one byte.
func nextVarint(msg []byte) (v uint64, rest []byte, ok bool) {
	if len(msg) > 0 && msg[0] < 0x80 {
		return uint64(msg[0]), msg[1:], true
	}
	v, n := protowire.ConsumeVarint(msg)
	if n < 0 {
		return 0, nil, false
	}
	return v, msg[n:], true
}

// is reports whether the field has this number and type.
func (f *field) is(num protowire.Number, typ protowire.Type) bool {
	return f.num == num && f.typ == typ
}

// scanPut validates a PutRequest; cost is what the quota charges.
func scanPut(msg []byte) (cost int, ok bool) {
	var keyLen, valueLen int
	var lease, ignoreValue, ignoreLease bool
	for len(msg) > 0 {
		f, rest, ok := nextField(msg)
		if !ok {
			return 0, false
		}
		msg = rest
		switch {
		case f.is(1, protowire.BytesType):
			keyLen = len(f.b)
		case f.is(2, protowire.BytesType):
			valueLen = len(f.b)
		case f.is(3, protowire.VarintType):
			lease = f.v != 0
		case f.is(4, protowire.VarintType):
		case f.is(5, protowire.VarintType):
			ignoreValue = f.v != 0
		case f.is(6, protowire.VarintType):
			ignoreLease = f.v != 0
		default:
			return 0, false
		}
	}
	if keyLen == 0 || ignoreValue && valueLen > 0 || ignoreLease && lease {
		return 0, false
	}
	return kvCost + keyLen + valueLen, true
}

// scanDelete validates a DeleteRangeRequest.
func scanDelete(msg []byte) bool {
	keyLen := 0
	for len(msg) > 0 {
		f, rest, ok := nextField(msg)
		if !ok {
			return false
		}
		msg = rest
		switch {
		case f.is(1, protowire.BytesType):
			keyLen = len(f.b)
		case f.is(2, protowire.BytesType), f.is(3, protowire.VarintType):
		default:
			return false
		}
	}
	return keyLen > 0
}

// scanRange validates a RangeRequest inside a transaction.
func scanRange(msg []byte) bool {
	keyLen := 0
	for len(msg) > 0 {
		f, rest, ok := nextField(msg)
		if !ok {
			return false
		}
		msg = rest
		switch {
		case f.is(1, protowire.BytesType):
			keyLen = len(f.b)
		case f.is(2, protowire.BytesType):
		case f.is(5, protowire.VarintType):
			if f.v > uint64(pb.RangeRequest_DESCEND) {
				return false
			}
		case f.is(6, protowire.VarintType):
			if f.v > uint64(pb.RangeRequest_VALUE) {
				return false
			}
		case f.typ == protowire.VarintType && f.num >= 3 && f.num <= 13:
		default:
			return false
		}
	}
	return keyLen > 0
}

// scanRangeInto decodes a RangeRequest of known fields into r, which is empty
// and then points into msg.
func scanRangeInto(r *pb.RangeRequest, msg []byte) bool {
	for len(msg) > 0 {
		f, rest, ok := nextField(msg)
		if !ok {
			return false
		}
		msg = rest
		if f.typ == protowire.BytesType {
			switch f.num {
			case 1:
				r.Key = f.b
			case 2:
				r.RangeEnd = f.b
			default:
				return false
			}
			continue
		}
		switch f.num {
		case 3:
			r.Limit = int64(f.v)
		case 4:
			r.Revision = int64(f.v)
		case 5:
			r.SortOrder = pb.RangeRequest_SortOrder(f.v)
		case 6:
			r.SortTarget = pb.RangeRequest_SortTarget(f.v)
		case 7:
			r.Serializable = f.v != 0
		case 8:
			r.KeysOnly = f.v != 0
		case 9:
			r.CountOnly = f.v != 0
		case 10:
			r.MinModRevision = int64(f.v)
		case 11:
			r.MaxModRevision = int64(f.v)
		case 12:
			r.MinCreateRevision = int64(f.v)
		case 13:
			r.MaxCreateRevision = int64(f.v)
		default:
			return false
		}
	}
	return true
}

// scanCompare validates a Compare.
func scanCompare(msg []byte) bool {
	keyLen := 0
	for len(msg) > 0 {
		f, rest, ok := nextField(msg)
		if !ok {
			return false
		}
		msg = rest
		switch {
		case f.is(3, protowire.BytesType):
			keyLen = len(f.b)
		case f.typ == protowire.BytesType && (f.num == 7 || f.num == 64):
		case f.typ == protowire.VarintType && (f.num <= 2 || f.num >= 4 && f.num <= 6 || f.num == 8):
		default:
			return false
		}
	}
	return keyLen > 0
}

// branch is what one branch of a scanned transaction does.
type branch struct{ ops, writes, cost int }

// scan adds one RequestOp.
func (b *branch) scan(msg []byte) bool {
	f, rest, ok := nextField(msg)
	if !ok || len(rest) > 0 || f.typ != protowire.BytesType {
		return false
	}
	b.ops++
	switch f.num {
	case 1:
		return scanRange(f.b)
	case 2:
		cost, ok := scanPut(f.b)
		b.writes++
		b.cost += cost
		return ok
	case 3:
		b.writes++
		return scanDelete(f.b)
	}
	return false
}

// scanTxn validates a TxnRequest with at least one write and at most one on
// each branch.
func scanTxn(msg []byte, maxOps int) (cost int, ok bool) {
	var success, failure branch
	compares := 0
	for len(msg) > 0 {
		f, rest, ok := nextField(msg)
		if !ok || f.typ != protowire.BytesType {
			return 0, false
		}
		msg = rest
		switch f.num {
		case 1:
			compares++
			ok = scanCompare(f.b)
		case 2:
			ok = success.scan(f.b)
		case 3:
			ok = failure.scan(f.b)
		default:
			ok = false
		}
		if !ok {
			return 0, false
		}
	}
	if max(compares, success.ops, failure.ops) > maxOps || success.writes > 1 || failure.writes > 1 || success.writes+failure.writes == 0 {
		return 0, false
	}
	return max(success.cost, failure.cost), true
}
