package pagestore

import "fmt"

// checkInvariants verifies what holds between any two calls of a store without
// goroutines. The tests call it after every step.
func (s *Store) checkInvariants() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	table := *s.segments.Load()
	if len(table) != len(s.mu.order) {
		return fmt.Errorf("%d segments in the table, %d in order", len(table), len(s.mu.order))
	}
	pages := int64(0)
	for _, g := range s.mu.order {
		if table[g.id] != g {
			return fmt.Errorf("table has another segment %d", g.id)
		}
		if err := g.checkInvariants(); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		pages += max(g.end, g.footerEnd)
	}
	if got := s.pageBytes.Load(); got != pages {
		return fmt.Errorf("pageBytes is %d, segments have %d", got, pages)
	}
	dirty := int64(0)
	for _, a := range []*appender{&s.writer, &s.copier} {
		for i, f := range a.queue {
			dirty += int64(len(f.data))
			if f.seg.frame(f.page()) != f {
				return fmt.Errorf("dirty page %d of %s is not in its slot", f.page(), f.seg.name)
			}
			if i > 0 && a.queue[i-1].seg == f.seg && a.queue[i-1].head.off+int64(a.queue[i-1].head.length) != f.head.off {
				return fmt.Errorf("gap before page %d of %s", f.page(), f.seg.name)
			}
			if (i == 0 || a.queue[i-1].seg != f.seg) && f.head.off != f.seg.flushed.Load() {
				return fmt.Errorf("first dirty page of %s at %d, flushed to %d", f.seg.name, f.head.off, f.seg.flushed.Load())
			}
		}
	}
	if dirty != s.mu.dirty {
		return fmt.Errorf("dirty is %d, queues have %d", s.mu.dirty, dirty)
	}
	return s.cache.checkInvariants()
}

func (g *segment) checkInvariants() error {
	switch {
	case g.flushed.Load() > g.end || g.cutEnd > g.end || g.synced > g.flushed.Load():
		return fmt.Errorf("flushed %d, synced %d, cut %d, end %d", g.flushed.Load(), g.synced, g.cutEnd, g.end)
	case g.footerEnd != 0 && (!g.full || g.footerEnd <= g.end):
		return fmt.Errorf("footer to %d, end %d, full %v", g.footerEnd, g.end, g.full)
	case g.doomed && !g.retired:
		return fmt.Errorf("doomed but not retired")
	case g.cutRecords > g.records:
		return fmt.Errorf("%d records, %d at the cut", g.records, g.cutRecords)
	}
	return nil
}

func (c *cache) checkInvariants() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	bytes := int64(0)
	for _, f := range c.mu.ring {
		bytes += int64(len(f.data))
		if f.seg.frame(f.page()) != f {
			return fmt.Errorf("cached page %d of %s is not in its slot", f.page(), f.seg.name)
		}
	}
	if bytes != c.mu.bytes || bytes > c.limit {
		return fmt.Errorf("cache has %d bytes, thinks %d, limit %d", bytes, c.mu.bytes, c.limit)
	}
	return nil
}
