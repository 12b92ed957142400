package index

import (
	"math/rand/v2"
	"testing"
)

// TestTableCollisions fills one shard with hashes that crowd around a few
// homes, also around the end of the array, and deletes in random order.
func TestTableCollisions(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		a, tab := newArena(), table{}
		hashes := map[ref]uint64{}
		var order []ref
		for step := range 3000 {
			if r.IntN(5) < 3 || len(order) == 0 {
				hash := (1<<32-1-uint64(r.IntN(3))<<uint(r.IntN(31)))<<32 | 7
				key := []byte(keyf("%d", step))
				rec := a.newKey(key, &Version{Main: 1})
				tab.insert(hash, rec)
				hashes[rec] = hash
				order = append(order, rec)
			} else {
				i := r.IntN(len(order))
				rec := order[i]
				order[i] = order[len(order)-1]
				order = order[:len(order)-1]
				tab.remove(hashes[rec], rec)
				if tab.find(a, hashes[rec], a.key(rec)) != 0 {
					t.Fatalf("seed %d: %d is found after its removal", seed, rec)
				}
				delete(hashes, rec)
			}
			if step%10 == 0 {
				for rec, hash := range hashes {
					if tab.find(a, hash, a.key(rec)) != rec {
						t.Fatalf("seed %d: %d is not found", seed, rec)
					}
				}
			}
		}
		if s := tab.shard(7); s.used != len(hashes) || len(s.slots) > 5*len(hashes)+2*minShardSlots {
			t.Fatalf("seed %d: %d used of %d for %d", seed, s.used, len(s.slots), len(hashes))
		}
	}
}
