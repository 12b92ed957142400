package watchfanout

import (
	"cmp"
	"slices"
)

// Rights are asked for when a watcher is made (StreamOptions.Permit). When they
// change later the owner calls Recheck, and every watcher whose client may not
// have it any more is canceled with the reason, from a goroutine of its own: a
// change of rights costs the apply goroutine nothing, and fan-out never looks
// at rights. Events published until then, a few milliseconds after the change,
// may still be sent.

// Recheck has all watchers checked again soon. It does not block.
func (h *Hub) Recheck() {
	h.rights.Add(1)
	select {
	case h.check <- struct{}{}:
	default: // one check that has not begun is enough
	}
}

// recheckLoop is a goroutine of the hub.
func (h *Hub) recheckLoop() {
	defer h.wg.Done()
	for {
		select {
		case <-h.done:
			return
		case <-h.check:
		}
		h.recheckAll()
	}
}

func (h *Hub) recheckAll() {
	for _, s := range h.allStreams() {
		s.recheck()
	}
}

// recheck cancels the watchers that may not stay.
func (s *Stream) recheck() {
	if s.keep == nil {
		return
	}
	may := s.keep()
	if may == nil {
		return
	}
	s.mu.Lock()
	answers := s.revoke(may)
	wake := false
	if len(answers) > 0 {
		s.q.mu.Lock()
		for _, c := range answers {
			wake = s.q.pushControl(c) || wake
		}
		s.q.mu.Unlock()
	}
	s.mu.Unlock()
	s.hub.counts.revoked.Add(uint64(len(answers)))
	if wake {
		s.ready()
	}
}

// revoke removes the watchers that may not stay and returns the answers to
// send. stream.mu is held.
func (s *Stream) revoke(may func(key, rangeEnd []byte) error) (answers []control) {
	if s.closed {
		return nil
	}
	rev := s.hub.Revision()
	asked := make(map[*cursor]error, len(s.ids))
	for id, c := range s.ids {
		if c == nil {
			continue
		}
		err, ok := asked[c]
		if !ok {
			err = may(c.group.request())
			asked[c] = err
		}
		if err == nil {
			continue
		}
		delete(s.ids, id)
		s.removeMember(c, s.memberAt(c, id))
		answers = append(answers, control{kind: controlRevoked, id: id, rev: rev, reason: err.Error()})
	}
	slices.SortFunc(answers, func(a, b control) int { return cmp.Compare(a.id, b.id) })
	return answers
}

// request returns the group's range as a create request names it.
func (g *group) request() (key, rangeEnd []byte) {
	key = []byte(g.key)
	switch g.kind {
	case kindExact:
		return key, nil
	case kindAll:
		return []byte{0}, []byte{0}
	case kindFrom:
		return key, []byte{0}
	case kindPrefix:
		return key, endOfPrefix(key)
	}
	return key, []byte(g.end)
}

// endOfPrefix returns the first key behind those that start with prefix, which
// has a byte below 0xff.
func endOfPrefix(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}
