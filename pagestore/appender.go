package pagestore

import (
	"encoding/binary"
	"sync/atomic"
)

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
	start := at + binary.PutUvarint(a.open.data[at:], uint64(n))
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
	if a.records == 0 { // opened, but its first record failed
		panic("pagestore: sealing an empty page")
	}
	f.head.records = uint32(a.records)
	f.head.used = uint32(a.used)
	f.head.length = uint32(roundUp(int64(a.used)))
	a.off += int64(f.head.length)
	a.open = nil
	a.taken.Store(0)
	content := int64(a.used - pageHeadBytes)
	if f.head.kind == kindJumbo {
		a.seg.tally.addJumbo(f.page(), content)
	} else {
		a.seg.tally.add(int64(a.records), content)
	}
	a.s.enqueue(a, f)
}

// roll ends the segment: the next page opens another.
func (a *appender) roll() {
	a.seal()
	if a.seg == nil {
		return
	}
	a.s.mu.Lock()
	a.seg.full = true
	a.s.mu.Unlock()
	a.seg = nil
}
