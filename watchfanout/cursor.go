package watchfanout

// variant is what a watcher asked to see of each event. Watchers of one
// stream, range and variant get the same bytes.
type variant uint8

const (
	wantPrev variant = 1 << iota
	noPut
	noDelete
)

// sees says whether the variant lets an event through.
func (v variant) sees(del bool) bool {
	if del {
		return v&noDelete == 0
	}
	return v&noPut == 0
}

// state is where a cursor is kept. Guarded by hub.mu.
type state uint8

const (
	stateSynced  state = iota // in hub.synced: Publish offers it events
	stateDemoted              // in stream.q.demoted: a worker will adopt it
	stateCatchup              // in a cohort of its stream
	stateDead                 // nowhere: no watcher is left but those passed by compaction
)

const (
	memberFragment = 1 << iota // split large responses
	memberProgress             // wants progress notifications at an interval
	memberIdle                 // got no event since the last interval
	memberFuture               // started at a revision that was not there yet
)

// member is one watcher. It is given events of revisions >= floor only.
// Owned by stream.mu.
type member struct {
	id    int64
	floor int64
	flags uint8
}

// cursor is all watchers of one stream with the same range, variant and
// position. It is what Publish offers events to and what is demoted when the
// stream is slow; a slow cursor keeps no event, only the revision it needs next.
type cursor struct {
	stream  *Stream
	group   *group   // range, and place while synced (hub.mu) or in a cohort (stream.mu)
	cohort  *cohort  // stream.mu; nil unless state is stateCatchup
	members []member // stream.mu
	floor   int64    // first revision not given yet; hub.mu while synced, then whoever holds the state
	pos     int32    // position in group.cursors
	n       int32    // watchers, as counted in the gauges; hub.mu
	variant variant
	state   state
}

// indexedMembers is from how many watchers on a cursor gets a map by id.
const indexedMembers = 16

// memberAt returns the position of a watcher in c.members or -1. stream.mu is held.
func (s *Stream) memberAt(c *cursor, id int64) int {
	if m := s.index[c]; m != nil {
		if i, ok := m[id]; ok {
			return int(i)
		}
		return -1
	}
	for i := range c.members {
		if c.members[i].id == id {
			return i
		}
	}
	return -1
}

// addMember appends a watcher. An expansion of the cursor that is under way
// will come past it, but its floor is above every revision queued so far.
func (s *Stream) addMember(c *cursor, m member) {
	s.ids[m.id] = c
	c.members = append(c.members, m)
	n := len(c.members)
	index := s.index[c]
	if index == nil {
		if n <= indexedMembers {
			return
		}
		index = make(map[int64]int32, 2*n)
		if s.index == nil {
			s.index = map[*cursor]map[int64]int32{}
		}
		s.index[c] = index
		for i := range c.members {
			index[c.members[i].id] = int32(i)
		}
	}
	index[m.id] = int32(n - 1)
}

// dropMember removes the watcher at i in constant time. While the cursor's
// item is being expanded, [0, cur.pos) stay the watchers that are done and the
// one at cur.pos stays the one under way.
func (s *Stream) dropMember(c *cursor, i int) {
	last := len(c.members) - 1
	delete(s.index[c], c.members[i].id)
	if x := &s.cur; x.item.c == c {
		if i == x.pos {
			x.leave()
		} else if i < x.pos {
			x.pos--
			s.moveMember(c, x.pos, i)
			i = x.pos
			if i < last {
				s.moveMember(c, i+1, i)
				i++
			}
		}
	}
	s.moveMember(c, last, i)
	c.members[last] = member{}
	c.members = c.members[:last]
	if last <= indexedMembers/2 {
		delete(s.index, c)
	}
}

func (s *Stream) moveMember(c *cursor, from, to int) {
	if from == to {
		return
	}
	m := c.members[from]
	c.members[to] = m
	if index := s.index[c]; index != nil {
		index[m.id] = int32(to)
	}
}
