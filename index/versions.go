package index

import (
	"bytes"
	"cmp"
	"slices"
)

const (
	// refsPerCall is how many versions AllVersions hands over at a time.
	refsPerCall = 1024
	// olderRefs bounds what AllVersions collects in one pass over the keys:
	// it sorts and cuts when it has twice as many, 100 MB.
	olderRefs = 2 << 20
)

// AllVersions calls fn with every retained version up to and including
// revision upTo, ordered by (Main, Sub), in chunks that are valid during the
// call and without any lock. It fails with ErrCompacted if the compact
// revision is above upTo or moves meanwhile; what fn has been given by then
// is not all.
//
// Cost: versions from the compact revision on are read off the revision log.
// Older ones, at most one per key, take a pass over all keys and a sort for
// every two million of them. The read lock is held for at most 256 keys or
// events at a time.
func (x *Index) AllVersions(upTo int64, fn func(chunk []VersionRef)) error {
	c := collector{x: x, compact: x.CompactRevision(), limit: olderRefs}
	if c.compact > upTo {
		return ErrCompacted
	}
	return c.run(upTo, fn)
}

// collector is one call of AllVersions.
type collector struct {
	x       *Index
	compact int64 // when the call began
	limit   int
	refs    []VersionRef
	from    int64 // the pass collects versions with Main in [from, below)
	below   int64
	last    []byte // last key visited in this pass
	begun   bool   // there is one
	pos     uint64 // of the next event
}

func (c *collector) run(upTo int64, fn func(chunk []VersionRef)) error {
	for c.from = 1; c.from < c.compact; c.from = c.below {
		c.refs, c.below, c.begun = c.refs[:0], c.compact, false
		for more := true; more; {
			var err error
			if more, err = c.visitKeys(); err != nil {
				return err
			}
			if len(c.refs) >= 2*c.limit {
				c.cut()
			}
		}
		c.sort()
		for chunk := range slices.Chunk(c.refs, refsPerCall) {
			fn(chunk)
		}
	}
	for begun := false; ; begun = true {
		more, err := c.readEvents(begun, upTo)
		if err != nil {
			return err
		}
		if len(c.refs) > 0 {
			fn(c.refs)
		}
		if !more {
			return nil
		}
	}
}

func (c *collector) sort() {
	slices.SortFunc(c.refs, func(a, b VersionRef) int {
		return cmp.Or(cmp.Compare(a.Main, b.Main), cmp.Compare(a.Sub, b.Sub))
	})
}

// cut keeps the earliest versions, about limit of them, and leaves the others
// to a later pass. It never divides a revision.
func (c *collector) cut() {
	c.sort()
	n := c.limit
	for n < len(c.refs) && c.refs[n].Main == c.refs[n-1].Main {
		n++
	}
	if n < len(c.refs) {
		c.below = c.refs[n].Main
		c.refs = c.refs[:n]
	}
}

// visitKeys collects from the keys behind last under one hold of the lock and
// says whether there are more.
func (c *collector) visitKeys() (more bool, err error) {
	x := c.x
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.compact != c.compact {
		return false, ErrCompacted
	}
	if !c.begun {
		c.last = c.last[:0]
	}
	at, _ := x.tree.seek(c.last)
	visited := 0
	for {
		l := x.tree.leaves.at(at.leaf)
		for ; at.i < int(l.n); at.i++ {
			key := x.a.key(l.ref[at.i])
			if c.begun && visited == 0 && bytes.Equal(key, c.last) {
				continue
			}
			c.visitKey(l.ref[at.i])
			if visited++; visited == chunkKeys {
				c.last, c.begun = append(c.last[:0], key...), true
				return true, nil
			}
		}
		if l.next == 0 {
			return false, nil
		}
		at = spot{l.next, 0}
	}
}

// visitKey collects the version of the key's record r that is older than the
// compact revision and was not superseded by it, if it is a put.
func (c *collector) visitKey(r ref) {
	a := c.x.a
	r = a.find(r, c.compact, c.compact)
	if r == 0 || !a.live(r) {
		return
	}
	if main := a.main(r); main >= c.from && main < c.below {
		c.refs = append(c.refs, VersionRef{main, a.loc(r), a.sub(r), false})
	}
}

// readEvents collects the versions of the next events up to upTo under one
// hold of the lock and says whether there may be more.
func (c *collector) readEvents(begun bool, upTo int64) (more bool, err error) {
	x, g := c.x, &c.x.log
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.compact != c.compact {
		return false, ErrCompacted
	}
	if !begun {
		c.pos = g.seek(c.compact)
	}
	c.refs = c.refs[:0]
	for range chunkKeys {
		c.pos = g.skipGap(c.pos)
		if c.pos >= g.tail {
			return false, nil
		}
		e := g.at(c.pos)
		if e.main > upTo {
			return false, nil
		}
		c.pos++
		c.refs = append(c.refs, VersionRef{e.main, x.a.loc(e.ref), x.a.sub(e.ref), !x.a.live(e.ref)})
	}
	return true, nil
}
