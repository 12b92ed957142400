package pagestore

import "io"

// Scrubbed tells what a Scrub did.
type Scrubbed struct {
	Bytes   int64
	Wrapped bool // the last segment of the round is done
}

// Scrub verifies the next maxBytes, or a little more, of what is on the disk, and
// remembers where it stopped. A round takes in all segments that exist when it
// begins, records and footers. Damage is a *CorruptError; the next call goes on
// with the next segment, so that a round reports the first damage of each. Any
// goroutine.
func (s *Store) Scrub(maxBytes int64) (Scrubbed, error) {
	s.scrubbing.Lock()
	defer s.scrubbing.Unlock()
	if len(s.scrubbing.round) == 0 {
		s.scrubbing.round, s.scrubbing.off = s.list(), 0
	}
	var done Scrubbed
	for len(s.scrubbing.round) > 0 && done.Bytes < maxBytes {
		seg := s.scrubbing.round[0]
		next, err := s.scrubSegment(seg, s.scrubbing.off, maxBytes-done.Bytes)
		done.Bytes += max(next-s.scrubbing.off, 0)
		s.scrubbing.off = next
		if err == nil && next != segmentDone {
			continue
		}
		s.scrubbing.round, s.scrubbing.off = s.scrubbing.round[1:], 0
		if err != nil {
			done.Wrapped = len(s.scrubbing.round) == 0
			return done, s.noteDamage(err)
		}
	}
	done.Wrapped = len(s.scrubbing.round) == 0
	return done, nil
}

// segmentDone is the offset behind all others.
const segmentDone = -1

// scrubSegment verifies some pages from off on and returns where it stopped.
func (s *Store) scrubSegment(seg *segment, off, maxBytes int64) (int64, error) {
	if !seg.acquire() {
		return segmentDone, nil
	}
	defer seg.release()
	s.mu.Lock()
	end := max(seg.flushed.Load(), seg.footerEnd)
	s.mu.Unlock()
	if off >= end {
		return segmentDone, nil
	}
	r := pageReader{file: seg.file.Load(), at: seg.at(off), end: end}
	for r.at.off-off < maxBytes {
		_, _, err := r.next()
		if err == io.EOF {
			return r.at.off, nil
		}
		if err != nil {
			return r.at.off, err
		}
	}
	return r.at.off, nil
}
