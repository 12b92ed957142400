package wal

import (
	"fmt"

	"quire/disk"
)

// tail is what the scan behind the end of the chain found.
type tail struct {
	durable  Seq    // highest durable hint of any whole batch
	witness  string // where that batch lies
	batches  int    // whole batches of the newest incarnation
	endBytes int64  // their length
}

// judge decides what the end of the chain is, at off of segment end: the end of
// the log, a torn tail (reported in rec), or damage (an error).
//
// Each batch tells up to which batch all was durable when it was written. If any
// whole batch behind the end tells that the missing one was durable, then it was
// there once: damage. A batch that was left behind by an older incarnation tells
// only about batches that recovery had found then, so it cannot accuse wrongly.
// Whatever a torn write leaves has no such witness, because a batch is written
// with that hint only after the missing one had completed.
func (r *reader) judge(end int, off int64) error {
	bad, err := r.suspect(end, off)
	if err != nil {
		return err
	}
	if !r.chain.started {
		return &CorruptError{File: bad.seg.name, Off: bad.off, What: bad.what, Want: bad.want, Got: bad.got,
			Reason: "the oldest segment of a trimmed log begins with a durable batch"}
	}
	t, err := r.scan(end, off)
	if err != nil {
		return err
	}
	if t.durable > r.chain.seq {
		return &CorruptError{File: bad.seg.name, Off: bad.off, What: bad.what, Want: bad.want, Got: bad.got,
			Reason: fmt.Sprintf("batch %d was durable, says %s", r.chain.seq+1, t.witness)}
	}
	if err := r.doubt(&bad); err != nil {
		return err
	}
	r.rec.CutBatches, r.rec.CutBytes = t.batches, t.endBytes
	if bad.known {
		r.rec.CutBatches++
		r.rec.CutBytes += bad.size
	}
	if r.rec.CutBatches > 0 {
		r.rec.CutFile, r.rec.CutOff = bad.seg.name, bad.off
	}
	return nil
}

// doubt finds out whether the batch that ends the log was written as a whole. Then
// it was damaged since, and may have been acknowledged.
func (r *reader) doubt(bad *suspect) error {
	whole, err := r.written(bad.seg, bad.off)
	if err != nil || !whole {
		return err
	}
	if !r.cutDamaged {
		return &CorruptError{File: bad.seg.name, Off: bad.off, What: bad.what, Want: bad.want, Got: bad.got,
			Reason: fmt.Sprintf("every sector of batch %d was written, it may have been acknowledged", r.chain.seq+1)}
	}
	bad.known = true
	r.cutNow = true
	r.rec.Doubtful, r.rec.DoubtPos = true, r.chain.pos
	return nil
}

// written tells whether the next batch was written as a whole at off: all its
// sectors have its stamp. A sector is written as a whole or not at all. So if the
// first one has the stamp and a header that is not what was written, it is damaged;
// if the header is right it names the others.
func (r *reader) written(seg *segment, off int64) (bool, error) {
	if off+blockBytes > seg.sizeBytes {
		return false, nil
	}
	f, err := r.fsys.Open(seg.name, disk.ReadOnly)
	if err != nil {
		return false, err
	}
	defer f.Close()
	r.buf = r.buf[:0]
	b, err := r.load(f, seg, off, blockBytes)
	if err != nil {
		return false, err
	}
	c := &r.chain
	for _, incarnation := range [...]uint64{c.incarnation, c.incarnation + 1} {
		stamp := stampOf(c.logID, seg.number, incarnation, c.seq+1)
		if !stamped(b, stamp) {
			continue
		}
		h, ok := decodeBatchHeader(b)
		if !ok || !headerIntact(b) || off+h.size() > seg.sizeBytes {
			return true, nil
		}
		if b, err = r.load(f, seg, off, h.size()); err != nil {
			return false, err
		}
		for s := int64(0); s < h.hashed(); s += sectorBytes {
			if !stamped(b[s:], stamp) {
				return false, nil
			}
		}
		return true, nil
	}
	return false, nil
}

// suspect is the place where the next batch was expected.
type suspect struct {
	mismatch
	seg   *segment
	off   int64
	size  int64 // of the batch, as far as can be told
	known bool  // something of the next batch is there
}

// suspect looks at the two places where the next batch may be: behind the last
// one, or, if it did not fit there, at the beginning of the next segment.
func (r *reader) suspect(end int, off int64) (suspect, error) {
	first, err := r.inspect(r.segs[end], off)
	if err != nil || first.known || end+1 == len(r.segs) {
		return first, err
	}
	second, err := r.inspect(r.segs[end+1], blockBytes)
	if second.known || off+blockBytes > first.seg.sizeBytes {
		return second, err
	}
	return first, err
}

func (r *reader) inspect(seg *segment, off int64) (suspect, error) {
	s := suspect{seg: seg, off: off, size: blockBytes, mismatch: mismatch{what: "room for a batch", want: blockBytes}}
	if off+blockBytes > seg.sizeBytes {
		return s, nil
	}
	f, err := r.fsys.Open(seg.name, disk.ReadOnly)
	if err != nil {
		return s, err
	}
	defer f.Close()
	r.buf = r.buf[:0]
	h, _, bad, err := r.readBatch(f, seg, off, seg.number)
	if err != nil {
		return s, err
	}
	if bad == nil {
		if bad = r.chain.follows(&h); bad == nil {
			bad = &mismatch{}
		}
	}
	s.mismatch = *bad
	// One damaged field must not hide the batch, a batch that recycling left
	// must not pass for it.
	c := &r.chain
	s.known = c.started && (h.prevHash == c.hash ||
		h.seq == c.seq+1 && h.segment == seg.number && h.incarnation >= c.incarnation)
	if s.known && off+h.size() <= seg.sizeBytes {
		s.size = h.size()
	}
	return s, nil
}

// scan looks at every block behind the end of the chain for whole batches.
func (r *reader) scan(end int, off int64) (tail, error) {
	var t tail
	for i := end; i < len(r.segs); i++ {
		if err := r.scanSegment(r.segs[i], off, &t); err != nil {
			return t, err
		}
		off = blockBytes
	}
	return t, nil
}

func (r *reader) scanSegment(seg *segment, off int64, t *tail) error {
	f, err := r.fsys.Open(seg.name, disk.ReadOnly)
	if err != nil {
		return err
	}
	defer f.Close()
	r.buf = r.buf[:0]
	for off+blockBytes <= seg.sizeBytes {
		// Of any epoch: a batch that the disk put in a wrong place is as good
		// a witness, and what recycling left is older than the chain's end.
		h, _, bad, err := r.readBatch(f, seg, off, 0)
		if err != nil {
			return err
		}
		if bad != nil || h.seq <= r.chain.seq {
			off += blockBytes
			continue
		}
		if h.durable > t.durable {
			t.durable = h.durable
			t.witness = fmt.Sprintf("batch %d in %s at offset %d", h.seq, seg.name, off)
		}
		if h.incarnation >= r.chain.incarnation && h.segment == seg.number {
			t.batches++
			t.endBytes += h.size()
		}
		off += h.size()
	}
	return nil
}
