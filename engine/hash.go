package engine

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"sync"

	"quire/index"
	"quire/pagestore"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// hashBucket is what etcd's hash starts with: the name of its bucket.
const hashBucket = "key"

// HashKV computes etcd's hash over the revisions up to rev (0: the newest):
// CRC-32C over the bucket name and then, in order of revision, the 17-byte
// revision key (18 with the tombstone mark) and the stored KeyValue. Of the
// revisions up to the compact revision only those count that are visible at rev,
// and a tombstone at the compact revision does not. It does not depend on how much
// of what compaction made superfluous has been removed. The last revisions that
// were compacted to answer with the hash from before, if it was taken (see
// hashBefore), and with the compact revision of then.
func (e *Engine) HashKV(rev int64) (hash uint32, compactRev, current int64, err error) {
	k, pin := e.read()
	defer pin.Release()
	for range readAttempts {
		compactRev, current = k.compactRev.Load(), k.visible.Load()
		if h, ok := k.hashes.find(rev); ok && rev > 0 { // 0 asks for the newest
			return h.hash, h.compactRev, current, nil
		}
		at := rev
		switch {
		case at > 0 && at < compactRev:
			return 0, compactRev, current, ErrCompacted
		case at > current:
			return 0, compactRev, current, ErrFutureRev
		case at == 0:
			at = current
		case at < 0: // nothing was written before revision 0
			return crc32.Update(0, castagnoli, []byte(hashBucket)), compactRev, current, nil
		}
		h := kvHasher{k: k, compactRev: compactRev, rev: at, crc: crc32.Update(0, castagnoli, []byte(hashBucket))}
		err = h.run()
		if k.compactRev.Load() == compactRev && !errors.Is(err, index.ErrCompacted) {
			return h.crc, compactRev, current, err
		}
	}
	return 0, compactRev, current, ErrCompacted
}

const (
	// hashedVersions is up to how many versions a compaction takes the hash of
	// what it is about to thin out, as etcd always does: some 50 ms of one core in
	// the background. In larger stores a compaction costs what it removes and no
	// more, and HashKV at its revision counts what is left.
	hashedVersions = 100_000
	// keptHashes is how many of them are kept, as in etcd.
	keptHashes = 10
)

// compactHash is the hash of the revisions up to rev, taken when rev became the
// compact revision and compactRev was the one before.
type compactHash struct {
	rev, compactRev int64
	hash            uint32
}

// compactHashes are the newest of a keyspace. They are not replicated and not
// kept over a restart, as in etcd.
type compactHashes struct {
	mu   sync.Mutex
	kept []compactHash
}

func (c *compactHashes) find(rev int64) (compactHash, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.kept, func(h compactHash) bool { return h.rev == rev })
	if i < 0 {
		return compactHash{}, false
	}
	return c.kept[i], true
}

func (c *compactHashes) add(h compactHash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) == keptHashes {
		c.kept = slices.Delete(c.kept, 0, 1)
	}
	c.kept = append(c.kept, h)
}

// CompactHash is the HashKV of the revisions up to Revision, taken when that
// became the compact revision; CompactRevision is the one before.
type CompactHash struct {
	Revision, CompactRevision int64
	Hash                      uint32
}

// CompactHashes returns those of the last compactions that are kept, newest
// first. Members have the same, as far as they have them.
func (e *Engine) CompactHashes() (hashes []CompactHash) {
	c := &e.keys().hashes
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range slices.Backward(c.kept) {
		hashes = append(hashes, CompactHash{h.rev, h.compactRev, h.hash})
	}
	return hashes
}

// hashBefore takes the hash of what a compaction to rev finds, with removed as the
// compact revision of before. An error leaves it out: reading again will tell.
func (k *keyspace) hashBefore(rev, removed int64) {
	if k.idx.Stats().Versions > hashedVersions {
		return
	}
	pin := k.store.Pin()
	defer pin.Release()
	h := kvHasher{k: k, compactRev: removed, rev: rev, crc: crc32.Update(0, castagnoli, []byte(hashBucket))}
	if h.run() == nil {
		k.hashes.add(compactHash{rev: rev, compactRev: removed, hash: h.crc})
	}
}

// Hash computes a hash over everything retained, for comparing members of one
// cluster. etcd hashes its database file here; this is HashKV at the newest
// revision.
func (e *Engine) Hash() (hash uint32, rev int64, err error) {
	hash, _, rev, err = e.HashKV(0)
	return hash, rev, err
}

type kvHasher struct {
	k               *keyspace
	compactRev, rev int64
	crc             uint32
	key             [18]byte
	again           map[string]bool // keys that the compact revision deleted and made again
}

// fewVisible is up to how many visible keys may all have been made again by one
// transaction, generously.
const fewVisible = 10_000

func (h *kvHasher) run() error {
	// With nothing visible at rev, etcd skips nothing that compaction leaves. That
	// is what was visible at the compact revision; what else is still there is
	// about to be removed. A key that rev itself has deleted and then made again
	// does not count as visible there: etcd looks at its first life of that revision.
	keepAt := h.rev
	n := h.k.countAt(everything, h.rev)
	if n > 0 && n <= fewVisible {
		again, err := h.madeAgain(h.rev)
		if err != nil {
			return err
		}
		n -= int64(len(again))
	}
	if n == 0 {
		keepAt = h.compactRev
	}
	if keepAt == h.compactRev && keepAt > 0 {
		var err error
		if h.again, err = h.madeAgain(keepAt); err != nil {
			return err
		}
	}
	var err error
	walkErr := h.k.idx.AllVersions(h.rev, func(chunk []index.VersionRef) {
		for i := 0; i < len(chunk) && err == nil; i++ {
			v := &chunk[i]
			switch {
			case v.Main > h.compactRev:
				err = h.add(v, 0)
			case !v.Tombstone:
				err = h.add(v, keepAt)
			}
		}
	})
	return errors.Join(err, walkErr)
}

// madeAgain returns the keys that were deleted and then put in the transaction of
// one revision.
func (h *kvHasher) madeAgain(rev int64) (map[string]bool, error) {
	deleted, again := map[string]bool{}, map[string]bool{}
	var err error
	walkErr := h.k.idx.AllVersions(rev, func(chunk []index.VersionRef) {
		for i := 0; i < len(chunk) && err == nil; i++ {
			v := &chunk[i]
			if v.Main != rev || !v.Tombstone && len(deleted) == 0 {
				continue
			}
			var rec []byte
			if rec, err = h.k.store.Read(pagestore.Ref(v.Loc)); err != nil {
				return
			}
			key := string(keyOf(wireKV(rec)))
			if v.Tombstone {
				deleted[key] = true
				delete(again, key)
			} else if deleted[key] {
				again[key] = true
			}
		}
	})
	return again, errors.Join(err, walkErr)
}

// add hashes one version; with visibleAt above 0 only if a read at that revision
// would return it.
func (h *kvHasher) add(v *index.VersionRef, visibleAt int64) error {
	rec, err := h.k.store.Read(pagestore.Ref(v.Loc))
	if err != nil {
		return err
	}
	kv := wireKV(rec)
	if visibleAt > 0 {
		if cur, ok := h.k.idx.Get(keyOf(kv), visibleAt); !ok || cur.Main != v.Main || cur.Sub != v.Sub {
			return nil
		}
		if v.Main == h.compactRev && h.again[string(keyOf(kv))] {
			return nil
		}
	}
	k := h.key[:17]
	binary.BigEndian.PutUint64(k, uint64(v.Main))
	k[8] = '_'
	binary.BigEndian.PutUint64(k[9:], uint64(v.Sub))
	if v.Tombstone {
		h.key[17] = 't'
		k = h.key[:18]
	}
	kv = etcdKV(kv, v.Tombstone)
	h.crc = crc32.Update(h.crc, castagnoli, k)
	h.crc = crc32.Update(h.crc, castagnoli, kv)
	return nil
}

// lenPrefixed returns the size of the first field of kv less its tag and one
// byte of length.
func lenPrefixed(kv []byte) int {
	n, w := binary.Uvarint(kv[1:])
	return w - 1 + int(n)
}
