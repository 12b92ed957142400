package pagestore

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

const (
	unitBytes     = 4096            // pages start and end on multiples of it
	maxPageBytes  = 1 << offsetBits // of a page with several records
	pageHeadBytes = 48
	pageMagic     = 0x47505551 // "QUPG"
	formatVersion = 1
	maxJumboBytes = recordBytesLimit + 2*unitBytes
)

// pageKind says what a page's content is.
type pageKind uint16

const (
	kindRecords pageKind = 1 // any number of records, at most maxPageBytes
	kindJumbo   pageKind = 2 // one record, any length
	kindHints   pageKind = 3 // part of a segment's hint footer
)

// pageHeader is the decoded head of a page. doc.go has the byte table.
type pageHeader struct {
	kind    pageKind
	segment segmentID
	records uint32
	off     int64
	epoch   uint64
	length  uint32 // of the whole page, a multiple of unitBytes
	used    uint32 // up to the end of the content; the rest is zeroes
}

// place is where a page was written and must be found: a page that was
// written elsewhere or in another life of the segment does not have it.
type place struct {
	file    string
	segment segmentID
	epoch   uint64
	off     int64
}

func (p place) corrupt(reason string, want, got uint64) error {
	return &CorruptError{File: p.file, Off: p.off, Reason: reason, Want: want, Got: got}
}

func roundUp(n int64) int64 { return (n + unitBytes - 1) &^ (unitBytes - 1) }

// encodePage writes h and the checksum to the head of page, whose length is
// h.length.
func encodePage(page []byte, h pageHeader) {
	le := binary.LittleEndian
	le.PutUint32(page[8:], pageMagic)
	le.PutUint16(page[12:], formatVersion)
	le.PutUint16(page[14:], uint16(h.kind))
	le.PutUint32(page[16:], uint32(h.segment))
	le.PutUint32(page[20:], h.records)
	le.PutUint64(page[24:], uint64(h.off))
	le.PutUint64(page[32:], h.epoch)
	le.PutUint32(page[40:], h.length)
	le.PutUint32(page[44:], h.used)
	le.PutUint64(page, xxhash.Sum64(page[8:]))
}

// pageLength returns the length that the head of a page claims, which is not
// verified yet but sane: a multiple of unitBytes up to limit.
func pageLength(head []byte, at place, limit int64) (int64, error) {
	if len(head) < pageHeadBytes {
		return 0, at.corrupt("file ends inside a page head", pageHeadBytes, uint64(len(head)))
	}
	if magic := binary.LittleEndian.Uint32(head[8:]); magic != pageMagic {
		return 0, at.corrupt("no page magic", pageMagic, uint64(magic))
	}
	length := int64(binary.LittleEndian.Uint32(head[40:]))
	if length < unitBytes || length%unitBytes != 0 || length > limit {
		return 0, at.corrupt("impossible page length", uint64(limit), uint64(length))
	}
	return length, nil
}

// verifyPage checks everything that a page says of itself: checksum, version
// and place. page is exactly as long as pageLength said.
func verifyPage(page []byte, at place) (pageHeader, error) {
	le := binary.LittleEndian
	if want, got := le.Uint64(page), xxhash.Sum64(page[8:]); want != got {
		return pageHeader{}, at.corrupt("page checksum differs", want, got)
	}
	if v := le.Uint16(page[12:]); v != formatVersion {
		return pageHeader{}, &VersionError{File: at.file, Version: int(v), Reads: formatVersion}
	}
	h := pageHeader{
		kind:    pageKind(le.Uint16(page[14:])),
		segment: segmentID(le.Uint32(page[16:])),
		records: le.Uint32(page[20:]),
		off:     int64(le.Uint64(page[24:])),
		epoch:   le.Uint64(page[32:]),
		length:  le.Uint32(page[40:]),
		used:    le.Uint32(page[44:]),
	}
	switch {
	case h.segment != at.segment:
		return h, at.corrupt("page of another segment (misdirected write)", uint64(at.segment), uint64(h.segment))
	case h.off != at.off:
		return h, at.corrupt("page of another offset (misdirected write)", uint64(at.off), uint64(h.off))
	case h.epoch != at.epoch:
		return h, at.corrupt("page of another epoch (stale)", at.epoch, h.epoch)
	case h.used < pageHeadBytes || h.used > h.length || int(h.length) != len(page):
		return h, at.corrupt("page head contradicts itself", uint64(h.length), uint64(h.used))
	}
	return h, nil
}

// A record on a page is a uvarint, of twice its length plus voidRecord, and its
// bytes.
//
// A void record is a copy that Reclaim made and that the owner did not take,
// because the record had died meanwhile. It is marked before its page is given to
// the write behind; nothing refers to it, and nobody must take it for a record
// that was once alive in this place.
const voidRecord = 1

// recordBytesOnPage is what a record of n bytes takes.
func recordBytesOnPage(n int) int {
	return uvarintBytes(uint64(n)<<1) + n
}

func uvarintBytes(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}

// putRecordLength begins a record and returns where its bytes go.
func putRecordLength(page []byte, off, n int) int {
	return off + binary.PutUvarint(page[off:], uint64(n)<<1)
}

// makeVoid marks the record at off.
func makeVoid(page []byte, off int) { page[off] |= voidRecord }

// recordAt returns the record that begins at off, and where it ends; 0 if there
// is none that fits. The slice's capacity ends with it.
func recordAt(page []byte, off int) (rec []byte, end int, void bool) {
	if off < pageHeadBytes || off >= len(page) {
		return nil, 0, false
	}
	v, k := binary.Uvarint(page[off:])
	n := v >> 1
	if k <= 0 || n > uint64(len(page)-off-k) {
		return nil, 0, false
	}
	start := off + k
	end = start + int(n)
	return page[start:end:end], end, v&voidRecord != 0
}

// eachRecord calls fn with every record of a verified page, in order, but for
// the void ones.
func eachRecord(page []byte, h pageHeader, at place, fn func(off int, rec []byte) error) error {
	content, off, n := page[:h.used], pageHeadBytes, uint32(0)
	for off < len(content) {
		rec, end, void := recordAt(content, off)
		if end == 0 {
			return at.corrupt("record overruns its page", uint64(h.used), uint64(off))
		}
		if !void {
			n++
			if err := fn(off, rec); err != nil {
				return err
			}
		}
		off = end
	}
	if n != h.records {
		return at.corrupt("another number of records than the page head has", uint64(h.records), uint64(n))
	}
	return nil
}
