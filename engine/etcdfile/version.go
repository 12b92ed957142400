package etcdfile

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Version is one record of the bucket "key": one change of one key.
type Version struct {
	Main, Sub int64
	Tombstone bool
	// KV is the wire encoding of mvccpb.KeyValue; of a tombstone it has the key
	// only, and of a raised revision it is empty.
	KV []byte
}

// KeyValue is a decoded Version. The slices alias Version.KV.
type KeyValue struct {
	Key, Value                  []byte
	Create, Mod, Version, Lease int64
}

const (
	revisionBytes = 17
	markedBytes   = 18
	markTombstone = 't'
)

// AppendKey appends the bucket key of v.
func (v *Version) AppendKey(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.Main))
	dst = append(dst, '_')
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.Sub))
	if v.Tombstone {
		dst = append(dst, markTombstone)
	}
	return dst
}

// parseRevision is the inverse of AppendKey.
func parseRevision(key []byte) (v Version, err error) {
	if len(key) != revisionBytes && len(key) != markedBytes {
		return v, fmt.Errorf("revision of %d bytes", len(key))
	}
	v.Main, v.Sub = int64(binary.BigEndian.Uint64(key)), int64(binary.BigEndian.Uint64(key[9:]))
	v.Tombstone = len(key) == markedBytes
	if key[8] != '_' || v.Main < 0 || v.Sub < 0 || v.Tombstone && key[revisionBytes] != markTombstone {
		return v, fmt.Errorf("revision %q", key)
	}
	return v, nil
}

// after tells whether v is later than w.
func (v *Version) after(w *Version) bool {
	return v.Main > w.Main || v.Main == w.Main && v.Sub > w.Sub
}

// Decode reads v.KV and checks it against the revision. It accepts only what
// etcd writes, byte for byte: hashes go over the encoding.
func (v *Version) Decode() (kv KeyValue, err error) {
	if err = kv.parse(v.KV); err == nil {
		err = v.check(&kv)
	}
	if err != nil {
		err = fmt.Errorf("revision %d.%d: %w", v.Main, v.Sub, err)
	}
	return kv, err
}

func (v *Version) check(kv *KeyValue) error {
	switch {
	case v.IsRaised():
		return nil
	case len(kv.Key) == 0:
		return errors.New("no key")
	case kv.size() != len(v.KV):
		return errors.New("the record is not encoded as etcd does")
	case v.Tombstone && (&KeyValue{Key: kv.Key}).size() != len(v.KV):
		return errors.New("a tombstone with more than a key")
	case !v.Tombstone && (kv.Mod != v.Main || kv.Create < 1 || kv.Create > kv.Mod || kv.Version < 1):
		return fmt.Errorf("mod revision %d, create revision %d, version %d", kv.Mod, kv.Create, kv.Version)
	}
	return nil
}

// IsRaised tells whether v is the record that a restore with a raised revision
// leaves.
func (v *Version) IsRaised() bool { return len(v.KV) == 0 && !v.Tombstone }

// size is the length of the encoding in which every integer takes as few bytes
// as possible and zero fields are left out. An encoding with rising fields that
// has this length is that one.
func (kv *KeyValue) size() (n int) {
	for _, b := range [][]byte{kv.Key, kv.Value} {
		if len(b) > 0 {
			n += 1 + protowire.SizeBytes(len(b))
		}
	}
	for _, i := range []int64{kv.Create, kv.Mod, kv.Version, kv.Lease} {
		if i != 0 {
			n += 1 + protowire.SizeVarint(uint64(i))
		}
	}
	return n
}

// parse reads fields in rising order, each at most once.
func (kv *KeyValue) parse(b []byte) error {
	*kv = KeyValue{}
	ints := [...]*int64{2: &kv.Create, 3: &kv.Mod, 4: &kv.Version, 6: &kv.Lease}
	last := protowire.Number(0)
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if num <= last || num > 6 {
			return fmt.Errorf("field %d behind field %d", num, last)
		}
		last, b = num, b[n:]
		switch {
		case typ == protowire.BytesType && (num == 1 || num == 5):
			p, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			if b = b[n:]; num == 1 {
				kv.Key = p
			} else {
				kv.Value = p
			}
		case typ == protowire.VarintType && num != 1 && num != 5:
			u, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			*ints[num] = int64(u)
		default:
			return fmt.Errorf("field %d has wire type %d", num, typ)
		}
	}
	return nil
}
