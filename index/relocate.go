package index

import (
	"bytes"
	"slices"
)

// Relocation names a version whose record has moved.
type Relocation struct {
	Key  []byte
	Main int64
	Sub  int32
	Old  Loc
	New  Loc
}

// Relocate sets the location of a version to m.New, provided it is m.Old. It
// returns false if it is not, or if the version has been removed: then the
// record at m.New is not wanted. Must be called between BeginWrite and
// EndWrite.
func (x *Index) Relocate(m Relocation) bool {
	r := x.version(m.Key, m.Main, m.Sub)
	if r == 0 || x.a.loc(r) != m.Old {
		return false
	}
	if m.New > maxLoc {
		panic("index: location out of range")
	}
	x.a.setLoc(r, m.New)
	return true
}

// Holds says whether the version (main, sub) of key is retained and its
// record lies at loc. Reclaim asks it before it copies a record.
func (x *Index) Holds(m Relocation) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := x.version(m.Key, m.Main, m.Sub)
	return r != 0 && x.a.loc(r) == m.Old
}

// version returns the record of a retained version, or 0.
func (x *Index) version(key []byte, main int64, sub int32) ref {
	r := x.table.find(x.a, hashOf(key), key)
	if r == 0 {
		return 0
	}
	r = x.a.find(r, main, x.compact)
	for r != 0 && x.a.main(r) == main && x.a.sub(r) > sub {
		r = x.a.older(r)
	}
	if r == 0 || x.a.main(r) != main || x.a.sub(r) != sub {
		return 0
	}
	return r
}

// AllVersions calls fn with every retained version up to and including
// revision upTo, ordered by (Main, Sub), in chunks that are valid during the
// call. It fails with ErrCompacted if the compact revision is above upTo or
// moves meanwhile.
//
// It collects 24 bytes per version first, holding the read lock for at most
// 256 keys or versions at a time, and calls fn without any lock.
func (x *Index) AllVersions(upTo int64, fn func(chunk []VersionRef)) error {
	c := collector{x: x, upTo: upTo, compact: x.CompactRevision()}
	for c.step() {
	}
	if c.failed || c.compact > upTo {
		return ErrCompacted
	}
	slices.SortFunc(c.all, func(a, b VersionRef) int {
		if a.Main != b.Main {
			return int(a.Main - b.Main)
		}
		return int(a.Sub - b.Sub)
	})
	for chunk := range slices.Chunk(c.all, 1024) {
		fn(chunk)
	}
	return nil
}

// collector gathers the versions for AllVersions between holds of the lock.
type collector struct {
	x       *Index
	upTo    int64
	compact int64
	all     []VersionRef
	failed  bool

	begun bool
	last  []byte // the last key visited, or the one being visited
	// within: of the key last, versions from (main, sub) on have been taken.
	within bool
	main   int64
	sub    int32
	budget int // versions and keys left under this hold
}

// step visits some keys and says whether there are more.
func (c *collector) step() bool {
	x := c.x
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.compact != c.compact {
		c.failed = true
		return false
	}
	c.budget = chunkKeys
	at, _ := x.tree.seek(c.last)
	for {
		l := x.tree.leaves.at(at.leaf)
		for ; at.i < int(l.n); at.i++ {
			r := l.ref[at.i]
			key := x.a.key(r)
			if c.begun && !c.within && bytes.Equal(key, c.last) {
				continue
			}
			if !c.within || !bytes.Equal(key, c.last) {
				c.within = false
				c.last, c.begun = append(c.last[:0], key...), true
			}
			c.take(r)
			if c.budget <= 0 {
				return true
			}
		}
		if l.next == 0 {
			return false
		}
		at = spot{l.next, 0}
	}
}

// take collects versions of the key's record r while the budget lasts; if it
// ends before they do, within is set.
func (c *collector) take(r ref) {
	x := c.x
	c.budget--
	if c.within {
		r = x.a.find(r, c.main, c.compact)
		for r != 0 && x.a.main(r) == c.main && x.a.sub(r) >= c.sub {
			r = x.a.older(r)
		}
		c.within = false
	} else {
		r = x.a.find(r, c.upTo, c.compact)
	}
	for r != 0 {
		main, live := x.a.main(r), x.a.live(r)
		if live || main >= c.compact {
			c.all = append(c.all, VersionRef{main, x.a.loc(r), x.a.sub(r), !live})
		}
		if main < c.compact {
			return
		}
		c.main, c.sub = main, x.a.sub(r)
		if r = x.a.older(r); r != 0 && main == c.compact && x.a.main(r) < main {
			return // superseded, not removed yet
		}
		if c.budget--; c.budget <= 0 {
			c.within = true
			return
		}
	}
}
