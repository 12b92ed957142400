package engine

import (
	"encoding/binary"
	"fmt"
)

// A record is what the page store keeps for one event: a prefix, then the wire
// encoding of mvccpb.KeyValue exactly as RangeResponse.kvs and Event.kv carry it.
//
//	uvarint  sub<<1 | tombstone   sub: place of the event within its revision
//	bytes    KeyValue             of a tombstone: key and mod_revision only
//
// A Range or a watch therefore copies stored bytes and never encodes a value.

// Field tags of mvccpb.KeyValue.
const (
	tagKey     = 1<<3 | 2
	tagCreate  = 2 << 3
	tagMod     = 3 << 3
	tagVersion = 4 << 3
	tagValue   = 5<<3 | 2
	tagLease   = 6 << 3
)

// keyValue is a decoded record; the slices alias it.
type keyValue struct {
	key, value           []byte
	create, mod, version int64
	lease                int64
	sub                  int64
	tombstone            bool
}

// appendRecord encodes kv behind dst.
func appendRecord(dst []byte, kv *keyValue) []byte {
	p := uint64(kv.sub) << 1
	if kv.tombstone {
		p |= 1
	}
	dst = binary.AppendUvarint(dst, p)
	dst = append(dst, tagKey)
	dst = binary.AppendUvarint(dst, uint64(len(kv.key)))
	dst = append(dst, kv.key...)
	dst = appendInt(dst, tagCreate, kv.create)
	dst = appendInt(dst, tagMod, kv.mod)
	dst = appendInt(dst, tagVersion, kv.version)
	dst = appendBytes(dst, tagValue, kv.value)
	return appendInt(dst, tagLease, kv.lease)
}

// appendInt appends a varint field; zero is left out, as proto3 does.
func appendInt(dst []byte, tag byte, v int64) []byte {
	if v == 0 {
		return dst
	}
	return binary.AppendUvarint(append(dst, tag), uint64(v))
}

// appendBytes appends a length-delimited field; empty is left out.
func appendBytes(dst []byte, tag byte, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	return appendMessage(dst, tag, b)
}

// appendMessage appends a length-delimited field even when it is empty.
func appendMessage(dst []byte, tag byte, b []byte) []byte {
	dst = binary.AppendUvarint(append(dst, tag), uint64(len(b)))
	return append(dst, b...)
}

// wireKV returns the KeyValue bytes of a record.
func wireKV(rec []byte) []byte {
	_, n := binary.Uvarint(rec)
	if n <= 0 {
		return nil
	}
	return rec[n:]
}

// decodeRecord reads a record; the result aliases it.
func decodeRecord(rec []byte, kv *keyValue) error {
	p, n := binary.Uvarint(rec)
	if n <= 0 {
		return fmt.Errorf("engine: record of %d bytes has no prefix", len(rec))
	}
	*kv = keyValue{sub: int64(p >> 1), tombstone: p&1 != 0}
	return decodeKV(rec[n:], kv)
}

// decodeKV reads the wire encoding of a KeyValue that appendRecord wrote.
func decodeKV(b []byte, kv *keyValue) error {
	for i := 0; i < len(b); {
		tag := b[i]
		v, n := binary.Uvarint(b[i+1:])
		if n <= 0 {
			return fmt.Errorf("engine: record field %d at byte %d is cut", tag>>3, i)
		}
		i += 1 + n
		if tag&7 == 2 {
			if v > uint64(len(b)-i) {
				return fmt.Errorf("engine: record field %d of %d bytes exceeds the record", tag>>3, v)
			}
			if tag == tagKey {
				kv.key = b[i : i+int(v)]
			} else {
				kv.value = b[i : i+int(v)]
			}
			i += int(v)
			continue
		}
		switch tag {
		case tagCreate:
			kv.create = int64(v)
		case tagMod:
			kv.mod = int64(v)
		case tagVersion:
			kv.version = int64(v)
		case tagLease:
			kv.lease = int64(v)
		default:
			return fmt.Errorf("engine: record has unknown field tag %#x at byte %d", tag, i)
		}
	}
	return nil
}

// keyOf returns the key of KeyValue bytes: it is always the first field.
func keyOf(kv []byte) []byte {
	if len(kv) < 2 {
		return nil
	}
	n, w := binary.Uvarint(kv[1:])
	return kv[1+w : 1+w+int(n)]
}

// keyOnly returns the KeyValue bytes in front of the value: what a keys_only
// answer carries (etcd 3.7 leaves the lease out too).
func keyOnly(kv []byte) []byte {
	n, w := binary.Uvarint(kv[1:])
	i := 1 + w + int(n)
	for i < len(kv) && kv[i] != tagValue && kv[i] != tagLease {
		_, w := binary.Uvarint(kv[i+1:])
		i += 1 + w
	}
	return kv[:i]
}

// hint is what rebuilding the index needs of a record.
func appendHint(dst []byte, kv *keyValue) []byte {
	p := uint64(kv.sub) << 1
	if kv.tombstone {
		p |= 1
	}
	dst = binary.AppendUvarint(dst, p)
	dst = binary.AppendUvarint(dst, uint64(kv.mod))
	dst = binary.AppendUvarint(dst, uint64(kv.create))
	dst = binary.AppendUvarint(dst, uint64(kv.version))
	dst = binary.AppendUvarint(dst, uint64(kv.lease))
	return append(dst, kv.key...)
}

// decodeHint is the inverse of appendHint; the key aliases hint.
func decodeHint(hint []byte, kv *keyValue) error {
	var f [5]uint64
	for i := range f {
		v, n := binary.Uvarint(hint)
		if n <= 0 {
			return fmt.Errorf("engine: hint is cut in field %d", i)
		}
		f[i], hint = v, hint[n:]
	}
	*kv = keyValue{sub: int64(f[0] >> 1), tombstone: f[0]&1 != 0, mod: int64(f[1]),
		create: int64(f[2]), version: int64(f[3]), lease: int64(f[4]), key: hint}
	return nil
}
