package pagestore

import (
	"time"
)

// noSpaceRetry is how long the write behind waits before it tries a full disk
// again. Whoever freed space waits this long at most; a commit does not wait.
const noSpaceRetry = time.Second

// admit lets a writer open another page, or makes it wait while too much is
// not yet written. Copies may use half of the bound, so that Reclaim cannot
// make the apply goroutine wait.
func (s *Store) admit(a *appender) error {
	bound := s.opts.DirtyBytes
	if a.origin == fromReclaim {
		bound /= 2
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.mu.err == nil {
		if full := s.mu.noSpace; full != nil {
			if a.origin == fromReclaim || s.mu.dirty > bound+s.opts.NoSpaceBytes {
				return noSpace(full)
			}
			return nil
		}
		if s.mu.dirty <= bound {
			return nil
		}
		began := time.Now()
		s.awaitProgressLocked()
		if a.origin == fromWriter {
			s.counters.stallMicros.Add(uint64(time.Since(began).Microseconds()))
		}
	}
	return s.mu.err
}

// awaitProgressLocked waits until the write behind has done something, or does
// it itself where there is no goroutine for it.
func (s *Store) awaitProgressLocked() {
	if s.opts.Inline {
		s.mu.Unlock()
		s.flushSome()
		s.mu.Lock()
		return
	}
	s.mu.urgent++ // even if there is less to write than FlushBytes
	s.nudge()
	s.mu.progress.Wait()
	s.mu.urgent--
}

// enqueue gives a sealed page to the write behind.
func (s *Store) enqueue(a *appender, f *frame) {
	s.mu.Lock()
	a.queue = append(a.queue, f)
	f.seg.end = f.head.off + int64(f.head.length)
	f.seg.records += uint64(f.head.records)
	s.mu.dirty += int64(len(f.data))
	s.pageBytes.Add(int64(f.head.length))
	due := s.dueLocked()
	full := s.mu.noSpace != nil
	s.mu.Unlock()
	switch {
	case !due:
	case s.opts.Inline:
		s.flushSome()
	case !full: // a full disk is tried again after a while, not at each page
		s.nudge()
	}
}

// dueLocked says whether there is something to write that should not wait for
// more to join it.
func (s *Store) dueLocked() bool {
	if len(s.writer.queue)+len(s.copier.queue) == 0 || s.mu.err != nil {
		return false
	}
	return s.mu.dirty >= s.opts.FlushBytes || s.mu.urgent > 0 || s.mu.noSpace != nil
}

// nudge makes the write behind look again.
func (s *Store) nudge() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// writeBehind is the goroutine that writes sealed pages.
func (s *Store) writeBehind() {
	defer s.done.Done()
	for {
		s.mu.Lock()
		due, final := s.dueLocked(), s.mu.err != nil
		s.mu.Unlock()
		if final {
			return
		}
		var again <-chan time.Time
		if due {
			if s.flushSome() {
				continue
			}
			again = time.After(noSpaceRetry)
		}
		select {
		case <-s.wake:
		case <-again:
		}
	}
}

// flushSome writes one run of pages that lie one after the other in a segment.
// It returns false if that failed; what failed stays queued and readable.
func (s *Store) flushSome() bool {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	a, run := s.nextRun()
	if len(run) == 0 {
		return true
	}
	err := s.writeRun(run)
	switch {
	case err == nil:
		s.finishRun(a, run)
	case isNoSpace(err):
		s.mu.Lock()
		s.mu.failures++
		s.mu.Unlock()
	default:
		s.fail(err)
		return false
	}
	s.noteSpace(err)
	return err == nil
}

// nextRun picks the pages to write next: from the longer queue, the first page
// and those behind it in the same segment, up to FlushBytes.
func (s *Store) nextRun() (*appender, []*frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.writer
	if len(s.copier.queue) > len(a.queue) {
		a = &s.copier
	}
	if s.mu.err != nil || len(a.queue) == 0 {
		return a, nil
	}
	n, bytes := 0, int64(0)
	for _, f := range a.queue {
		if f.seg != a.queue[0].seg || n > 0 && bytes+int64(f.head.length) > s.opts.FlushBytes {
			break
		}
		n, bytes = n+1, bytes+int64(f.head.length)
	}
	return a, append([]*frame(nil), a.queue[:n]...)
}

// writeRun encodes the pages' heads and writes all of them at once. The caller
// holds flushing.
func (s *Store) writeRun(run []*frame) error {
	seg := run[0].seg
	file, err := seg.ensureFile(s.fsys)
	if err != nil {
		return err
	}
	bytes := int64(0)
	for _, f := range run {
		encodePage(f.data[:f.head.length], f.head)
		bytes += int64(f.head.length)
	}
	buf := run[0].data[:run[0].head.length]
	if len(run) > 1 {
		buf = s.staging[:0]
		for _, f := range run {
			buf = append(buf, f.data[:f.head.length]...)
		}
		s.staging = buf
	}
	if err := file.WriteAt(buf, run[0].head.off); err != nil {
		return err
	}
	s.counters.writes.Add(1)
	s.counters.writeBytes.Add(uint64(bytes))
	return nil
}

// finishRun takes written pages from their queue into the cache.
func (s *Store) finishRun(a *appender, run []*frame) {
	last := run[len(run)-1]
	last.seg.flushed.Store(last.head.off + int64(last.head.length))
	s.mu.Lock()
	for _, f := range run {
		s.mu.dirty -= int64(len(f.data))
	}
	rest := copy(a.queue, a.queue[len(run):])
	clear(a.queue[rest:])
	a.queue = a.queue[:rest]
	s.mu.progress.Broadcast()
	s.mu.Unlock()
	for _, f := range run {
		s.cache.add(f)
	}
}

// noteSpace records whether the disk takes writes, and tells the owner when that
// has changed.
func (s *Store) noteSpace(err error) {
	s.mu.Lock()
	changed := (s.mu.noSpace == nil) != (err == nil)
	s.mu.noSpace = err
	if err != nil {
		s.mu.progress.Broadcast()
	}
	s.mu.Unlock()
	if changed {
		s.opts.OnNoSpace(err)
	}
}

// awaitWritten returns when every page of the cut has been written to its file.
// It gives up at the first attempt from now on that finds the disk full.
func (s *Store) awaitWritten(segs []cutSegment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	failures := s.mu.failures
	for _, c := range segs {
		for c.seg.flushed.Load() < c.end {
			if s.mu.err != nil {
				return s.mu.err
			}
			if s.mu.failures != failures {
				return noSpace(s.mu.noSpace)
			}
			s.awaitProgressLocked()
		}
	}
	return nil
}
