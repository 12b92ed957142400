package pagestore

import "fmt"

// Read returns the record at ref. The bytes are immutable and stay valid for as
// long as the caller holds them; their capacity ends with them. They come from a
// page that was checked when it was loaded from the disk, or that this process
// wrote. Any goroutine.
//
// It fails with a *CorruptError for a damaged page, with the disk's error for one
// that cannot be read, and with ErrGone when the record was moved by Reclaim
// since ref was looked up: without a Pin that is possible, if very unlikely.
func (s *Store) Read(ref Ref) ([]byte, error) {
	seg := s.segment(ref.segment())
	if seg == nil {
		return nil, s.missing(ref)
	}
	f := seg.frame(ref.page())
	if f == nil {
		var err error
		if f, err = s.load(seg, ref.page()); err != nil {
			return nil, s.noteDamage(fmt.Errorf("read %v: %w", ref, err))
		}
	} else if !f.touched.Load() { // a plain store each time would bounce the line
		f.touched.Store(true)
	}
	rec, end, void := recordAt(f.data, ref.offset())
	if end == 0 || void {
		return nil, fmt.Errorf("%w: %v", ErrBadRef, ref)
	}
	return rec, nil
}

// missing tells why there is no segment for a Ref.
func (s *Store) missing(ref Ref) error {
	switch {
	case s.failure() == ErrClosed:
		return ErrClosed
	case ref&RefMask == 0:
		return fmt.Errorf("%w: none", ErrBadRef)
	}
	return fmt.Errorf("%w: %v", ErrGone, ref)
}

// load reads a page from the disk into the cache. Two that load the same page
// both read it; one frame stays.
func (s *Store) load(seg *segment, n pageNo) (*frame, error) {
	cell := seg.slot(n, true)
	if cell == nil {
		return nil, ErrBadRef
	}
	f, err := s.fetch(seg, n)
	if err != nil {
		return nil, err
	}
	for !cell.CompareAndSwap(nil, f) {
		if other := cell.Load(); other != nil {
			return other, nil
		}
	}
	s.cache.add(f)
	return f, nil
}

// fetch reads and verifies a page of records from the disk.
func (s *Store) fetch(seg *segment, n pageNo) (*frame, error) {
	if !seg.acquire() {
		return nil, ErrGone
	}
	defer seg.release()
	at := seg.at(int64(n) * unitBytes)
	room := seg.flushed.Load() - at.off
	if room < unitBytes {
		return nil, ErrBadRef
	}
	page := make([]byte, min(int64(s.opts.PageBytes), room)) // mostly the whole page
	if err := seg.readAt(page, at.off); err != nil {
		return nil, err
	}
	length, err := pageLength(page, at, min(room, maxJumboBytes))
	if err != nil {
		return nil, err
	}
	page, err = seg.resize(page, length, at)
	if err != nil {
		return nil, err
	}
	h, err := verifyPage(page, at)
	if err != nil {
		return nil, err
	}
	if h.kind != kindRecords && h.kind != kindJumbo {
		return nil, at.corrupt("not a page of records", uint64(kindRecords), uint64(h.kind))
	}
	s.counters.loads.Add(1)
	s.counters.loadBytes.Add(uint64(length))
	return &frame{data: page, seg: seg, head: h}, nil
}

// resize returns a page of its true length: cut, and then copied so as not to
// keep the rest alive, or with what is missing read.
func (g *segment) resize(page []byte, length int64, at place) ([]byte, error) {
	have := int64(len(page))
	switch {
	case length == have:
		return page, nil
	case length < have:
		return append(make([]byte, 0, length), page[:length]...), nil
	}
	whole := make([]byte, length)
	copy(whole, page)
	return whole, g.readAt(whole[have:], at.off+have)
}
