package index

// Events appends to dst the events of whole revisions from revision from up
// to and including to, in order: as many revisions as it takes to reach
// limit events, at least one. next is the revision to go on with. It fails
// with ErrCompacted, appending nothing of use, if from is below the compact
// revision, at the start or before the last revision was complete.
//
// The events at the compact revision itself are there, but what they replaced
// is compacted: their PrevLoc is 0. to is the newest revision that readers may
// see; events later than it may already be in the log.
//
// Cost: O(log n) and two records per event; the read lock is held for at most
// 256 events at a time.
func (x *Index) Events(dst []Event, from, to int64, limit int) (events []Event, next int64, err error) {
	if from > to {
		return dst, from, nil
	}
	r := eventReader{x: x, to: to, next: from}
	events = dst
	for more := true; more; {
		if events, more = r.read(events, len(dst)+max(limit, 1)); r.compacted {
			return dst, from, ErrCompacted
		}
	}
	return events, r.next, nil
}

// eventReader is one call of Events between two holds of the lock.
type eventReader struct {
	x         *Index
	to        int64
	next      int64 // everything before it has been appended
	pos       uint64
	begun     bool
	compacted bool
}

// read appends up to 256 events and says whether there may be more to append.
func (r *eventReader) read(dst []Event, limit int) (events []Event, more bool) {
	x, g := r.x, &r.x.log
	x.mu.RLock()
	defer x.mu.RUnlock()
	if r.next < x.compact {
		r.compacted = true
		return dst, false
	}
	if !r.begun {
		r.pos, r.begun = g.seek(r.next), true
	}
	for range chunkKeys {
		r.pos = g.skipGap(r.pos)
		if r.pos >= g.tail {
			r.next = r.to + 1
			return dst, false
		}
		e := g.at(r.pos)
		if e.main > r.to {
			r.next = r.to + 1
			return dst, false
		}
		if e.main > r.next {
			r.next = e.main
			if len(dst) >= limit {
				return dst, false
			}
		}
		r.pos++
		dst = append(dst, x.event(e))
	}
	return dst, true
}

// event completes an entry of the log from the records.
func (x *Index) event(e entry) Event {
	flags := x.a.flags(e.ref)
	tombstone := flags&flagTombstone != 0
	ev := Event{
		Main:      e.main,
		Loc:       x.a.loc(e.ref),
		Sub:       x.a.sub(e.ref),
		Tombstone: tombstone,
		Created:   !tombstone && x.a.version(e.ref).Ver == 1,
		HasLease:  flags&flagLease != 0,
	}
	if prev := x.a.older(e.ref); prev != 0 && e.main > x.compact && x.a.live(prev) {
		ev.PrevLoc = x.a.loc(prev)
	}
	return ev
}
