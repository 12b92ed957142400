package index

import (
	"bytes"
	"hash/maphash"

	"github.com/cespare/xxhash/v2"
)

// table finds a key's record by the key: 256 shards by the key's xxhash, each
// an open-addressing array of slots. A slot is the upper half of a hash of the
// key under a secret seed, and the record's ref; 0 is empty. (Clients choose
// the keys, and keys whose xxhash is the same are easily made: with it alone,
// a hundred thousand of them would bring the server to a halt.) A slot's home
// is its hash scaled to the number of slots, so the array may have any length
// and a shard grows by half: at 10 million keys that copies 300 KiB, a pause
// of a tenth of a millisecond, and the table stays two thirds full on average.
// Deleting moves the slots behind back towards their homes: no tombstones.
type table struct {
	seed   maphash.Seed
	shards [tableShards]shard
}

const (
	tableShards   = 256
	minShardSlots = 8
)

type shard struct {
	slots []uint64
	used  int
}

// hash returns what the other methods want to know of a key: the slot's hash
// in the upper half, the shard in the lowest bits.
func (t *table) hash(key []byte) uint64 {
	return maphash.Bytes(t.seed, key)&^half | xxhash.Sum64(key)&half
}

func (t *table) shard(hash uint64) *shard { return &t.shards[hash%tableShards] }

// find returns the record of key, or 0.
func (t *table) find(a *arena, hash uint64, key []byte) ref {
	return t.shard(hash).find(a, hash, key)
}

func (s *shard) find(a *arena, hash uint64, key []byte) ref {
	n := uint64(len(s.slots))
	if n == 0 {
		return 0
	}
	for i := hash >> 32 * n >> 32; ; {
		v := s.slots[i]
		if v == 0 {
			return 0
		}
		if (v^hash)>>32 == 0 && bytes.Equal(a.key(ref(v)), key) {
			return ref(v)
		}
		if i++; i == n {
			i = 0
		}
	}
}

// insert adds the record of a key that is absent.
func (t *table) insert(hash uint64, r ref) {
	t.shard(hash).insert(hash, r)
}

func (s *shard) insert(hash uint64, r ref) {
	if (s.used+1)*5 > len(s.slots)*4 {
		s.resize(max(minShardSlots, len(s.slots)*3/2))
	}
	s.place(hash&^half | uint64(r))
	s.used++
}

// remove takes out the record of a key that is present.
func (t *table) remove(hash uint64, r ref) {
	s := t.shard(hash)
	n := uint64(len(s.slots))
	i := hash >> 32 * n >> 32
	for s.slots[i] != hash&^half|uint64(r) {
		if i++; i == n {
			i = 0
		}
	}
	s.closeGap(i)
	s.used--
	if s.used*4 < len(s.slots) && len(s.slots) > minShardSlots {
		s.resize(max(minShardSlots, s.used*3/2))
	}
}

// closeGap empties slot i and moves up what would no longer be found.
func (s *shard) closeGap(i uint64) {
	n := uint64(len(s.slots))
	for j := i; ; {
		if j++; j == n {
			j = 0
		}
		v := s.slots[j]
		if v == 0 {
			break
		}
		// v may move to i unless its home lies in (i, j], cyclically.
		home := v >> 32 * n >> 32
		if (j+n-home)%n >= (j+n-i)%n {
			s.slots[i] = v
			i = j
		}
	}
	s.slots[i] = 0
}

func (s *shard) resize(n int) {
	old := s.slots
	// append rounds up to what the allocator would hand out anyway.
	s.slots = append([]uint64(nil), make([]uint64, n)...)
	s.slots = s.slots[:cap(s.slots)]
	for _, v := range old {
		if v != 0 {
			s.place(v)
		}
	}
}

func (s *shard) place(v uint64) {
	n := uint64(len(s.slots))
	i := v >> 32 * n >> 32
	for s.slots[i] != 0 {
		if i++; i == n {
			i = 0
		}
	}
	s.slots[i] = v
}

// memBytes is the size of the slots.
func (t *table) memBytes() int64 {
	var n int64
	for i := range t.shards {
		n += int64(len(t.shards[i].slots)) * 8
	}
	return n
}
