package index

import (
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

// TestTree inserts and removes keys in several orders and compares ranks with
// a sorted list.
func TestTree(t *testing.T) {
	orders := map[string]func(r *rand.Rand, keys []string){
		"ascending":  func(_ *rand.Rand, keys []string) { slices.Sort(keys) },
		"descending": func(_ *rand.Rand, keys []string) { slices.Sort(keys); slices.Reverse(keys) },
		"groups": func(_ *rand.Rand, keys []string) {
			slices.Sort(keys)
			for g := range slices.Chunk(keys, 6) {
				slices.Reverse(g)
			}
			slices.Reverse(keys)
		},
		"random": func(r *rand.Rand, keys []string) {
			r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		},
	}
	for in, inOrder := range orders {
		for out, outOrder := range orders {
			t.Run(in+"-"+out, func(t *testing.T) {
				r := rand.New(rand.NewPCG(5, 6))
				keys := treeKeys(r, 20_000)
				inOrder(r, keys)
				x := New()
				for i, k := range keys {
					put(x, k, Version{Main: int64(i + 1), Create: int64(i + 1), Ver: 1})
				}
				check(t, x)
				checkRanks(t, r, x, keys)
				if fill := float64(len(keys)) / float64(x.tree.leaves.inUse()); fill < fan*0.45 {
					t.Errorf("%.1f keys per leaf", fill)
				}
				outOrder(r, keys)
				for i, k := range keys {
					x.BeginWrite()
					x.dropKey(nil, x.table.find(x.a, x.table.hash([]byte(k)), []byte(k)))
					x.EndWrite()
					if i == len(keys)/2 || i == len(keys)*9/10 {
						checkRanks(t, r, x, keys[i+1:])
					}
				}
				if x.Len() != 0 || x.tree.height != 0 || x.tree.leaves.inUse() != 1 || x.tree.inners.inUse() != 0 {
					t.Fatalf("%d keys, height %d, %d leaves", x.Len(), x.tree.height, x.tree.leaves.inUse())
				}
			})
		}
	}
}

func (s *slab[T]) inUse() int { return max(int(s.used)-1, 0) - len(s.freed) }

func treeKeys(r *rand.Rand, n int) []string {
	prefixes := []string{"a", "/registry/x", "/registry/xy", "/reg", "zz/a/common/prefix/that/exceeds/the/forty-eight/bytes/kept"}
	seen := map[string]bool{}
	var keys []string
	for len(keys) < n {
		k := keyf("%s/%d", prefixes[r.IntN(len(prefixes))], r.IntN(1<<20))
		if r.IntN(50) == 0 {
			k = k[:r.IntN(len(k))+1]
		}
		if !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	return keys
}

func checkRanks(t *testing.T, r *rand.Rand, x *Index, keys []string) {
	t.Helper()
	sorted := slices.Clone(keys)
	sort.Strings(sorted)
	if got := x.tree.span(nil, nil); int(got.keys) != len(sorted) {
		t.Fatalf("%d keys, want %d", got.keys, len(sorted))
	}
	for range 1000 {
		if len(sorted) == 0 {
			return
		}
		k := sorted[r.IntN(len(sorted))]
		k = k[:r.IntN(len(k))+1]
		if _, got := x.tree.seek([]byte(k)); int(got.keys) != sort.SearchStrings(sorted, k) {
			t.Fatalf("rank of %q: %d, want %d", k, got.keys, sort.SearchStrings(sorted, k))
		}
	}
}
