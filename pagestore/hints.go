package pagestore

import (
	"errors"
	"sync"
)

// Hints calls fn for each record of the checkpoint with its place, its length
// and its hint, which is valid during the call. It uses up to workers
// goroutines, numbered from 0; one segment's records come from one worker, in
// ascending order of Ref. It reads the hint footers, and the pages themselves
// where there is no footer or the footer is damaged. Call it after Open and before
// anything is appended.
//
// No two records of a checkpoint are copies of each other: what Reclaim had
// copied of a segment that it did not finish is behind the checkpoint.
//
// It stops at the first error: fn's, or a *CorruptError.
func (s *Store) Hints(workers int, fn func(worker int, ref Ref, recBytes int, hint []byte) error) error {
	var first struct {
		sync.Mutex
		err error
	}
	failed := func(err error) bool {
		first.Lock()
		defer first.Unlock()
		if first.err == nil {
			first.err = err
		}
		return first.err != nil
	}
	run := func(worker int, seg *segment) {
		if failed(nil) {
			return
		}
		failed(s.replay(seg, func(l located) error { return fn(worker, l.ref, l.bytes, l.hint) }))
	}
	segs := s.list()
	if workers <= 1 {
		for _, seg := range segs {
			run(0, seg)
		}
		return first.err
	}
	work := make(chan *segment)
	var group sync.WaitGroup
	for w := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			for seg := range work {
				run(w, seg)
			}
		}()
	}
	for _, seg := range segs {
		work <- seg
	}
	close(work)
	group.Wait()
	return first.err
}

// ownerError carries an error of the owner's function past the handling of a
// damaged footer.
type ownerError struct{ error }

func (e *ownerError) Unwrap() error { return e.error }

// replay calls fn for each record of a recovered segment and learns the sizes of
// its records on the way.
func (s *Store) replay(seg *segment, fn func(located) error) error {
	if seg.origin != fromRecovered || !seg.acquire() {
		return nil
	}
	defer seg.release()
	s.mu.Lock()
	end, footerEnd, records := seg.end, seg.footerEnd, seg.records
	s.mu.Unlock()

	file := seg.file.Load()
	var last Ref
	var sum tallySum
	each := func(l located) error {
		if l.ref <= last {
			return nil // a footer told of it before it turned out damaged
		}
		last = l.ref
		sum.add(l)
		if l.jumbo { // known before fn may Free it
			seg.tally.addJumbo(l.ref.page(), int64(recordBytesOnPage(l.bytes)))
		}
		if err := fn(l); err != nil {
			return &ownerError{err}
		}
		return nil
	}
	var owner *ownerError
	if footerEnd != 0 {
		_, err := eachInFooter(file, seg.at(end), footerEnd, each)
		if errors.As(err, &owner) {
			return owner.error
		}
		if err == nil && sum.count() == records {
			seg.tally.set(sum)
			return nil
		}
		s.mu.Lock()
		seg.footerEnd, seg.footerBad = 0, true
		s.pageBytes.Add(end - footerEnd)
		s.mu.Unlock()
	}
	_, err := eachOnPages(file, seg.at(0), end, s.opts.Hint, each)
	if errors.As(err, &owner) {
		return owner.error
	}
	if err == nil && sum.count() != records {
		err = seg.at(0).corrupt("another number of records than the checkpoint has", records, sum.count())
	}
	if err == nil {
		seg.tally.set(sum)
	}
	return err
}
