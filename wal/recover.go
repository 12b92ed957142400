package wal

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"

	"quire/disk"
)

// Recovery tells what Open found.
type Recovery struct {
	Fresh    bool // there was no log, one was made
	Clean    bool // the log ends with the mark of a Close, and nothing was cut
	Records  int  // given to replay
	Batches  int
	FirstPos Pos // of the first record, LastPos+1 if there is none
	LastPos  Pos
	Segments int
	// A torn tail, that is writes that were in flight when the log ended:
	// CutBatches pieces of CutBytes in all, as far as they can still be told,
	// from CutOff of CutFile on. They were not acknowledged, unless the last
	// batch was damaged at rest, which looks the same.
	CutBytes   int64
	CutBatches int
	CutFile    string
	CutOff     int64
	// PartialBytes is the length of the beginning of a record whose end is
	// not in the log. It is dropped.
	PartialBytes int64
	Incarnation  uint64 // of the log as it is open now; of its newest batch in Check
	// Doubtful: with Options.CutDamaged an end was cut off that had been written as a
	// whole, now or at an earlier start: records behind DoubtPos may have been durable
	// once. It stays true until the log is trimmed beyond that place.
	Doubtful bool
	DoubtPos Pos
	// EndFile, EndOff and EndBytes are the place of the newest batch that counts.
	EndFile          string
	EndOff, EndBytes int64
}

// chain is what the next batch must agree with: the prefix rule.
type chain struct {
	started     bool // some batch was accepted, or the log begins with segment 1
	logID       uint64
	seq         Seq // of the last batch accepted
	hash        uint64
	incarnation uint64
	pos         Pos // complete records
	durable     Seq // highest durable hint
	flags       uint16
}

// follows tells what in h disagrees with c, nil if h is the next batch. The
// batch has passed its own checks.
func (c *chain) follows(h *batchHeader) *mismatch {
	if !c.started {
		return nil
	}
	incarnation := c.incarnation
	if h.flags&flagOpen != 0 {
		incarnation++
	}
	for _, m := range [...]mismatch{
		{"batch sequence", uint64(c.seq + 1), uint64(h.seq)},
		{"hash of the batch before", c.hash, h.prevHash},
		{"incarnation", incarnation, h.incarnation},
		{"record count", uint64(c.pos), uint64(h.pos)},
	} {
		if m.want != m.got {
			return &m
		}
	}
	return nil
}

// headState tells about the first record of a log whose beginning was trimmed.
type headState uint8

const (
	whole          headState = iota // records begin in the log
	maybeHeadless                   // no frame has been seen yet
	insideHeadless                  // its beginning is gone, its end not yet seen
)

// place is where a batch lies.
type place struct {
	seg       *segment
	off, size int64
	seq       Seq
	hash      uint64
}

type mismatch struct {
	what      string
	want, got uint64
}

// reader walks over a log. It changes nothing.
type reader struct {
	fsys  disk.FS
	segs  []*segment
	chain chain
	rec   Recovery
	visit visitor

	// The beginning of a record whose end has not been seen.
	partial     []byte
	partialOpen bool // partial holds a record's beginning
	headless    headState
	unsure      []place // accepted batches of which no later one tells that they are durable

	buf  []byte // of the segment being read
	base int64  // its offset in the segment
	flat []byte // header and frames of the batch being read, without stamps
	// cutDamaged: a damaged end is cut off like a torn one.
	cutDamaged bool
	cutNow     bool // … by this reader
}

// visitor is called with what the reader accepts; its functions may be nil.
type visitor struct {
	batch  func(seg *segment, off int64, h *batchHeader)
	record func(pos Pos, rec []byte) error
}

// readChunk is the size of one read.
const readChunk = 1 << 20

// newReader lists the segments and checks their names, headers and sizes.
func newReader(fsys disk.FS, visit visitor) (*reader, error) {
	infos, err := fsys.List("")
	if err != nil {
		return nil, err
	}
	r := &reader{fsys: fsys, visit: visit}
	for _, info := range infos {
		if n, ok := parseName(info.Name, segmentSuffix); ok {
			r.segs = append(r.segs, &segment{name: info.Name, number: n, sizeBytes: info.SizeBytes})
		}
	}
	slices.SortFunc(r.segs, func(a, b *segment) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	for i := 1; i < len(r.segs); i++ {
		if want, got := r.segs[i-1].number+1, r.segs[i].number; want != got {
			return nil, &MissingError{File: segmentName(want), Count: got - want}
		}
	}
	// The last one may be of no length: it was never written to.
	if n := len(r.segs); n > 0 && r.segs[n-1].sizeBytes == 0 && (n > 1 || r.segs[0].number == 1) {
		r.segs = r.segs[:n-1]
	}
	for i, seg := range r.segs {
		if err := r.checkHeader(seg, i == 0); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// checkHeader checks the header block of a segment.
func (r *reader) checkHeader(seg *segment, first bool) error {
	bad := func(what string, want, got uint64, reason string) error {
		return &CorruptError{File: seg.name, What: what, Want: want, Got: got, Reason: reason}
	}
	if seg.sizeBytes < blockBytes {
		return bad("file size", blockBytes, uint64(seg.sizeBytes), "a segment gets its name only when it has its full size")
	}
	f, err := r.fsys.Open(seg.name, disk.ReadOnly)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, blockBytes)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	h, err := decodeSegment(seg.name, b)
	if err != nil {
		return err
	}
	if first {
		r.chain.logID = h.logID
	}
	switch {
	case h.number != seg.number:
		return bad("segment number", seg.number, h.number, "the file was given another name")
	case h.logID != r.chain.logID:
		return bad("log identity", r.chain.logID, h.logID, "the segment is of another log")
	case h.sizeBytes != seg.sizeBytes:
		return bad("file size", uint64(h.sizeBytes), uint64(seg.sizeBytes), "the file was cut or extended")
	}
	return nil
}

// run reads the whole log: accepts batches while they follow each other, then
// finds out whether what stopped it is the end, a torn tail or damage. It
// returns the index of the segment and the offset at which the log ends.
func (r *reader) run() (end int, off int64, err error) {
	if len(r.segs) == 0 {
		r.rec.FirstPos = 1
		return 0, 0, nil
	}
	r.chain.started = r.segs[0].number == 1
	if r.chain.started {
		r.chain.hash = genesis(r.chain.logID)
	}
	r.headless = maybeHeadless
	if r.chain.started {
		r.headless = whole
	}
	for i := range r.segs {
		n, next, err := r.readSegment(i)
		if err != nil {
			return 0, 0, err
		}
		if n > 0 || i == 0 {
			end, off = i, next
		}
		if n == 0 { // the log may go on in a later segment only from its first block
			break
		}
	}
	if err := r.judge(end, off); err != nil {
		return 0, 0, err
	}
	r.rec.LastPos = r.chain.pos
	if r.rec.Records == 0 {
		r.rec.FirstPos = r.rec.LastPos + 1
	}
	r.rec.Incarnation = r.chain.incarnation
	r.rec.Segments = end + 1
	r.rec.Clean = r.chain.flags&flagClose != 0 && r.rec.CutBatches == 0
	if r.partialOpen {
		r.rec.PartialBytes = int64(len(r.partial))
	}
	return end, off, nil
}

// genesis stands for the hash of the batch before the first one.
func genesis(logID uint64) uint64 { return ^logID }

// readSegment accepts the batches of segment i that follow the chain. It
// returns how many and where it stopped.
func (r *reader) readSegment(i int) (n int, off int64, err error) {
	seg := r.segs[i]
	f, err := r.fsys.Open(seg.name, disk.ReadOnly)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	r.buf, r.base = r.buf[:0], 0
	for off = blockBytes; off+blockBytes <= seg.sizeBytes; {
		h, payload, bad, err := r.readBatch(f, seg, off, seg.number)
		if err != nil {
			return 0, 0, err
		}
		if bad != nil || r.chain.follows(&h) != nil {
			break
		}
		if err := r.accept(seg, off, &h, payload); err != nil {
			return 0, 0, err
		}
		off += h.size()
		n++
	}
	return n, off, nil
}

// readBatch reads the batch at off and checks it by itself. bad tells the first
// check that failed; h is then what the block holds. epoch is the segment number
// that it must have, 0 for any.
func (r *reader) readBatch(f disk.File, seg *segment, off int64, epoch uint64) (h batchHeader, payload []byte, bad *mismatch, err error) {
	b, err := r.load(f, seg, off, blockBytes)
	if err != nil {
		return h, nil, nil, err
	}
	h, bad = r.checkBatch(seg, off, b)
	if bad == nil && epoch != 0 && h.segment != epoch {
		bad = &mismatch{"segment epoch", epoch, h.segment}
	}
	if bad != nil {
		return h, nil, bad, nil
	}
	if b, err = r.load(f, seg, off, h.size()); err != nil {
		return h, nil, nil, err
	}
	if got := xxhash.Sum64(b[8:h.hashed()]); got != h.hash {
		return h, nil, &mismatch{"batch hash", h.hash, got}, nil
	}
	r.flat = gatherSectors(r.flat[:0], b, headerBytes+int64(h.payload))
	return h, r.flat[headerBytes:], nil, nil
}

// checkBatch checks what a header says by itself, except epoch and hash.
func (r *reader) checkBatch(seg *segment, off int64, b []byte) (batchHeader, *mismatch) {
	h, ok := decodeBatchHeader(b)
	switch {
	case !ok:
		return h, &mismatch{"batch magic and version", batchMagic | formatVersion<<32, le32(b[8:]) | uint64(h.version)<<32}
	case h.logID != r.chain.logID:
		return h, &mismatch{"log identity", r.chain.logID, h.logID}
	case off+h.size() > seg.sizeBytes:
		return h, &mismatch{"batch length", uint64(seg.sizeBytes - off), uint64(h.hashed())}
	}
	return h, nil
}

func le32(b []byte) uint64 {
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24
}

// load returns n bytes at off of the segment, which has them. They are valid
// until the next load.
func (r *reader) load(f disk.File, seg *segment, off, n int64) ([]byte, error) {
	if off >= r.base && off+n <= r.base+int64(len(r.buf)) {
		return r.buf[off-r.base:][:n], nil
	}
	want := min(max(n, readChunk), seg.sizeBytes-off)
	if int64(cap(r.buf)) < want {
		r.buf = make([]byte, want)
	}
	r.buf, r.base = r.buf[:want], off
	if _, err := f.ReadAt(r.buf, off); err != nil {
		r.buf = r.buf[:0]
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%s became shorter while it was read: %w", seg.name, io.ErrUnexpectedEOF)
		}
		return nil, err
	}
	return r.buf[:n], nil
}

// accept takes a batch into the chain and gives its records out.
func (r *reader) accept(seg *segment, off int64, h *batchHeader, payload []byte) error {
	c := &r.chain
	if !c.started {
		c.pos = h.pos
	}
	if r.rec.Batches == 0 {
		r.rec.FirstPos = h.pos + 1
	}
	c.started, c.seq, c.hash, c.incarnation, c.flags = true, h.seq, h.hash, h.incarnation, h.flags
	c.durable = max(c.durable, h.durable)
	r.rec.Batches++
	r.rec.EndFile, r.rec.EndOff, r.rec.EndBytes = seg.name, off, h.size()
	if h.flags&flagCut != 0 {
		r.rec.Doubtful, r.rec.DoubtPos = true, h.pos
	}
	if h.flags&flagOpen != 0 {
		r.partial, r.partialOpen = r.partial[:0], false
		r.headless = whole
	}
	for len(r.unsure) > 0 && r.unsure[0].seq <= c.durable {
		r.unsure = r.unsure[1:]
	}
	r.unsure = append(r.unsure, place{seg, off, h.size(), h.seq, h.hash})
	if r.visit.batch != nil {
		r.visit.batch(seg, off, h)
	}
	bad := func(what string, want, got uint64) error {
		return &CorruptError{File: seg.name, Off: off, What: what, Want: want, Got: got, Reason: "the batch has a right hash and wrong frames"}
	}
	frames := uint32(0)
	for ; len(payload) > 0; frames++ {
		f, rest, ok := nextFrame(payload)
		if !ok {
			return bad("frame length", uint64(len(payload)), le32(append(payload[:len(payload):len(payload)], 0, 0, 0, 0))&frameLen)
		}
		payload = rest
		if r.headless == maybeHeadless {
			r.headless = insideHeadless
			if f.first {
				r.headless = whole
			}
		}
		if inside := r.partialOpen || r.headless == insideHeadless; f.first == inside {
			return bad("frame order", b2u(!f.first), b2u(f.first))
		}
		if err := r.takeFrame(f); err != nil {
			return err
		}
		seg.lastPos = c.pos
		if !f.last {
			seg.lastPos++
		}
	}
	if frames != h.frames {
		return bad("frame count", uint64(h.frames), uint64(frames))
	}
	seg.lastSeq, seg.durable = h.seq, true
	return nil
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// takeFrame gives a whole record out, or adds to the one that is not whole yet.
func (r *reader) takeFrame(f frame) error {
	switch {
	case r.headless == insideHeadless: // its beginning was trimmed away
		if f.last {
			r.headless = whole
			r.chain.pos++
			r.rec.FirstPos = r.chain.pos + 1
		}
		return nil
	case f.first && f.last:
		return r.record(f.data)
	}
	r.partial, r.partialOpen = append(r.partial, f.data...), !f.last
	if !f.last {
		return nil
	}
	rec := r.partial
	r.partial = r.partial[:0]
	return r.record(rec)
}

func (r *reader) record(rec []byte) error {
	r.chain.pos++
	r.rec.Records++
	if r.visit.record == nil {
		return nil
	}
	return r.visit.record(r.chain.pos, rec)
}
