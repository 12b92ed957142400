package engine

import (
	"fmt"

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
	l := e.idx.NewLoader(index.LoadOptions{Workers: e.opts.Workers, Dropped: func(loc index.Loc) { e.store.Free(pagestore.Ref(loc)) }})
	leased := make([][]leasedKey, e.opts.Workers)
	err := e.store.Hints(e.opts.Workers, func(worker int, ref pagestore.Ref, _ int, hint []byte) error {
		var kv keyValue
		if err := decodeHint(hint, &kv); err != nil {
			return fmt.Errorf("record at %#x: %w", uint64(ref), err)
		}
		if kv.mod > e.ap.rev {
			return fmt.Errorf("engine: record at %#x has revision %d, the checkpoint ends at %d", uint64(ref), kv.mod, e.ap.rev)
		}
		l.Add(worker, kv.key, index.Version{Main: kv.mod, Sub: int32(kv.sub), Create: kv.create, Ver: kv.version,
			Loc: index.Loc(ref), Tombstone: kv.tombstone, HasLease: kv.lease != 0})
		if kv.lease != 0 {
			leased[worker] = append(leased[worker], leasedKey{string(kv.key), kv.mod, kv.lease})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := l.Finish(compactRev); err != nil {
		return err
	}
	for _, ks := range leased {
		for _, k := range ks {
			if v, ok := e.idx.Get([]byte(k.key), index.Newest); ok && v.Main == k.mod && e.lessor.exists(k.lease) {
				e.lessor.attach([]byte(k.key), k.lease)
			}
		}
	}
	e.compactor.mu.Lock()
	e.compactor.mu.target, e.compactor.mu.removed = compactRev, compactRev
	e.compactor.mu.Unlock()
	return nil
}
