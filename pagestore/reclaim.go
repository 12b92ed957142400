package pagestore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// Candidate is a record of a segment that is being reclaimed.
type Candidate struct {
	Ref   Ref    // where it lies
	New   Ref    // in Moved: where its copy lies
	Bytes int    // its length
	Hint  []byte // valid during the call
	Live  bool   // the owner's answer
}

// ReclaimOwner is the index that points into the store. Both methods are called
// by the goroutine in Reclaim, with at most reclaimBatch records of one segment,
// so that an owner can answer under one hold of its lock.
type ReclaimOwner interface {
	// Live sets Live for the records that the index still points to, at
	// exactly this Ref. A record once called dead must stay so.
	Live(batch []Candidate)
	// Moved makes the index point to New instead of Ref. The copies can be
	// read already. Where the record has died since Live, it sets Live to
	// false: the copy is void then and never comes back at start. It does not
	// Free the old places; the store does.
	Moved(batch []Candidate)
}

// reclaimBatch bounds the owner's hold of its lock: flipping 256 locations takes
// well under a tenth of a millisecond. batchShare bounds the bytes of a step, as
// a part of a segment: 256 KiB of 64 MiB.
const (
	reclaimBatch = 256
	batchShare   = 256
)

// Budget bounds a Reclaim.
type Budget struct {
	// BytesPerSecond bounds reading and writing together; 0 is no bound.
	BytesPerSecond int64
	// Below is the share of live bytes under which a segment is emptied; 0
	// means 0.5, with which at most every byte that is copied frees another.
	Below float64
}

// smallMerge is how many sealed segments smaller than half of SegmentBytes (from
// restarts) there may be before Reclaim merges them into one.
const smallMerge = 8

// retireShare is after how much copying the emptied segments are retired, as a
// part of a segment: 1 MiB of 64. Each time ends the copier's page early, so that
// it is not done for every small segment.
const retireShare = 64

// Reclaim empties sealed segments of which little is live: it copies their live
// records to another segment and has the owner point there. The files go with
// the next Commit of a Cut that is taken afterwards, once no older Pin is left.
// It returns by how many bytes that makes the store smaller.
//
// It works in small steps beside appends, reads and commits and makes none of
// them wait. One Reclaim runs at a time; a second waits. It stops at ctx's end and
// at ErrNoSpace, and then goes on where it was at the next call; and at a
// segment that cannot be read, which it leaves alone from then on.
func (s *Store) Reclaim(ctx context.Context, budget Budget, owner ReclaimOwner) (reclaimedBytes int64, err error) {
	s.reclaiming.Lock()
	defer s.reclaiming.Unlock()
	if budget.Below == 0 {
		budget.Below = 0.5
	}
	copied := int64(0)
	for _, seg := range s.sparse(budget.Below) {
		m := mover{s: s, ctx: ctx, seg: seg, owner: owner, pace: budget.BytesPerSecond}
		freed, err := m.empty()
		if err != nil {
			s.interrupted(seg, err)
			return reclaimedBytes, s.noteDamage(err)
		}
		s.finished(seg)
		reclaimedBytes += freed
		if copied += m.copied; copied >= s.opts.SegmentBytes/retireShare {
			s.retireMoved()
			copied = 0
		}
	}
	s.retireMoved()
	return reclaimedBytes, nil
}

// finished notes that all of a segment has been moved.
func (s *Store) finished(seg *segment) {
	s.reclaiming.unfinished = nil
	s.reclaiming.moved = append(s.reclaiming.moved, seg)
	s.counters.reclaimed.Add(1)
}

// retireMoved takes the emptied segments out of the next checkpoint and the
// copies of all that was in them into it: both or neither, so that a checkpoint
// never has a record twice. No segment may be half moved.
func (s *Store) retireMoved() {
	s.copier.seal()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.reclaiming.moved {
		seg.retired = true
	}
	s.reclaiming.moved = nil
	for _, seg := range s.mu.uncut {
		seg.cutEnd, seg.cutRecords = seg.end, seg.records
	}
	s.mu.uncut = nil
}

// interrupted notes that a segment is half moved. It has to be finished before
// any other: until then no copies may enter a checkpoint. If it cannot be read,
// what was copied since the last retireMoved stays out of all checkpoints of this
// process, and the segments that it was copied from stay in.
func (s *Store) interrupted(seg *segment, err error) {
	if s.failure() != nil || errors.Is(err, ErrNoSpace) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		s.reclaiming.unfinished = seg
		return
	}
	s.copier.roll()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.uncut = nil
	seg.abandoned = true
	for _, g := range s.reclaiming.moved {
		g.abandoned = true
	}
	s.reclaiming.unfinished, s.reclaiming.moved = nil, nil
}

// sparse returns the sealed segments worth emptying, the emptiest first, but
// before all the one that was interrupted.
func (s *Store) sparse(below float64) []*segment {
	type weighed struct {
		seg  *segment
		live float64
	}
	var found, small []weighed
	s.mu.Lock()
	for _, seg := range s.mu.order {
		if seg.retired || seg.abandoned || seg.footerEnd == 0 || slices.Contains(s.reclaiming.moved, seg) {
			continue
		}
		if seg == s.reclaiming.unfinished {
			found = append(found, weighed{seg, -1})
			continue
		}
		w := weighed{seg, float64(seg.tally.live()) / float64(seg.end)}
		switch {
		case w.live < below:
			found = append(found, w)
		case seg.end < s.opts.SegmentBytes/2:
			small = append(small, w)
		}
	}
	s.mu.Unlock()
	if len(small) >= smallMerge {
		found = append(found, small...)
	}
	slices.SortStableFunc(found, func(a, b weighed) int { return cmp.Compare(a.live, b.live) })
	segs := make([]*segment, len(found))
	for i, w := range found {
		segs[i] = w.seg
	}
	return segs
}

// mover empties one segment.
type mover struct {
	s     *Store
	ctx   context.Context
	seg   *segment
	owner ReclaimOwner
	pace  int64 // bytes per second, 0 is no limit

	batch  []Candidate
	hints  []byte // what the batch's hints point into
	bytes  int64  // length of the batch's records
	page   *frame // the page last read, if it was not in memory
	spent  int64  // bytes read and written and not yet waited for
	copied int64
}

// empty moves all live records out of the segment and returns what that frees.
func (m *mover) empty() (freed int64, err error) {
	s, seg := m.s, m.seg
	if !seg.acquire() {
		return 0, nil
	}
	defer seg.release()
	s.mu.Lock()
	end, footerEnd := seg.end, seg.footerEnd
	s.mu.Unlock()
	m.spent = footerEnd - end
	_, err = eachInFooter(seg.file.Load(), seg.at(end), footerEnd, m.add)
	if err == nil {
		err = m.step()
	}
	return footerEnd - m.copied, err
}

// add collects a record and makes a step when there are enough.
func (m *mover) add(l located) error {
	m.hints = append(m.hints, l.hint...)
	m.batch = append(m.batch, Candidate{Ref: l.ref, Bytes: l.bytes, Hint: m.hints[len(m.hints)-len(l.hint):]})
	m.bytes += int64(l.bytes)
	if len(m.batch) < reclaimBatch && m.bytes < m.s.opts.SegmentBytes/batchShare {
		return nil
	}
	return m.step()
}

// step moves the batch: ask, copy, flip.
func (m *mover) step() error {
	if err := m.wait(); err != nil {
		return err
	}
	if len(m.batch) == 0 {
		return nil
	}
	m.owner.Live(m.batch)
	live := m.batch[:0]
	for _, c := range m.batch {
		if c.Live {
			live = append(live, c)
		}
	}
	if err := m.move(live); err != nil {
		return err
	}
	m.batch, m.hints, m.bytes = m.batch[:0], m.hints[:0], 0
	return nil
}

// move copies records and has the owner flip them. A copy that it does not take
// never reaches the disk as a record: there would be no telling later that it had
// been dead from the start.
func (m *mover) move(live []Candidate) error {
	if len(live) == 0 {
		return nil
	}
	to := &m.s.copier
	to.hold()
	defer to.release()
	for i := range live {
		if err := m.copy(&live[i]); err != nil {
			for _, c := range live[:i] {
				to.void(c.New)
			}
			return err
		}
	}
	m.owner.Moved(live)
	for _, c := range live {
		if c.Live {
			m.s.Free(c.Ref)
		} else {
			to.void(c.New)
		}
	}
	return nil
}

// copy appends one record to the copier's segment.
func (m *mover) copy(c *Candidate) error {
	rec, err := m.read(c.Ref)
	if err != nil {
		return err
	}
	m.s.applyRoll()
	before := m.s.copier.seg
	ref, room, err := m.s.copier.alloc(len(rec))
	if err != nil {
		return err
	}
	copy(room, rec)
	c.New = ref
	if seg := m.s.copier.seg; seg != before || m.copied == 0 {
		m.s.noteUncut(seg)
	}
	m.spent += int64(len(rec))
	m.copied += int64(len(rec))
	m.s.counters.copiedBytes.Add(uint64(len(rec)))
	return nil
}

// read returns a record without putting its page into the cache: it will not be
// read there again.
func (m *mover) read(ref Ref) ([]byte, error) {
	f := m.seg.frame(ref.page())
	if f == nil && m.page != nil && m.page.page() == ref.page() {
		f = m.page
	}
	if f == nil {
		var err error
		if f, err = m.s.fetch(m.seg, ref.page()); err != nil {
			return nil, err
		}
		m.page = f
		m.spent += int64(len(f.data))
	}
	rec, end, void := recordAt(f.data, ref.offset())
	if end == 0 || void {
		at := m.seg.at(int64(ref.page()) * unitBytes)
		return nil, at.corrupt("footer names a record that is not there", 0, uint64(ref.offset()))
	}
	return rec, nil
}

// wait keeps to the budget.
func (m *mover) wait() error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	if err := m.s.failure(); err != nil {
		return err
	}
	if m.pace <= 0 {
		return nil
	}
	pause := time.Duration(float64(m.spent) / float64(m.pace) * float64(time.Second))
	m.spent = 0
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-m.ctx.Done():
		return m.ctx.Err()
	case <-timer.C:
		return nil
	}
}

// noteUncut remembers a segment that copies go to: a checkpoint may name it only
// up to where the last finished segment's copies end.
func (s *Store) noteUncut(seg *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.mu.uncut, seg) {
		s.mu.uncut = append(s.mu.uncut, seg)
	}
}

// applyRoll ends the copier's segment if Roll asked for it meanwhile.
func (s *Store) applyRoll() {
	s.mu.Lock()
	roll := s.mu.rollCopy
	s.mu.rollCopy = false
	s.mu.Unlock()
	if roll {
		s.copier.roll()
	}
}
