package pagestore

import "fmt"

// Ref says where a record lies: segment, 4 KiB unit of its page's start and
// offset within the page. 0 is no record. The bits from RefBits up are 0 in
// every Ref that the store hands out and ignored in every Ref that it is given,
// so that a caller can keep flags there.
//
//	bits  0–13  byte offset of the record within its page
//	bits 14–29  page start in the segment file, in units of 4 KiB
//	bits 30–55  segment id, from 1
type Ref uint64

const (
	offsetBits  = 14
	pageBits    = 16
	segmentBits = 26

	// RefBits is how many low bits of a Ref the store uses.
	RefBits = offsetBits + pageBits + segmentBits
	// RefMask has those bits set.
	RefMask = Ref(1)<<RefBits - 1
)

// segmentID names a segment file. It is used again only after all 2^26 have
// been used, and never for two segments that exist at once; the epoch tells
// two segments of one id apart.
type segmentID uint32

// pageNo is a page's start in its segment file in units of unitBytes.
type pageNo uint32

const (
	maxSegmentID = segmentID(1)<<segmentBits - 1
	maxPageNo    = pageNo(1)<<pageBits - 1
)

func makeRef(id segmentID, page pageNo, off int) Ref {
	return Ref(id)<<(offsetBits+pageBits) | Ref(page)<<offsetBits | Ref(off)
}

func (r Ref) segment() segmentID { return segmentID(r>>(offsetBits+pageBits)) & maxSegmentID }
func (r Ref) page() pageNo       { return pageNo(r>>offsetBits) & maxPageNo }
func (r Ref) offset() int        { return int(r & (1<<offsetBits - 1)) }

// String names the place as the dump command does.
func (r Ref) String() string {
	r &= RefMask
	if r == 0 {
		return "none"
	}
	return fmt.Sprintf("%s+%#x+%d", segmentName(r.segment()), int64(r.page())*unitBytes, r.offset())
}

// Segment returns the id of the segment that the record lies in.
func (r Ref) Segment() uint32 { return uint32(r.segment()) }
