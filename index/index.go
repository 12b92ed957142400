package index

import (
	"fmt"
	"hash/maphash"
	"sync"
)

// Index is the directory. See the package comment for who may call what.
type Index struct {
	mu sync.RWMutex // readers share it for a chunk; BeginWrite takes it

	// The writer owns all of these and changes them under mu.
	a       *arena
	table   table
	tree    *tree
	log     revLog
	compact int64  // the compact revision, 0 before the first
	next    uint64 // log position that CompactStep goes on at
	done    bool   // nothing is left to remove

	versions int64  // retained, newest ones included
	inserted uint64 // keys that ever entered: guards handles of absent keys
	removed  uint64 // keys that ever left: guards handles of present ones
}

// New returns an empty directory.
func New() *Index {
	a := newArena()
	return &Index{a: a, table: table{seed: maphash.MakeSeed()}, tree: newTree(a), done: true}
}

// BeginWrite locks readers out until EndWrite. Several operations may be done
// under one hold; a hold should stay below a millisecond.
func (x *Index) BeginWrite() { x.mu.Lock() }

// EndWrite lets readers in again.
func (x *Index) EndWrite() { x.mu.Unlock() }

// Handle is where the writer found a key, or that it is absent. It stays
// usable for that key whatever the writer does in between; if the key has
// come or gone meanwhile, Put looks again.
type Handle struct {
	hash  uint64
	guard uint64
	ref   ref
}

// Find returns the newest version of key, which may be a tombstone; false if
// no version is retained. Only the writer may call it, with or without
// BeginWrite. The handle is good for a Put in either case.
func (x *Index) Find(key []byte) (Handle, Version, bool) {
	h := x.handle(x.table.hash(key), key)
	if h.ref == 0 {
		return h, Version{}, false
	}
	v := x.a.version(h.ref)
	if v.Tombstone && v.Main < x.compact {
		return h, Version{}, false // compacted, but not removed yet
	}
	return h, v, true
}

func (x *Index) handle(hash uint64, key []byte) Handle {
	r := x.table.find(x.a, hash, key)
	if r == 0 {
		return Handle{hash, x.inserted, 0}
	}
	return Handle{hash, x.removed, r}
}

// Put makes v the newest version of key. h comes from Find(key). v must be
// later, by (Main, Sub), than every version put before. Put must be called
// between BeginWrite and EndWrite. It panics on a version that breaks these
// rules or the limits of the records: then the state of this member cannot be
// trusted any more.
//
// Cost: an update of a live key is O(1); a key that is new, deleted or comes
// back costs a descent of the tree.
func (x *Index) Put(h Handle, key []byte, v Version) {
	if err := v.validate(key); err != nil {
		panic(err)
	}
	if h.ref == 0 && h.guard != x.inserted || h.ref != 0 && h.guard != x.removed {
		h = x.handle(h.hash, key)
	}
	x.versions++
	if h.ref == 0 {
		x.putNew(h.hash, key, &v)
		return
	}
	r := h.ref
	wasLive := x.a.live(r)
	oldMain, oldSub := x.a.main(r), x.a.sub(r)
	edge := wasLive == v.Tombstone
	older := x.a.push(r, x.compact)
	x.log.repoint(oldMain, oldSub, r, older)
	x.log.append(v.Main, v.Sub, edge, r)
	x.a.setVersion(r, &v, flagKey, older, x.a.keyBytes(r))
	if edge {
		x.tree.setLive(r, !v.Tombstone)
	}
}

func (x *Index) putNew(hash uint64, key []byte, v *Version) {
	x.inserted++
	r := x.a.newKey(key, v)
	x.log.append(v.Main, v.Sub, !v.Tombstone, r)
	x.table.insert(hash, r)
	x.tree.insert(r, !v.Tombstone)
}

// validate fails if a record cannot hold v as a version of key.
func (v *Version) validate(key []byte) error {
	if uint64(v.Main-1) >= maxRevision || uint64(v.Create) > maxRevision ||
		uint64(v.Ver) > maxVer || v.Loc > maxLoc || v.Sub < 0 || uint64(len(key)) > maxKeyBytes {
		return fmt.Errorf("index: version out of range: %+v of a key of %d bytes", *v, len(key))
	}
	return nil
}

// Get returns the version of key as of revision rev (Newest: whatever was put
// last); false if the key was absent or deleted then. If rev is below
// CompactRevision after the call, the answer means nothing.
//
// Cost: one probe, plus O(log n) in the number of the key's versions after rev.
func (x *Index) Get(key []byte, rev int64) (Version, bool) {
	hash := x.table.hash(key)
	x.mu.RLock()
	v, ok := x.get(hash, key, rev)
	x.mu.RUnlock()
	return v, ok
}

// GetLocked is Get for the writer.
func (x *Index) GetLocked(key []byte, rev int64) (Version, bool) {
	return x.get(x.table.hash(key), key, rev)
}

func (x *Index) get(hash uint64, key []byte, rev int64) (Version, bool) {
	r := x.table.find(x.a, hash, key)
	if r == 0 {
		return Version{}, false
	}
	if r = x.visible(r, rev); r == 0 {
		return Version{}, false
	}
	return x.a.version(r), true
}

// visible returns the record of the live version of the key's record r as of
// rev, or 0.
func (x *Index) visible(r ref, rev int64) ref {
	if rev == Newest {
		rev = maxRevision
	}
	r = x.a.find(r, rev, x.compact)
	if r == 0 || !x.a.live(r) || x.a.main(r) > rev {
		return 0
	}
	return r
}

// CompactRevision returns the revision below which reads mean nothing.
func (x *Index) CompactRevision() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.compact
}

// Stats are sizes of the directory.
type Stats struct {
	Keys      int64 // with at least one retained version
	Live      int64 // whose newest version is a put
	Versions  int64 // retained
	Events    int64 // in the revision log
	MemBytes  int64 // of records, nodes, slots and log, with what is free in them
	RoomBytes int64 // that records can still grow by; Put panics when it is exhausted
}

// Stats returns the current sizes.
func (x *Index) Stats() Stats {
	x.mu.RLock()
	defer x.mu.RUnlock()
	c := x.tree.totals(x.tree.root, x.tree.height)
	events, _ := x.log.after(x.log.head)
	return Stats{
		Keys:      int64(c.keys),
		Live:      int64(c.live),
		Versions:  x.versions,
		Events:    int64(events),
		MemBytes:  x.a.chunkBytes + x.tree.memBytes() + x.table.memBytes() + x.log.memBytes(),
		RoomBytes: x.a.roomBytes(),
	}
}

// Len returns the number of keys with at least one retained version.
func (x *Index) Len() int64 { return x.Stats().Keys }

// Live returns the number of keys whose newest version is a put.
func (x *Index) Live() int64 { return x.Stats().Live }

// MemBytes returns the memory held, in bytes.
func (x *Index) MemBytes() int64 { return x.Stats().MemBytes }
