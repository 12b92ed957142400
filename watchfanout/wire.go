package watchfanout

import (
	"encoding/binary"
	"math/bits"
)

// Field tags of etcdserverpb.WatchResponse and mvccpb.Event (field<<3 | wire type).
const (
	tagHeader          = 1<<3 | 2
	tagWatchID         = 2 << 3
	tagCreated         = 3 << 3
	tagCanceled        = 4 << 3
	tagCompactRevision = 5 << 3
	tagCancelReason    = 6<<3 | 2
	tagFragment        = 7 << 3
	tagEvent           = 11<<3 | 2

	tagEventType   = 1 << 3
	tagEventKV     = 2<<3 | 2
	tagEventPrevKV = 3<<3 | 2

	fragmentFieldBytes = 2
)

func uvarintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// eventBodyBytes is the size of the mvccpb.Event message.
func eventBodyBytes(ev *Event, prev bool) int {
	n := 1 + uvarintBytes(uint64(len(ev.KV))) + len(ev.KV)
	if ev.Delete {
		n += 2
	}
	if prev && hasPrev(ev) {
		n += 1 + uvarintBytes(uint64(len(ev.Prev))) + len(ev.Prev)
	}
	return n
}

// eventFieldBytes is the size of what appendEventField appends.
func eventFieldBytes(ev *Event, prev bool) int {
	n := eventBodyBytes(ev, prev)
	return 1 + uvarintBytes(uint64(n)) + n
}

// appendEventField appends the event as a field of WatchResponse.
func appendEventField(dst []byte, ev *Event, prev bool) []byte {
	dst = append(dst, tagEvent)
	dst = binary.AppendUvarint(dst, uint64(eventBodyBytes(ev, prev)))
	if ev.Delete {
		dst = append(dst, tagEventType, 1)
	}
	dst = append(dst, tagEventKV)
	dst = binary.AppendUvarint(dst, uint64(len(ev.KV)))
	dst = append(dst, ev.KV...)
	if prev && hasPrev(ev) {
		dst = append(dst, tagEventPrevKV)
		dst = binary.AppendUvarint(dst, uint64(len(ev.Prev)))
		dst = append(dst, ev.Prev...)
	}
	return dst
}

// watchIDBytes is the size of the watch_id field; proto3 leaves zero out.
func watchIDBytes(id int64) int {
	if id == 0 {
		return 0
	}
	return 1 + uvarintBytes(uint64(id))
}

func appendWatchID(dst []byte, id int64) []byte {
	if id == 0 {
		return dst
	}
	dst = append(dst, tagWatchID)
	return binary.AppendUvarint(dst, uint64(id))
}

// appendHeaderField appends field 1 with the body that header writes for rev.
func appendHeaderField(dst []byte, header func([]byte, int64) []byte, rev int64) []byte {
	// One byte is kept for the length; a header body is some forty bytes
	// long, a longer one is moved by what its length needs.
	dst = append(dst, tagHeader, 0)
	at := len(dst)
	dst = header(dst, rev)
	n := len(dst) - at
	if n < 0x80 {
		dst[at-1] = byte(n)
		return dst
	}
	more := uvarintBytes(uint64(n)) - 1
	dst = append(dst, make([]byte, more)...)
	copy(dst[at+more:], dst[at:at+n])
	binary.PutUvarint(dst[at-1:], uint64(n))
	return dst
}

// revisionHeader is the header of a hub that was given none: the revision alone.
func revisionHeader(dst []byte, rev int64) []byte {
	if rev == 0 {
		return dst
	}
	dst = append(dst, 3<<3)
	return binary.AppendUvarint(dst, uint64(rev))
}
