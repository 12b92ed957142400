package watchfanout

import "testing"

// checkInvariants verifies the structure of a hub on which no other goroutine
// is at work.
func (h *Hub) checkInvariants(t testing.TB) {
	t.Helper()
	h.mu.Lock() // before stream.mu: nobody else is there to wait the other way round
	defer h.mu.Unlock()
	var watchers, slow, prevs int64
	attached := map[*cursor]bool{}
	for s := range h.streams {
		func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			w, sl, p := s.checkInvariants(t)
			watchers, slow, prevs = watchers+w, slow+sl, prevs+p
			for _, c := range s.ids {
				if c != nil && c.state == stateSynced {
					attached[c] = true
				}
			}
		}()
	}
	if watchers != h.watchers.Load() || slow != h.slow.Load() || prevs != h.prevs.Load() {
		t.Fatalf("%d watchers, %d slow, %d prev; counted %d, %d, %d", watchers, slow, prevs, h.watchers.Load(), h.slow.Load(), h.prevs.Load())
	}
	n := h.synced.checkInvariants(t, func(c *cursor) {
		if !attached[c] || c.state != stateSynced {
			t.Fatalf("cursor %+v in the live matcher belongs to no watcher", c)
		}
	})
	if n != len(attached) {
		t.Fatalf("%d synced cursors, %d in the matcher", len(attached), n)
	}
}

func (m *matcher) checkInvariants(t testing.TB, each func(*cursor)) (cursors int) {
	t.Helper()
	groups := m.appendGroups(nil)
	if len(groups) != m.groups {
		t.Fatalf("%d groups, counted %d", len(groups), m.groups)
	}
	for _, g := range groups {
		if len(g.cursors) == 0 || g.touched != 0 || m.find(g.span()) == nil {
			t.Fatalf("group %+v", g)
		}
		for i, c := range g.cursors {
			if int(c.pos) != i || c.group != g {
				t.Fatalf("cursor %+v at %d", c, i)
			}
			each(c)
		}
		cursors += len(g.cursors)
	}
	for g, hot := range m.hot {
		for k, c := range hot {
			if c.group != g || c.stream != k.stream || c.variant != k.variant || g.cursors[c.pos] != c {
				t.Fatalf("hot cursor %+v", c)
			}
		}
	}
	m.ranges.root.checkInvariants(t)
	return cursors
}

func (n *intervalNode) checkInvariants(t testing.TB) {
	if n == nil {
		return
	}
	want := *n
	want.update()
	if want.maxHi != n.maxHi || want.maxInf != n.maxInf {
		t.Fatalf("interval %+v", n)
	}
	for _, c := range []*intervalNode{n.left, n.right} {
		if c != nil && c.priority > n.priority {
			t.Fatalf("interval %+v is no heap", n)
		}
	}
	n.left.checkInvariants(t)
	n.right.checkInvariants(t)
}

func (s *Stream) checkInvariants(t testing.TB) (watchers, slow, prevs int64) {
	t.Helper()
	cursors := map[*cursor]bool{}
	for id, c := range s.ids {
		if c == nil {
			continue
		}
		watchers++
		if i := s.memberAt(c, id); i < 0 || c.members[i].id != id {
			t.Fatalf("watcher %d is not in its cursor %+v", id, c)
		}
		if c.state != stateSynced {
			slow++
		}
		if c.variant&wantPrev != 0 {
			prevs++
		}
		cursors[c] = true
	}
	unsynced, reading, members := 0, 0, 0
	for c := range cursors {
		members += len(c.members)
		if int(c.n) != len(c.members) || c.stream != s || c.state == stateDead {
			t.Fatalf("cursor %+v", c)
		}
		if c.state != stateSynced {
			unsynced++
		}
		if c.state == stateCatchup {
			reading++
			if c.cohort == nil || c.cohort.pos > max(c.floor, c.cohort.pos) {
				t.Fatalf("cursor %+v has no cohort", c)
			}
		}
		for _, m := range c.members {
			if m.floor < c.floor && c.state == stateSynced && c.floor > s.hub.Revision()+1 {
				t.Fatalf("cursor %+v is ahead of %+v", c, m)
			}
		}
	}
	if unsynced != s.unsynced || int64(members) != watchers || s.live != members {
		t.Fatalf("%d unsynced cursors, counted %d; %d members of %d watchers, live %d", unsynced, s.unsynced, members, watchers, s.live)
	}
	listed := 0
	for _, co := range s.cohorts {
		listed += co.matcher.checkInvariants(t, func(c *cursor) {
			if c.cohort != co || c.state != stateCatchup {
				t.Fatalf("cursor %+v in a cohort", c)
			}
		})
		in := map[*cursor]bool{}
		for _, c := range co.list {
			if c.cohort == co {
				in[c] = true
			}
		}
		if len(in) != co.count() {
			t.Fatalf("cohort lists %d of %d", len(in), co.count())
		}
	}
	if listed != reading {
		t.Fatalf("%d cursors catch up, %d are in cohorts", reading, listed)
	}
	return watchers, slow, prevs
}
