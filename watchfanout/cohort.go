package watchfanout

// maxCohorts bounds how many positions of history one stream reads at a time.
const maxCohorts = 4

// nearRevisions is how far behind a cohort may be for a cursor to join it
// rather than to open another one.
const nearRevisions = 4096

// cohort is cursors of one stream that read history together: each chunk is
// read once for all of them. Everything below pos was given to every cursor of
// the cohort, or is below the cursor's floor. Owned by stream.mu.
type cohort struct {
	matcher matcher
	pos     int64
	started bool
	plain   int       // cursors that want no prev_kv
	full    int       // cursors that do
	list    []*cursor // all cursors, and some that have left: their cohort is another
}

func (co *cohort) count() int { return co.plain + co.full }

func (co *cohort) add(c *cursor) {
	co.matcher.attach(co.matcher.add(c.group.span()), c)
	c.cohort = co
	if c.variant&wantPrev != 0 {
		co.full++
	} else {
		co.plain++
	}
	if len(co.list) > 2*co.count()+16 {
		co.sweep()
	}
	co.list = append(co.list, c)
}

func (co *cohort) remove(c *cursor) {
	co.matcher.detach(c)
	c.cohort = nil
	if c.variant&wantPrev != 0 {
		co.full--
	} else {
		co.plain--
	}
}

// sweep drops from the list what has left, and duplicates of what came back.
func (co *cohort) sweep() {
	seen := make(map[*cursor]struct{}, co.count())
	kept := co.list[:0]
	for _, c := range co.list {
		if _, dup := seen[c]; c.cohort == co && !dup {
			seen[c] = struct{}{}
			kept = append(kept, c)
		}
	}
	clear(co.list[len(kept):])
	co.list = kept
}

// rewind moves the cohort back for a cursor that needs pos; the others have
// had what comes before the old position.
func (co *cohort) rewind(pos int64) {
	if co.started {
		for _, c := range co.list {
			if c.cohort == co {
				c.floor = max(c.floor, co.pos)
			}
		}
	}
	co.pos = pos
}

// catchupCursor is the stream's cursor that will read history from rev on for
// a new watcher. It joins one that waits for the same, so that many watchers
// of one range and revision are one cursor. h.mu and s.mu are held.
func (s *Stream) catchupCursor(sp span, v variant, rev int64) *cursor {
	for _, co := range s.cohorts {
		if co.pos > rev || rev-co.pos > nearRevisions {
			continue
		}
		if g := co.matcher.find(sp); g != nil {
			if c := co.matcher.cursor(g, s, v); c != nil && c.floor <= rev {
				return c
			}
		}
	}
	c := &cursor{stream: s, variant: v, floor: rev, state: stateCatchup}
	c.group = &group{kind: sp.kind, key: string(sp.key), end: string(sp.end)}
	s.unsynced++
	s.join(c)
	return c
}

// join puts a cursor into the cohort that suits its floor best. s.mu is held.
func (s *Stream) join(c *cursor) {
	var best, lowest *cohort
	for _, co := range s.cohorts {
		if !co.started && co.pos > c.floor && co.pos-c.floor <= nearRevisions {
			co.pos = c.floor
		}
		if co.pos <= c.floor && (best == nil || co.pos > best.pos) {
			best = co
		}
		if lowest == nil || co.pos < lowest.pos {
			lowest = co
		}
	}
	full := len(s.cohorts) >= maxCohorts
	switch {
	case best != nil && (full || c.floor-best.pos <= nearRevisions):
	case !full:
		best = &cohort{pos: c.floor}
		s.cohorts = append(s.cohorts, best)
	default:
		best = lowest
		best.rewind(c.floor)
	}
	best.add(c)
}

// adopt takes the cursors that the publisher has demoted. It is false if the
// queue was shed since the stream was scheduled: the next Fill will schedule it.
func (s *Stream) adopt() bool {
	h := s.hub
	s.q.mu.Lock()
	if s.q.starved {
		s.q.mu.Unlock()
		return false
	}
	demoted := s.q.demoted
	s.q.demoted = nil
	s.q.mu.Unlock()
	if len(demoted) == 0 {
		return true
	}
	h.mu.Lock()
	alive := demoted[:0]
	for _, c := range demoted {
		if c.state == stateDemoted {
			c.state = stateCatchup
			alive = append(alive, c)
		}
	}
	h.mu.Unlock()
	for _, c := range alive {
		s.join(c)
	}
	return true
}

// nextCohort takes the next one in turn and forgets those that are empty.
func (s *Stream) nextCohort() *cohort {
	kept := s.cohorts[:0]
	for _, co := range s.cohorts {
		if co.count() > 0 {
			kept = append(kept, co)
		}
	}
	clear(s.cohorts[len(kept):])
	s.cohorts = kept
	if len(kept) == 0 {
		return nil
	}
	s.turn = (s.turn + 1) % len(kept)
	return kept[s.turn]
}
