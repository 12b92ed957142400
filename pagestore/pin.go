package pagestore

import (
	"slices"
	"sync/atomic"
)

// pins let readers hold back the removal of segments without a shared list.
// Time is cut into ages. A Pin counts in the age that it was taken in; segments
// that go are entered at the end of an age, and are removed when no Pin of that
// age or an older one is left. A Pin of a later age does not matter: when it was
// taken, the owner's index no longer pointed there.
type pins struct{ age atomic.Pointer[age] }

type age struct{ held atomic.Int64 }

// Pin keeps every segment that was readable when it was taken. It costs two
// atomic additions and may be held for long: for as long, the space of what is
// reclaimed meanwhile is not given back.
type Pin struct{ age *age }

// Pin returns a Pin that must be released once.
func (s *Store) Pin() Pin {
	for {
		a := s.pins.age.Load()
		a.held.Add(1)
		// Whoever ends an age replaces it first and looks at held afterwards:
		// if it is still this one, held has been seen.
		if s.pins.age.Load() == a {
			return Pin{a}
		}
		a.held.Add(-1)
	}
}

// Release ends the Pin.
func (p Pin) Release() {
	if p.age.held.Add(-1) < 0 {
		panic("pagestore: Pin released twice")
	}
}

// Idle tells whether no Pin is held.
func (s *Store) Idle() bool {
	s.committing.Lock()
	defer s.committing.Unlock()
	for _, d := range s.committing.dropped {
		if d.age.held.Load() > 0 {
			return false
		}
	}
	return s.pins.age.Load().held.Load() == 0
}

// doomed are segments that no manifest names any more, with the age in which
// that became so.
type doomed struct {
	segs []*segment
	age  *age
}

// doomLocked enters segments for removal. The caller holds committing.
func (s *Store) doomLocked(segs []*segment) {
	if len(segs) == 0 {
		return
	}
	ended := s.pins.age.Swap(new(age))
	s.committing.dropped = append(s.committing.dropped, &doomed{segs, ended})
}

// sweepLocked removes the segments that no Pin holds. The caller holds
// committing. They are entered in the order of ages, so that the first one that
// is held ends it.
func (s *Store) sweepLocked() error {
	for len(s.committing.dropped) > 0 {
		d := s.committing.dropped[0]
		if d.age.held.Load() > 0 {
			return nil
		}
		s.committing.dropped = s.committing.dropped[1:]
		if err := s.drop(d.segs); err != nil {
			return err
		}
	}
	return nil
}

// drop removes segments: from the table, from memory and from the disk. A reader
// inside a file operation keeps the file open until it is done.
func (s *Store) drop(segs []*segment) error {
	s.mu.Lock()
	s.publishLocked(func(m map[segmentID]*segment) {
		for _, seg := range segs {
			delete(m, seg.id)
			s.pageBytes.Add(-max(seg.end, seg.footerEnd))
		}
	})
	s.mu.order = slices.DeleteFunc(s.mu.order, func(g *segment) bool { return slices.Contains(segs, g) })
	s.mu.Unlock()
	for _, seg := range segs {
		s.cache.forget(seg)
		created := seg.file.Load() != nil
		seg.release()
		if !created {
			continue
		}
		if err := s.fsys.Remove(seg.name); err != nil {
			return err
		}
	}
	return nil
}
