package rpc

import "google.golang.org/protobuf/encoding/protowire"

// header encodes the ResponseHeader that every response carries as its field
// 1: cluster_id, member_id, revision, raft_term. Zero fields are left out, as
// protobuf's own encoders do.
type header struct {
	ids  []byte // encoded cluster_id and member_id, which never change
	term func() uint64
}

func newHeader(clusterID, memberID uint64, term func() uint64) header {
	var b []byte
	b = appendUint(b, 1, clusterID)
	b = appendUint(b, 2, memberID)
	return header{ids: b, term: term}
}

func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// append appends the header as field 1 of a response.
func (h *header) append(dst []byte, rev int64) []byte {
	at := len(dst)
	dst = append(dst, 0x0a, 0) // the content is at most 44 bytes: one length byte
	dst = h.appendBody(dst, rev)
	dst[at+1] = byte(len(dst) - at - 2)
	return dst
}

// appendBody appends the header's content.
func (h *header) appendBody(dst []byte, rev int64) []byte {
	dst = append(dst, h.ids...)
	dst = appendUint(dst, 3, uint64(rev))
	return appendUint(dst, 4, h.term())
}

// putBefore writes the header into the reserved bytes that end at b[end] and
// returns where it starts.
func (h *header) putBefore(b []byte, end int, rev int64) int {
	var buf [headerRoom]byte
	hdr := h.append(buf[:0], rev)
	at := end - len(hdr)
	copy(b[at:end], hdr)
	return at
}
