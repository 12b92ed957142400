package etcdfile

import (
	"hash/crc32"
	"hash/maphash"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// HashKV is etcd's hash of the versions of keys.
type HashKV struct {
	Hash                      uint32
	Revision, CompactRevision int64
}

// keyID stands for a key: two hashes with random seeds, so that two keys share
// one with a probability of 2^-128.
type keyID [2]uint64

// HashKV computes what a server that starts on the file answers to HashKV at its
// newest revision: CRC-32C over the bucket's name and then keys and values. Up
// to the compact revision only those versions count that can be read at the
// newest revision, and a tombstone at the compact revision does not. A key that
// the newest revision has deleted and made again counts as deleted, as in etcd.
// Memory is taken for each key.
func (f *File) HashKV() (HashKV, error) {
	s, err := f.State()
	if err != nil {
		return HashKV{}, err
	}
	h := HashKV{Revision: 1, CompactRevision: s.CompactRevision()}
	seeds := [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	id := func(key []byte) keyID {
		return keyID{maphash.Bytes(seeds[0], key), maphash.Bytes(seeds[1], key)}
	}
	type revision struct{ main, sub int64 }
	newest := map[keyID]revision{} // of the keys that are there
	deleted := map[keyID]bool{}    // by the newest revision
	err = f.Versions(func(v *Version, kv *KeyValue) error {
		if v.Main > h.Revision {
			h.Revision = v.Main
			clear(deleted)
		}
		if v.Tombstone {
			delete(newest, id(kv.Key))
			deleted[id(kv.Key)] = true
		} else {
			newest[id(kv.Key)] = revision{v.Main, v.Sub}
		}
		return nil
	})
	if err != nil {
		return HashKV{}, err
	}
	if h.Revision >= h.CompactRevision {
		for key := range deleted {
			delete(newest, key)
		}
	}
	h.Revision = max(h.Revision, h.CompactRevision)
	h.Hash = crc32.Update(0, castagnoli, []byte(bucketKey))
	var key []byte
	err = f.Versions(func(v *Version, kv *KeyValue) error {
		if v.Main <= h.CompactRevision && len(newest) > 0 {
			if at, ok := newest[id(kv.Key)]; !ok || at != (revision{v.Main, v.Sub}) {
				return nil
			}
		}
		if v.Main == h.CompactRevision && v.Tombstone {
			return nil
		}
		key = v.AppendKey(key[:0])
		h.Hash = crc32.Update(h.Hash, castagnoli, key)
		h.Hash = crc32.Update(h.Hash, castagnoli, v.KV)
		return nil
	})
	return h, err
}
