package pagestore

import "sync/atomic"

// appender fills pages for one writer: the apply goroutine has one, Reclaim has
// another, and neither waits for the other. Its open page is private to that
// writer, although readers already read from the records in it: they touch only
// bytes written before their Ref was published.
type appender struct {
	s      *Store
	origin origin

	// Owned by the writer.
	seg     *segment // nil: the next page opens one
	open    *frame   // nil: the next record opens one
	used    int      // bytes of open that are taken
	limit   int      // bytes of open that may be taken
	records int
	off     int64 // where the next page goes in seg
	// holding keeps sealed pages back, so that records in them can be made
	// void: held are the pages, ended the segments that end with them.
	holding bool
	held    []*frame
	ended   []*segment
	// taken is used, for Size: the open page counts, too. 0 without one.
	taken atomic.Int64

	// queue holds sealed pages that are not yet written, oldest first. It
	// belongs to Store.mu.
	queue []*frame
}

// alloc makes room for a record of n bytes and returns it, to be filled before
// the next call.
func (a *appender) alloc(n int) (Ref, []byte, error) {
	if n > a.s.opts.MaxRecordBytes {
		return 0, nil, ErrTooLarge
	}
	need := recordBytesOnPage(n)
	if a.open == nil || a.used+need > a.limit {
		if err := a.openPage(need); err != nil {
			return 0, nil, err
		}
	}
	at := a.used
	start := putRecordLength(a.open.data, at, n)
	end := start + n
	a.used = end
	a.taken.Store(int64(end))
	a.records++
	if a.open.head.kind == kindJumbo {
		a.limit = 0 // it stays alone
	}
	return makeRef(a.seg.id, a.open.page(), at), a.open.data[start:end:end], nil
}

// openPage seals the open page and opens one in which need bytes fit.
func (a *appender) openPage(need int) error {
	a.seal()
	if err := a.s.admit(a); err != nil {
		return err
	}
	kind, length := kindRecords, int64(a.s.opts.PageBytes)
	if int64(pageHeadBytes+need) > length {
		kind, length = kindJumbo, roundUp(int64(pageHeadBytes+need))
	}
	if a.seg != nil && a.off > 0 && a.off+length > a.s.opts.SegmentBytes {
		a.roll()
	}
	if a.seg == nil {
		seg, err := a.s.addSegment(a.origin)
		if err != nil {
			return err
		}
		a.seg, a.off = seg, 0
	}
	a.open = &frame{data: make([]byte, length), seg: a.seg, head: pageHeader{
		kind: kind, segment: a.seg.id, off: a.off, epoch: a.seg.epoch,
	}}
	a.used, a.limit, a.records = pageHeadBytes, int(length), 0
	a.seg.slot(a.open.page(), true).Store(a.open)
	return nil
}

// seal ends the open page and gives it to the write behind, which adds the
// checksum: the writer's goroutine is the scarce one.
func (a *appender) seal() {
	f := a.open
	if f == nil {
		return
	}
	f.head.records = uint32(a.records)
	f.head.used = uint32(a.used)
	f.head.length = uint32(roundUp(int64(a.used)))
	a.off += int64(f.head.length)
	a.open = nil
	a.taken.Store(0)
	if a.holding {
		a.held = append(a.held, f)
		return
	}
	a.pass(f)
}

// pass gives a sealed page, which will not change any more, to the write behind.
func (a *appender) pass(f *frame) {
	content := int64(f.head.used - pageHeadBytes)
	if f.head.kind != kindJumbo {
		f.seg.tally.add(int64(f.head.records), content)
	} else if f.head.records > 0 {
		f.seg.tally.addJumbo(f.page(), content)
	}
	a.s.enqueue(a, f)
}

// roll ends the segment: the next page opens another.
func (a *appender) roll() {
	a.seal()
	if a.seg == nil {
		return
	}
	if a.ended = append(a.ended, a.seg); !a.holding {
		a.endSegments()
	}
	a.seg = nil
}

// endSegments makes it known that nothing more comes into the segments that have
// been rolled.
func (a *appender) endSegments() {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	for _, seg := range a.ended {
		seg.full = true
	}
	a.ended = a.ended[:0]
}

// hold keeps the pages that are sealed from now on back, until release.
func (a *appender) hold() { a.holding = true }

// release gives the pages that were held back to the write behind.
func (a *appender) release() {
	for _, f := range a.held {
		a.pass(f)
	}
	clear(a.held)
	a.held, a.holding = a.held[:0], false
	a.endSegments()
}

// void takes back a record that was appended since hold and that nobody has been
// told of.
func (a *appender) void(ref Ref) {
	if f := a.open; f != nil && f.seg.id == ref.segment() && f.page() == ref.page() {
		makeVoid(f.data, ref.offset())
		a.records--
		return
	}
	for _, f := range a.held {
		if f.seg.id == ref.segment() && f.page() == ref.page() {
			makeVoid(f.data, ref.offset())
			f.head.records--
			return
		}
	}
	panic("pagestore: void record is not held")
}
