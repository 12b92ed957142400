package engine

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"quire/index"
	"quire/pagestore"
)

// What compaction removed stays in its segment until reclaim empties that. A
// restart rebuilds the index from all records of all segments, so it must know
// which of them are dead. Most dead records show it themselves, because a newer
// version of their key is there. But a deleted key leaves no such evidence: when
// the segment with its tombstone is reclaimed, an older version that lies in
// another segment would come back to life.
//
// So each compaction step appends a grave to the page store: a record that names
// the versions it removed. A grave lives for as long as one of the segments in
// which they lay does, and the checkpoint's state lists the graves, so that a
// start reads them before it looks at the records.
//
// Encoding of a grave, behind the record prefix that marks it:
//
//	uvarint  number of segments, then each segment id
//	uvarint  number of versions, then each version in order:
//	         uvarint main (the difference to the one before), uvarint sub

// grave is what the engine keeps of a grave in memory.
type grave struct {
	segments []uint32
	// before is where it lay before reclaim moved it, 0 if it has not been moved.
	// A checkpoint may have been cut between the move and the moment at which
	// copies enter checkpoints; then only the old place is there after a crash.
	before pagestore.Ref
}

// version identifies a record wherever it lies: at most one version of any key
// has this revision and place in it.
type version struct {
	main int64
	sub  int32
}

func (v version) compare(w version) int {
	return cmp.Or(cmp.Compare(v.main, w.main), cmp.Compare(v.sub, w.sub))
}

// gravePrefix marks a record as a grave: no event has this sub number.
const gravePrefix = 1<<32 | 1

// appendGrave encodes freed, which it sorts, as a record.
func appendGrave(dst []byte, freed []index.VersionRef) ([]byte, grave) {
	slices.SortFunc(freed, func(a, b index.VersionRef) int {
		return version{a.Main, a.Sub}.compare(version{b.Main, b.Sub})
	})
	var g grave
	for i := range freed {
		g.segments = append(g.segments, pagestore.Ref(freed[i].Loc).Segment())
	}
	slices.Sort(g.segments)
	g.segments = slices.Compact(g.segments)
	dst = binary.AppendUvarint(dst, gravePrefix)
	dst = binary.AppendUvarint(dst, uint64(len(g.segments)))
	for _, id := range g.segments {
		dst = binary.AppendUvarint(dst, uint64(id))
	}
	dst = binary.AppendUvarint(dst, uint64(len(freed)))
	last := int64(0)
	for i := range freed {
		dst = binary.AppendUvarint(dst, uint64(freed[i].Main-last))
		dst = binary.AppendUvarint(dst, uint64(freed[i].Sub))
		last = freed[i].Main
	}
	return dst, g
}

// isGrave tells whether a record or a hint is one.
func isGrave(b []byte) bool {
	p, n := binary.Uvarint(b)
	return n > 0 && p == gravePrefix
}

var errGrave = errors.New("engine: grave is cut")

func decodeGrave(rec []byte) (g grave, dead []version, err error) {
	r := fieldReader{p: rec}
	if r.next() != gravePrefix {
		return g, nil, errGrave
	}
	for n := r.next(); n > 0 && r.err == nil; n-- {
		g.segments = append(g.segments, uint32(r.next()))
	}
	last := int64(0)
	for n := r.next(); n > 0 && r.err == nil; n-- {
		last += int64(r.next())
		dead = append(dead, version{last, int32(r.next())})
	}
	if r.err != nil || len(r.p) != 0 {
		return g, nil, errGrave
	}
	return g, dead, nil
}

// bury frees the records of removed versions and remembers that they are dead.
// The caller holds Engine.writer.
func (e *Engine) bury(freed []index.VersionRef) error {
	if len(freed) == 0 {
		return nil
	}
	k := e.ap.k
	for i := range freed {
		k.store.Free(pagestore.Ref(freed[i].Loc))
	}
	rec, g := appendGrave(e.ap.rec[:0], freed)
	e.ap.rec = rec
	ref, err := k.store.Append(rec)
	if err != nil {
		return fmt.Errorf("engine: page store: %w", err)
	}
	e.ap.bytes += int64(len(rec))
	k.graves[ref] = g
	return nil
}

// needed tells whether anything that the grave at ref names can still be there;
// if not, the grave is forgotten. The caller holds Engine.writer.
func (k *keyspace) needed(ref pagestore.Ref) bool {
	g, ok := k.graves[ref]
	if ok && !slices.ContainsFunc(g.segments, k.store.HasSegment) {
		delete(k.graves, ref)
		ok = false
	}
	return ok
}

// gravePlace is where a checkpoint says that a grave lies: in one of two places.
type gravePlace struct{ ref, before pagestore.Ref }

// gravePlaces lists the graves for a checkpoint. The caller holds Engine.writer.
func (k *keyspace) gravePlaces() []gravePlace {
	places := make([]gravePlace, 0, len(k.graves))
	for ref, g := range k.graves {
		places = append(places, gravePlace{ref, g.before})
	}
	slices.SortFunc(places, func(a, b gravePlace) int { return cmp.Compare(a.ref, b.ref) })
	return places
}

// readGraves reads the graves that the checkpoint lists and returns who lies in
// them. rev is its newest revision.
func (k *keyspace) readGraves(rev int64) (*deadSet, error) {
	d := new(deadSet)
	for _, p := range k.gravePlaces() {
		delete(k.graves, p.ref)
		g, dead, err := k.readGrave(p.ref)
		if err != nil && p.before != 0 {
			var old error
			if g, dead, old = k.readGrave(p.before); old == nil {
				p.ref, err = p.before, nil
			}
		}
		if err != nil {
			return nil, err
		}
		k.graves[p.ref] = g
		for _, v := range dead {
			d.buried = append(d.buried, buried{v, p.ref})
		}
	}
	d.build(rev)
	return d, nil
}

func (k *keyspace) readGrave(ref pagestore.Ref) (grave, []version, error) {
	rec, err := k.store.Read(ref)
	if err != nil {
		return grave{}, nil, fmt.Errorf("grave at %v: %w", ref, err)
	}
	g, dead, err := decodeGrave(rec)
	if err != nil {
		err = fmt.Errorf("%w, at %v", err, ref)
	}
	return g, dead, err
}

// deadSet answers whether a version is dead. A bit per revision spares nearly
// all searches for versions that are alive.
type deadSet struct {
	buried []buried
	bits   []uint64
}

// buried is a dead version and the grave that names it.
type buried struct {
	version
	grave pagestore.Ref
}

func (d *deadSet) build(lastRev int64) {
	if len(d.buried) == 0 {
		return
	}
	slices.SortFunc(d.buried, func(a, b buried) int { return a.compare(b.version) })
	d.bits = make([]uint64, lastRev/64+1)
	for _, b := range d.buried {
		if b.main >= 0 && b.main <= lastRev {
			d.bits[b.main/64] |= 1 << (b.main % 64)
		}
	}
}

// find returns the grave of a dead version.
func (d *deadSet) find(v version) (grave pagestore.Ref, ok bool) {
	if len(d.bits) == 0 || v.main < 0 || v.main/64 >= int64(len(d.bits)) || d.bits[v.main/64]>>(v.main%64)&1 == 0 {
		return 0, false
	}
	i, ok := slices.BinarySearchFunc(d.buried, v, func(b buried, v version) int { return b.compare(v) })
	if !ok {
		return 0, false
	}
	return d.buried[i].grave, true
}

// stray is a dead record found in a segment that its grave does not name: the page
// store undoes an interrupted reclaim at a restart, and what had been moved, and
// died in its new place, is at its old one again.
type stray struct {
	grave   pagestore.Ref
	segment uint32
}

// extendGraves has graves live for as long as the segments in which their dead
// were found, too.
func (k *keyspace) extendGraves(found [][]stray) {
	for _, strays := range found {
		for _, s := range strays {
			if g := k.graves[s.grave]; !slices.Contains(g.segments, s.segment) {
				g.segments = append(g.segments, s.segment)
				k.graves[s.grave] = g
			}
		}
	}
}
