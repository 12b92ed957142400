package pagestore

import (
	"io"

	"quire/disk"
)

// walkBytes is how much a sequential reader asks the disk for at once.
const walkBytes = 1 << 20

// pageReader reads the pages of one stretch of a segment file in order,
// verifying each. It goes past the cache.
type pageReader struct {
	file disk.File
	at   place // of the next page
	end  int64
	buf  []byte // of the file, from bufAt on
	from int64
}

// next returns the next page, valid until the call after; io.EOF at the end.
func (r *pageReader) next() ([]byte, pageHeader, error) {
	if r.at.off >= r.end {
		return nil, pageHeader{}, io.EOF
	}
	head, err := r.peek(min(unitBytes, r.end-r.at.off))
	if err != nil {
		return nil, pageHeader{}, err
	}
	length, err := pageLength(head, r.at, min(r.end-r.at.off, maxJumboBytes))
	if err != nil {
		return nil, pageHeader{}, err
	}
	page, err := r.peek(length)
	if err != nil {
		return nil, pageHeader{}, err
	}
	h, err := verifyPage(page, r.at)
	if err != nil {
		return nil, h, err
	}
	r.at.off += length
	return page, h, nil
}

// peek returns the next n bytes without passing them.
func (r *pageReader) peek(n int64) ([]byte, error) {
	skip := r.at.off - r.from
	if r.buf == nil || skip+n > int64(len(r.buf)) {
		want := min(max(n, walkBytes), r.end-r.at.off)
		if int64(cap(r.buf)) < want {
			r.buf = make([]byte, want)
		}
		r.buf, r.from, skip = r.buf[:want], r.at.off, 0
		if err := readFull(r.file, r.buf, r.at); err != nil {
			r.buf = nil
			return nil, err
		}
	}
	return r.buf[skip : skip+n : skip+n], nil
}

// located is one record of a segment as start and reclaim see it.
type located struct {
	spot
	hint []byte // valid until the next one
}

// spot is where a record lies and how long it is.
type spot struct {
	ref   Ref
	bytes int
	jumbo bool // alone on its page
}

// eachOnPages calls fn for each record of the first end bytes of a segment, with
// the hint that derive makes of it, and returns the number of records.
func eachOnPages(file disk.File, at place, end int64, derive func(dst, rec []byte) []byte, fn func(located) error) (uint64, error) {
	r := pageReader{file: file, at: at, end: end}
	var hint []byte
	records := uint64(0)
	for {
		start := r.at
		page, h, err := r.next()
		if err == io.EOF {
			return records, nil
		}
		if err != nil {
			return records, err
		}
		if h.kind != kindRecords && h.kind != kindJumbo {
			return records, start.corrupt("not a page of records", uint64(kindRecords), uint64(h.kind))
		}
		err = eachRecord(page, h, start, func(off int, rec []byte) error {
			records++
			hint = derive(hint[:0], rec)
			ref := makeRef(at.segment, pageNo(start.off/unitBytes), off)
			return fn(located{spot{ref, len(rec), h.kind == kindJumbo}, hint})
		})
		if err != nil {
			return records, err
		}
	}
}
