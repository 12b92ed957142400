package pagestore

import (
	"io"
	"time"

	"quire/disk"
)

// Cut is a point between two records up to which the store is to become durable.
type Cut struct {
	s     *Store
	n     uint64 // cuts are numbered; an older one is superseded
	meta  []byte
	state func(io.Writer) error
	segs  []cutSegment
}

// cutSegment is a segment as a cut sees it.
type cutSegment struct {
	seg     *segment
	end     int64
	records uint64
	whole   bool // nothing will follow: it may be sealed
}

// Cut marks everything appended so far for Commit. It seals the open page and
// copies the list of segments; the apply goroutine calls it. meta is copied and
// should be small. state, if not nil, is called by Commit, on its goroutine, and
// must write the state as of this call of Cut; nil means that the state is the
// same as at the last committed Cut.
func (s *Store) Cut(meta []byte, state func(io.Writer) error) (*Cut, error) {
	s.writer.seal()
	c := &Cut{s: s, meta: append([]byte(nil), meta...), state: state}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.err != nil {
		return nil, s.mu.err
	}
	s.mu.cuts++
	c.n = s.mu.cuts
	c.segs = make([]cutSegment, 0, len(s.mu.order))
	for _, seg := range s.mu.order {
		if seg.origin == fromWriter {
			seg.cutEnd, seg.cutRecords = seg.end, seg.records
		}
		if seg.retired || seg.cutEnd == 0 {
			continue
		}
		c.segs = append(c.segs, cutSegment{
			seg: seg, end: seg.cutEnd, records: seg.cutRecords, whole: seg.full && seg.cutEnd == seg.end,
		})
	}
	return c, nil
}

// Commit makes the cut durable: it waits for the write behind, writes the
// footers of full segments, syncs, writes the state and the manifest, and then removes what no longer belongs to the store. When it returns nil, the log
// may be trimmed to the cut.
//
// It is slow and runs on any goroutine, beside appends and reads. Commits follow
// one another; one that an earlier Commit of a later Cut has superseded returns
// nil at once. ErrNoSpace (and an error of the state function) leaves the store
// as it was, with the older checkpoint: take a new Cut and try again. Any other
// error is fatal.
func (c *Cut) Commit() error {
	s := c.s
	s.committing.Lock()
	defer s.committing.Unlock()
	if c.n <= s.committing.cut {
		return nil
	}
	if err := s.failure(); err != nil {
		return err
	}
	var took CommitTimes
	lap := stopwatch(time.Now())
	if err := s.awaitWritten(c.segs); err != nil {
		return err
	}
	took.Flush = lap.lap()
	full, err := s.sealLocked(c.segs)
	if err != nil {
		return s.commitError(s.noteDamage(err))
	}
	if err := s.syncSegments(c.segs); err != nil {
		return s.commitError(err)
	}
	took.Sync = lap.lap()
	m, ours, err := c.manifest()
	if err != nil && !ours {
		return err
	}
	took.State = lap.lap()
	if err == nil {
		err = s.writeRootsLocked(m)
	}
	if err != nil {
		return s.commitError(err)
	}
	took.Roots = lap.lap()
	if s.opts.OnCommit != nil {
		s.opts.OnCommit(took)
	}
	s.committing.cut = c.n
	s.noteSpace(full)
	s.counters.commits.Add(1)
	if err := s.cleanLocked(c.segs); err != nil {
		return s.commitError(err)
	}
	return nil
}

// stopwatch is when the present lap began.
type stopwatch time.Time

func (w *stopwatch) lap() time.Duration {
	now := time.Now()
	took := now.Sub(time.Time(*w))
	*w = stopwatch(now)
	return took
}

// commitError sorts the errors of a commit: a full disk is reported and may
// pass, everything else is the end.
func (s *Store) commitError(err error) error {
	if isRetryable(err) {
		s.noteSpace(err)
		return noSpace(err)
	}
	return s.fail(err)
}

// sealLocked writes the hint footers of segments that are whole and have none.
// A footer is derived from the pages as they lie in the file, which also reads
// back what was written. Without space for it, which full tells, the segment stays
// without.
func (s *Store) sealLocked(segs []cutSegment) (full, err error) {
	for _, c := range segs {
		s.mu.Lock()
		skip := !c.whole || c.seg.footerEnd != 0 || c.seg.footerBad
		s.mu.Unlock()
		if skip {
			continue
		}
		end, err := s.writeFooter(c)
		if isNoSpace(err) {
			return err, nil
		}
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		c.seg.footerEnd = end
		s.pageBytes.Add(end - c.end)
		s.mu.Unlock()
	}
	return nil, nil
}

func (s *Store) writeFooter(c cutSegment) (end int64, err error) {
	file := c.seg.file.Load()
	w := newHintWriter(file, c.seg.at(c.end))
	records, err := eachOnPages(file, c.seg.at(0), c.end, s.opts.Hint, w.add)
	if err != nil {
		return 0, err
	}
	if records != c.records {
		return 0, c.seg.at(0).corrupt("another number of records than were appended", c.records, records)
	}
	if err := w.finish(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	c.seg.synced = 0 // the footer is not
	s.mu.Unlock()
	return w.at.off, nil
}

// syncSegments makes the files durable that were written to since their last
// sync.
func (s *Store) syncSegments(segs []cutSegment) error {
	for _, c := range segs {
		s.mu.Lock()
		synced := c.seg.synced
		s.mu.Unlock()
		if synced >= c.end {
			continue
		}
		written := c.seg.flushed.Load()
		if err := c.seg.file.Load().Sync(); err != nil {
			return &syncError{err}
		}
		s.mu.Lock()
		c.seg.synced = written
		s.mu.Unlock()
	}
	return nil
}

// manifest writes the state file and returns the manifest of the cut. The caller
// holds committing. Each attempt takes a number of its own: a failed one may yet
// have reached the disk.
func (c *Cut) manifest() (m *manifest, ours bool, err error) {
	s := c.s
	last := &s.committing.last
	last.sequence++
	m = &manifest{
		sequence: last.sequence, incarnation: s.incarnation, storeID: s.storeID,
		committed: true, state: last.state, meta: c.meta,
	}
	if c.state != nil {
		s.committing.litter = append(s.committing.litter, stateName(m.sequence))
		m.state, ours, err = writeState(s.fsys, m.sequence, s.opts.inlineState, c.state)
		if err != nil {
			return nil, ours, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.nextID = s.mu.nextID
	for _, cs := range c.segs {
		e := segmentEntry{
			id: cs.seg.id, epoch: cs.seg.epoch, end: cs.end, records: cs.records,
			live: uint64(cs.seg.tally.live()),
		}
		if cs.whole && !cs.seg.footerBad {
			e.footerEnd = cs.seg.footerEnd
		}
		m.segments = append(m.segments, e)
	}
	return m, true, nil
}

// writeRootsLocked makes m the checkpoint.
func (s *Store) writeRootsLocked(m *manifest) error {
	durable, err := s.committing.roots.write(m)
	if durable {
		s.setRootLocked(m)
	}
	if durable && err != nil && isRetryable(err) {
		return nil // the other slot is written first the next time
	}
	return err
}

// cleanLocked removes the files that the new checkpoint does not name: state
// files at once, segments when no Pin holds them.
func (s *Store) cleanLocked(named []cutSegment) error {
	keep := s.committing.last.state.fileName()
	var left []string
	for _, name := range s.committing.litter {
		if name == keep {
			left = append(left, name)
			continue
		}
		if err := removeIfThere(s.fsys, name); err != nil {
			return err
		}
	}
	s.committing.litter = left
	in := make(map[*segment]bool, len(named))
	for _, c := range named {
		in[c.seg] = true
	}
	var gone []*segment
	s.mu.Lock()
	for _, seg := range s.mu.order {
		if seg.retired && !seg.doomed && !in[seg] {
			seg.doomed = true
			gone = append(gone, seg)
		}
	}
	s.mu.Unlock()
	s.doomLocked(gone)
	return s.sweepLocked()
}

// setRootLocked notes m as the newest manifest. The caller holds committing.
func (s *Store) setRootLocked(m *manifest) {
	if name := m.state.fileName(); name != s.committing.last.state.fileName() {
		s.holdStateLocked(name)
	}
	s.committing.last = *m
	bytes := 2 * int64(len(m.encode()))
	if m.state.fileName() != "" {
		bytes += stateHeadBytes + m.state.bytes
	}
	s.rootBytes.Store(bytes)
}

// holdStateLocked keeps the newest state file open for exports. Without it there
// are none until the next checkpoint; nothing else needs it.
func (s *Store) holdStateLocked(name string) {
	if s.committing.state != nil {
		s.committing.state.release()
		s.committing.state = nil
	}
	if name == "" {
		return
	}
	if f, err := s.fsys.Open(name, disk.ReadOnly); err == nil {
		s.committing.state = newShared(f)
	}
}
