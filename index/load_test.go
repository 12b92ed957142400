package index

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// load builds an Index from versions and fails the test on any error.
func load(t *testing.T, compact int64, items []loadItem) (*Index, []Loc) {
	t.Helper()
	x := New()
	var dropped []Loc
	l := x.NewLoader(LoadOptions{Workers: 2, Twin: func(loc Loc) { dropped = append(dropped, loc) },
		Dropped: func(v VersionRef) { dropped = append(dropped, v.Loc) }})
	for i, it := range items {
		if err := l.Add(i%2, []byte(it.key), it.v); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Finish(compact); err != nil {
		t.Fatal(err)
	}
	check(t, x)
	slices.Sort(dropped)
	return x, dropped
}

type loadItem struct {
	key string
	v   Version
}

func TestLoadNothing(t *testing.T) {
	x, _ := load(t, 0, nil)
	reader{t, x, newModel()}.everything(1)
	x, dropped := load(t, 10, []loadItem{{"a", Version{Main: 5, Tombstone: true, Loc: 1}}})
	if x.Len() != 0 || !slices.Equal(dropped, []Loc{1}) {
		t.Fatalf("%d keys, dropped %v", x.Len(), dropped)
	}
	put(x, "b", Version{Main: 11, Create: 11, Ver: 1, Loc: 2})
	check(t, x)
}

func TestLoadKeepsHighestLocation(t *testing.T) {
	older := Version{Main: 5, Create: 5, Ver: 1, Loc: 10}
	newer := Version{Main: 7, Create: 5, Ver: 2, Loc: 20}
	moved := func(v Version, loc Loc) Version { v.Loc = loc; return v }
	items := []loadItem{
		{"a", older}, {"a", moved(older, 30)}, {"a", moved(older, 3)},
		{"a", newer}, {"a", moved(newer, 25)}, {"a", moved(newer, 2)}, {"a", newer},
	}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		r.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		x, dropped := load(t, 0, items)
		if v, _ := x.Get([]byte("a"), 6); v != moved(older, 30) {
			t.Fatalf("seed %d: %+v", seed, v)
		}
		if v, _ := x.Get([]byte("a"), 7); v != moved(newer, 25) {
			t.Fatalf("seed %d: %+v", seed, v)
		}
		dropped = slices.Compact(dropped)
		if !slices.Equal(dropped, []Loc{2, 3, 10, 20}) {
			t.Fatalf("seed %d: dropped %v", seed, dropped)
		}
	}
}

func TestLoadRefusesContradictions(t *testing.T) {
	x := New()
	l := x.NewLoader(LoadOptions{})
	if err := l.Add(0, []byte("a"), Version{Main: 5, Create: 5, Ver: 1}); err != nil {
		t.Fatal(err)
	}
	if err := l.Add(0, []byte("a"), Version{Main: 5, Create: 4, Ver: 2}); !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	if err := l.Add(0, []byte("a"), Version{Main: 0}); err == nil {
		t.Fatal("revision 0 was taken")
	}
	if err := l.Add(0, []byte("b"), Version{Main: 5, Create: 5, Ver: 1}); err != nil {
		t.Fatal(err)
	}
	if err := l.Finish(0); !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
}

// TestLoadWithGarbage loads histories of which compaction has removed parts,
// but not the records.
func TestLoadWithGarbage(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		m, all := newModel(), []loadItem{}
		for m.main < 400 {
			main := m.main + 1
			n := 1 + r.IntN(3)
			for sub := range n {
				key := keyf("%d", r.IntN(1+int(seed)))
				if r.IntN(3) == 0 {
					key = "hot"
				}
				old, ok := m.newest(key)
				v := m.next(key, main, int32(sub), ok && !old.Tombstone && r.IntN(4) == 0, false)
				m.put(key, v)
				all = append(all, loadItem{key, v})
			}
		}
		compact := r.Int64N(420)
		m.compactTo(compact)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		x, dropped := load(t, compact, all)
		slices.Sort(m.removed)
		if !slices.Equal(dropped, m.removed) {
			t.Fatalf("seed %d: dropped %v, want %v", seed, dropped, m.removed)
		}
		rd := reader{t, x, m}
		rd.everything(max(400, compact))
		rd.everything(max(compact, 200))
		put(x, "hot", m.next("hot", 1000, 0, false, false))
		check(t, x)
	}
}

func TestSortKeys(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 3))
		a := newArena()
		seen := map[string]bool{}
		var items []sortItem
		for range r.IntN(200_000) {
			n := r.IntN(30)
			if seed%2 == 0 {
				n = r.IntN(6) * r.IntN(6)
			}
			key := make([]byte, n)
			for i := range key {
				key[i] = byte(r.IntN(1 + int(seed)%3))
			}
			if seed%5 == 0 {
				key = append([]byte("/a/prefix/that/all/keys/share/"), key...)
			}
			if !seen[string(key)] {
				seen[string(key)] = true
				ref := a.newKey(key, &Version{Main: 1})
				items = append(items, sortItem{hintOf(key, 0), ref})
			}
		}
		sortKeys(a, items, 2)
		for i := 1; i < len(items); i++ {
			if bytes.Compare(a.key(items[i-1].r), a.key(items[i].r)) >= 0 {
				t.Fatalf("seed %d: %q before %q", seed, a.key(items[i-1].r), a.key(items[i].r))
			}
		}
	}
}

func TestRadixSort(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 200 {
		bits := r.IntN(32) + 1
		all := make([]packed, r.IntN(3000))
		for i := range all {
			all[i] = packed(r.Uint64()>>(64-bits)<<32 | uint64(i))
		}
		want := slices.Clone(all)
		slices.Sort(want) // stable: the lower half ascends
		if got := radixSort(all, bits); !slices.Equal(got, want) {
			t.Fatalf("%d bits, %d items", bits, len(all))
		}
	}
}
