package engine

import (
	"fmt"
	"slices"

	"quire/index"
	"quire/pagestore"
)

// leasedKey is a key found with a lease while the index is rebuilt. Whether it
// still counts is known when every version has been seen.
type leasedKey struct {
	key   string
	mod   int64
	lease int64
}

// loadIndex rebuilds the index and the lease attachments from the hints of the
// page store.
func (e *Engine) loadIndex(compactRev int64) error {
	k := e.ap.k
	dead, err := k.readGraves(e.ap.rev)
	if err != nil {
		return err
	}
	var dropped []index.VersionRef
	l := k.idx.NewLoader(index.LoadOptions{Workers: e.opts.Workers, Dropped: func(v index.VersionRef) { dropped = append(dropped, v) },
		Twin: func(loc index.Loc) { k.store.Free(pagestore.Ref(loc)) }})
	leased := make([][]leasedKey, e.opts.Workers)
	strays := make([][]stray, e.opts.Workers)
	err = k.store.Hints(e.opts.Workers, func(worker int, ref pagestore.Ref, _ int, hint []byte) error {
		if isGrave(hint) {
			if _, ok := k.graves[ref]; !ok {
				k.store.Free(ref)
			}
			return nil
		}
		var kv keyValue
		if err := decodeHint(hint, &kv); err != nil {
			return fmt.Errorf("record at %v: %w", ref, err)
		}
		if g, ok := dead.find(version{kv.mod, int32(kv.sub)}); ok {
			k.store.Free(ref)
			if seg := ref.Segment(); !slices.Contains(k.graves[g].segments, seg) {
				strays[worker] = append(strays[worker], stray{g, seg})
			}
			return nil
		}
		if kv.mod > e.ap.rev {
			return fmt.Errorf("engine: record at %v has revision %d, the checkpoint ends at %d", ref, kv.mod, e.ap.rev)
		}
		err := l.Add(worker, kv.key, index.Version{Main: kv.mod, Sub: int32(kv.sub), Create: kv.create, Ver: kv.version,
			Loc: index.Loc(ref), Tombstone: kv.tombstone, HasLease: kv.lease != 0})
		if err != nil {
			return fmt.Errorf("record at %v: %w", ref, err)
		}
		if kv.lease != 0 {
			leased[worker] = append(leased[worker], leasedKey{string(kv.key), kv.mod, kv.lease})
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.extendGraves(strays)
	if err := l.Finish(max(compactRev, 0)); err != nil {
		return err
	}
	for _, ks := range leased {
		for _, lk := range ks {
			if v, ok := k.idx.Get([]byte(lk.key), index.Newest); ok && v.Main == lk.mod && e.lessor.exists(lk.lease) {
				e.lessor.attach([]byte(lk.key), lk.lease)
			}
		}
	}
	for batch := range slices.Chunk(dropped, e.opts.CompactionBatch) {
		if err := e.bury(batch); err != nil {
			return err
		}
	}
	e.compactor.mu.Lock()
	e.compactor.mu.target, e.compactor.mu.removed = compactRev, compactRev
	e.compactor.mu.Unlock()
	return nil
}
