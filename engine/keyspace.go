package engine

import (
	"sync"
	"sync/atomic"

	"quire/index"
	"quire/pagestore"
)

// keyspace is the keys and their history in one page store: records, the index
// over them, and which revisions may be read. A snapshot of a peer brings another
// one; whoever reads goes on in the one that it began with.
type keyspace struct {
	store *pagestore.Store
	idx   *index.Index

	// visible is the newest revision that readers may be given; every write of
	// it and of everything before is applied as a whole.
	visible atomic.Int64
	// compactRev: revisions below it are gone. It is raised before anything is
	// removed, so a reader that still sees it at or below its revision at the
	// end has read a whole snapshot.
	compactRev atomic.Int64

	// work is read-locked by background work on the store.
	work sync.RWMutex

	// graves name what compaction removed and reclaim has not; guarded by
	// Engine.writer.
	graves map[pagestore.Ref]grave

	hashes compactHashes
}

func newKeyspace(store *pagestore.Store) *keyspace {
	return &keyspace{store: store, idx: index.New(), graves: map[pagestore.Ref]grave{}}
}

// keys returns the present keyspace. Whoever reads records of it needs read,
// or Engine.writer.
func (e *Engine) keys() *keyspace { return e.present.Load() }

// read returns the present keyspace and holds it, records included, until the
// Pin is released.
func (e *Engine) read() (*keyspace, pagestore.Pin) {
	for {
		k := e.present.Load()
		pin := k.store.Pin()
		// Whoever replaces a keyspace looks for pins afterwards: if it is still
		// this one, the pin has been seen.
		if e.present.Load() == k {
			return k, pin
		}
		pin.Release()
	}
}

// hold returns the present keyspace for background work, which ends with
// work.RUnlock. It may be replaced meanwhile, but is not closed.
func (e *Engine) hold() *keyspace {
	for {
		k := e.present.Load()
		k.work.RLock()
		if e.present.Load() == k {
			return k
		}
		k.work.RUnlock()
	}
}

// isPresent tells whether k has not been replaced. With Engine.writer held it
// stays so.
func (e *Engine) isPresent(k *keyspace) bool { return e.present.Load() == k }
