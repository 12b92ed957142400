package pagestore

import (
	"encoding/binary"
	"io"

	"quire/disk"
)

// A hint footer is a run of pages of kindHints behind the last page of records.
// Each begins with the place where the records end, so that a page of an
// earlier footer, written before the segment was cut back, does not fit in.
const (
	hintHeadBytes = pageHeadBytes + 8
	hintPageBytes = 256 << 10 // a page is closed when it has grown past this
)

// hintWriter writes a footer page by page.
type hintWriter struct {
	file disk.File
	at   place // of the page being filled
	end  int64 // where the records end
	buf  []byte
	n    uint32
	prev pageNo
}

func newHintWriter(file disk.File, at place) *hintWriter {
	w := &hintWriter{file: file, at: at, end: at.off}
	w.reset()
	return w
}

func (w *hintWriter) reset() {
	w.buf = append(w.buf[:0], make([]byte, hintHeadBytes)...)
	binary.LittleEndian.PutUint64(w.buf[pageHeadBytes:], uint64(w.end))
	w.n, w.prev = 0, 0
}

func (w *hintWriter) add(l located) error {
	w.buf = binary.AppendUvarint(w.buf, uint64(l.ref.page()-w.prev))
	w.buf = binary.AppendUvarint(w.buf, uint64(l.ref.offset()))
	size := uint64(l.bytes) << 1
	if l.jumbo {
		size |= 1
	}
	w.buf = binary.AppendUvarint(w.buf, size)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(l.hint)))
	w.buf = append(w.buf, l.hint...)
	w.prev = l.ref.page()
	w.n++
	if len(w.buf) >= hintPageBytes {
		return w.flush()
	}
	return nil
}

// finish writes what is left. A footer has at least one page, even when all
// records are void.
func (w *hintWriter) finish() error {
	if w.n == 0 && w.at.off > w.end {
		return nil
	}
	return w.flush()
}

// flush writes the page being filled.
func (w *hintWriter) flush() error {
	used := len(w.buf)
	length := roundUp(int64(used))
	w.buf = append(w.buf, make([]byte, length-int64(used))...)
	encodePage(w.buf, pageHeader{
		kind: kindHints, segment: w.at.segment, records: w.n, off: w.at.off,
		epoch: w.at.epoch, length: uint32(length), used: uint32(used),
	})
	if err := w.file.WriteAt(w.buf, w.at.off); err != nil {
		return err
	}
	w.at.off += length
	w.reset()
	return nil
}

// eachInFooter calls fn for each entry of the footer that lies between dataEnd,
// where at points, and footerEnd, and returns the number of entries.
func eachInFooter(file disk.File, at place, footerEnd int64, fn func(located) error) (uint64, error) {
	dataEnd := at.off
	r := pageReader{file: file, at: at, end: footerEnd}
	entries := uint64(0)
	for {
		start := r.at
		page, h, err := r.next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return entries, err
		}
		n, err := decodeHints(page, h, start, dataEnd, fn)
		entries += n
		if err != nil {
			return entries, err
		}
	}
}

// decodeHints calls fn for each entry of one verified footer page.
func decodeHints(page []byte, h pageHeader, at place, dataEnd int64, fn func(located) error) (uint64, error) {
	if h.kind != kindHints {
		return 0, at.corrupt("not a page of hints", uint64(kindHints), uint64(h.kind))
	}
	if h.used < hintHeadBytes {
		return 0, at.corrupt("footer page too short", hintHeadBytes, uint64(h.used))
	}
	if end := binary.LittleEndian.Uint64(page[pageHeadBytes:]); end != uint64(dataEnd) {
		return 0, at.corrupt("footer page of another length of the segment", uint64(dataEnd), end)
	}
	d := fields{rest: page[hintHeadBytes:h.used]}
	prev := uint64(0)
	for i := uint64(0); i < uint64(h.records); i++ {
		prev += d.uvarint()
		off, size := d.uvarint(), d.uvarint()
		hint := d.bytes(d.uvarint())
		if d.bad || prev*unitBytes >= uint64(dataEnd) || prev > uint64(maxPageNo) || off < pageHeadBytes || off >= 1<<offsetBits || size>>1 > recordBytesLimit {
			return i, at.corrupt("impossible footer entry", uint64(h.records), i)
		}
		ref := makeRef(at.segment, pageNo(prev), int(off))
		if err := fn(located{spot{ref, int(size >> 1), size&1 == 1}, hint}); err != nil {
			return i, err
		}
	}
	if len(d.rest) != 0 {
		return uint64(h.records), at.corrupt("footer page has a remainder", 0, uint64(len(d.rest)))
	}
	return uint64(h.records), nil
}

// fields takes a byte string apart; after the first fault it is bad and gives
// zeroes.
type fields struct {
	rest []byte
	bad  bool
}

func (d *fields) uvarint() uint64 {
	v, k := binary.Uvarint(d.rest)
	if k <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[k:]
	return v
}

func (d *fields) bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// padded returns n bytes and passes the zeroes up to a multiple of 8.
func (d *fields) padded(n uint64) []byte {
	b := d.bytes(n)
	d.bytes(-n & 7)
	return b
}
