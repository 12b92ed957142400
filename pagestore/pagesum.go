package pagestore

import (
	"github.com/cespare/xxhash/v2"
)

// pageSum verifies every page of a segment as a manifest names it, in order, and
// computes the checksum of all of them. The pages are given one by one, or as
// their bytes come, in pieces of any size.
type pageSum struct {
	e       segmentEntry
	at      place // of the next page
	records uint64
	raw     xxhash.Digest
	rest    []byte // the beginning of a page, at most maxJumboBytes
	bad     error  // the first; then only the checksum counts
}

func newPageSum(at place, e segmentEntry) *pageSum {
	s := &pageSum{e: e, at: at}
	s.raw.Reset()
	return s
}

// page takes the next page, which has been verified by itself.
func (s *pageSum) page(page []byte, h pageHeader) error {
	start := s.at
	s.at.off += int64(len(page))
	isHints := h.kind == kindHints
	if isHints != (start.off >= s.e.end) || !isHints && s.at.off > s.e.end {
		return start.corrupt("page is of the wrong kind for its place", uint64(s.e.end), uint64(h.kind))
	}
	if !isHints {
		s.records += uint64(h.records)
	}
	return nil
}

// add takes the next bytes.
func (s *pageSum) add(p []byte) {
	s.raw.Write(p)
	for len(p) > 0 && s.bad == nil {
		if len(s.rest) == 0 {
			n, err := s.first(p)
			if s.bad = err; n > 0 || err != nil {
				p = p[n:]
				continue
			}
		}
		// A page that is not all in p goes on behind what is there of it.
		take := min(s.missing(), len(p))
		s.rest = append(s.rest, p[:take]...)
		p = p[take:]
		n, err := s.first(s.rest)
		if s.bad = err; n > 0 {
			s.rest = s.rest[:0]
		}
	}
}

// missing is how much more of a page must come before something can be said of it.
func (s *pageSum) missing() int {
	if len(s.rest) < pageHeadBytes {
		return pageHeadBytes - len(s.rest)
	}
	length, _ := pageLength(s.rest, s.at, s.room()) // it was seen to be right
	return int(length) - len(s.rest)
}

func (s *pageSum) room() int64 { return min(s.e.fileEnd()-s.at.off, maxJumboBytes) }

// first takes the page at the front of b and returns its length, 0 if it is not
// all there.
func (s *pageSum) first(b []byte) (int, error) {
	if len(b) < pageHeadBytes {
		return 0, nil
	}
	length, err := pageLength(b, s.at, s.room())
	if err != nil || int64(len(b)) < length {
		return 0, err
	}
	h, err := verifyPage(b[:length], s.at)
	if err == nil {
		err = s.page(b[:length], h)
	}
	return int(length), err
}

// end returns the checksum, when everything has been given.
func (s *pageSum) end() (uint64, error) {
	sum := s.raw.Sum64()
	switch {
	case s.bad != nil:
		return sum, s.bad
	case len(s.rest) > 0 || s.at.off != s.e.fileEnd():
		return sum, s.at.corrupt("segment ends inside a page", uint64(s.e.fileEnd()), uint64(s.at.off))
	case s.records != s.e.records:
		return sum, s.at.corrupt("another number of records than the checkpoint has", s.e.records, s.records)
	}
	return sum, nil
}
