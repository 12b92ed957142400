package index

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// put puts one version of key.
func put(x *Index, key string, v Version) {
	x.BeginWrite()
	h, _, _ := x.Find([]byte(key))
	x.Put(h, []byte(key), v)
	x.EndWrite()
}

// compactNow compacts to rev at once.
func compactNow(x *Index, rev int64) []Loc {
	x.BeginWrite()
	defer x.EndWrite()
	x.CompactTo(rev)
	return locsOf(compactAll(x))
}

// TestHandles uses handles after the keys they stand for have come or gone.
func TestHandles(t *testing.T) {
	x := New()
	a, b := []byte("a"), []byte("b")
	x.BeginWrite()
	absentA, _, _ := x.Find(a)
	absentB, _, _ := x.Find(b)
	x.Put(absentA, a, Version{Main: 1, Create: 1, Ver: 1, Loc: 1})
	x.Put(absentB, b, Version{Main: 1, Create: 1, Ver: 1, Sub: 1, Loc: 2})
	x.Put(absentA, a, Version{Main: 2, Create: 1, Ver: 2, Loc: 3})
	presentA, v, ok := x.Find(a)
	if !ok || v.Ver != 2 {
		t.Fatal(v, ok)
	}
	x.Put(presentA, a, Version{Main: 3, Tombstone: true, Loc: 4})
	x.CompactTo(4)
	compactAll(x)
	x.Put(absentB, b, Version{Main: 5, Create: 1, Ver: 2, Loc: 5})
	x.Put(presentA, a, Version{Main: 6, Create: 6, Ver: 1, Loc: 6})
	x.EndWrite()
	check(t, x)
	if got, ok := x.Get(a, 6); !ok || got.Loc != 6 {
		t.Fatal(got, ok)
	}
}

func TestPutRefusesDisorder(t *testing.T) {
	for _, v := range []Version{
		{Main: 4, Create: 4, Ver: 1}, {Main: 5, Create: 5, Ver: 1}, {Main: 5, Sub: -1},
		{Main: 0}, {Main: -3}, {Main: 1 << 56}, {Main: 9, Ver: 1 << 48}, {Main: 9, Loc: 1 << 56}, {Main: 9, Create: -1},
	} {
		func() {
			x := New()
			put(x, "a", Version{Main: 5, Create: 5, Ver: 1})
			defer func() {
				if recover() == nil {
					t.Errorf("%+v was taken", v)
				}
			}()
			put(x, "b", v)
		}()
	}
}

// TestExtremes stores the largest values a record holds.
func TestExtremes(t *testing.T) {
	x := New()
	v := Version{Main: maxRevision - 1, Create: maxRevision - 1, Ver: maxVer, Loc: maxLoc, Sub: 1<<31 - 1, HasLease: true}
	put(x, "a", Version{Main: 1, Create: 1, Ver: 1})
	put(x, "a", v)
	if got, ok := x.Get([]byte("a"), Newest); !ok || got != v {
		t.Fatal(got, ok)
	}
	next := Version{Main: maxRevision, Tombstone: true}
	put(x, "a", next)
	if got, ok := x.Get([]byte("a"), maxRevision-1); !ok || got != v {
		t.Fatal(got, ok)
	}
	check(t, x)
	compactNow(x, maxRevision)
	check(t, x)
	if s := x.Stats(); s.Keys != 1 || s.Live != 0 || s.Versions != 1 || s.Events != 1 {
		t.Fatal(s)
	}
}

// TestLargeKeys mixes keys of all lengths up to several chunks.
func TestLargeKeys(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	x, m := New(), newModel()
	lengths := []int{1, 7, 8, 9, 1000, 4096, 500_000, 524_000, 524_300, 1_000_000, 1<<20 - 41, 1 << 20, 1_600_000, 3 << 20}
	var pool []string
	for i, n := range lengths {
		pool = append(pool, string(bytes.Repeat([]byte{byte('a' + i%3)}, n-1))+"x")
	}
	rd := reader{t, x, m}
	for round := range 40 {
		key := pool[r.IntN(len(pool))]
		old, ok := m.newest(key)
		v := m.next(key, m.main+1, 0, ok && !old.Tombstone && r.IntN(2) == 0, false)
		put(x, key, v)
		m.put(key, v)
		if round%10 == 9 {
			rd.everything(m.main)
			compactNow(x, m.main)
			m.compactTo(m.main)
			check(t, x)
			rd.everything(m.main)
		}
	}
	for _, key := range pool {
		if v, ok := m.newest(key); ok && !v.Tombstone {
			v = m.next(key, m.main+1, 0, true, false)
			put(x, key, v)
			m.put(key, v)
		}
	}
	compactNow(x, m.main+1)
	check(t, x)
	if x.Len() != 0 || x.a.chunkBytes > (spareChunks+2)<<20 {
		t.Fatalf("%d keys, %d bytes", x.Len(), x.a.chunkBytes)
	}
}

// TestEventsOfHugeRevision reads a revision that takes many holds of the lock.
func TestEventsOfHugeRevision(t *testing.T) {
	x, m := New(), newModel()
	const n = 20_000
	x.BeginWrite()
	for main := int64(2); main <= 4; main++ {
		for sub := range int32(n) {
			key := keyf("%06d", sub)
			v := m.next(key, main, sub, main == 3, false)
			h, _, _ := x.Find([]byte(key))
			x.Put(h, []byte(key), v)
			m.put(key, v)
		}
	}
	x.EndWrite()
	rd := reader{t, x, m}
	rd.events(1, 4, 10)
	rd.events(3, 3, 10)
	compactNow(x, 3)
	m.compactTo(3)
	check(t, x)
	rd.events(3, 4, 10)
	if _, _, err := x.Events(nil, 2, 4, 10); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
	if got, next, err := x.Events(nil, 5, 4, 10); len(got) != 0 || next != 5 || err != nil {
		t.Fatal(got, next, err)
	}
	if err := x.AllVersions(2, nil); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
}

// TestHotKey updates one key very often and checks that old versions are found
// in few steps, before and after a load and compaction.
func TestHotKey(t *testing.T) {
	const n = 100_000
	x, m := New(), newModel()
	var items []loadItem
	for range n {
		v := m.next("hot", m.main+1, 0, false, false)
		put(x, "hot", v)
		m.put("hot", v)
		items = append(items, loadItem{"hot", v})
	}
	check(t, x)
	rand.Shuffle(n, func(i, j int) { items[i], items[j] = items[j], items[i] })
	loaded, _ := load(t, 0, items)
	for _, x := range []*Index{x, loaded} {
		checkSteps(t, x, m)
		compactNow(x, n/3)
		check(t, x)
	}
	m.compactTo(n / 3)
	for _, x := range []*Index{x, loaded} {
		checkSteps(t, x, m)
		put(x, "hot", Version{Main: n + 100, Tombstone: true, Loc: 1})
		compactNow(x, n+101)
		check(t, x)
		if s := x.Stats(); s.Keys != 0 || s.Versions != 0 {
			t.Fatal(s)
		}
	}
}

func checkSteps(t *testing.T, x *Index, m *model) {
	t.Helper()
	a, most := x.a, 0
	r := rand.New(rand.NewPCG(2, 2))
	for range 2000 {
		rev := m.compact + r.Int64N(m.main-m.compact+1)
		reader{t, x, m}.get("hot", rev)
		steps := 0
		for v := x.table.find(a, x.table.hash([]byte("hot")), []byte("hot")); v != 0 && a.main(v) > rev; steps++ {
			if a.flags(v)&freeMark == flagTower && a.jumpMain(v) > rev {
				v = a.jump(v)
			} else {
				v = a.older(v)
			}
		}
		most = max(most, steps)
	}
	// At each of the log2(12,500) lengths a walk to the tower before, of
	// eight steps, and a jump or two.
	if most > 14*10 {
		t.Fatalf("%d steps", most)
	}
}

// TestMemoryFollowsData fills and empties the directory, with keys of other
// lengths each time, and churns it.
func TestMemoryFollowsData(t *testing.T) {
	x := New()
	main := int64(1)
	key := make([]byte, 0, 400)
	var peak, first int64
	for round := range 6 {
		pad := bytes.Repeat([]byte{'p'}, round*20)
		for pass := range 2 {
			for i := range 100_000 {
				main++
				key = append(append(key[:0], keyf("%07d", i)...), pad...)
				v := Version{Main: main, Create: main, Ver: 1, Tombstone: pass == 1, Loc: 1}
				put(x, string(key), v)
			}
			peak = max(peak, x.MemBytes())
		}
		compactNow(x, main+1)
		if round == 0 {
			first = peak
			check(t, x)
		}
	}
	// The last round's keys take 104 bytes more each than the first one's.
	if limit := first + 100_000*104 + 2<<20; peak > limit {
		t.Fatalf("peak %d after a first round of %d", peak, first)
	}
	check(t, x)
	if s := x.Stats(); s.MemBytes > 24<<20 || s.Keys != 0 {
		t.Fatalf("empty, but %+v", s)
	}
}
