package index

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var (
	seedFlag  = flag.Uint64("index.seed", 0, "run the random test with this seed only")
	seedsFlag = flag.Int("index.seeds", 30, "number of seeds of the random test")
)

// TestRandom runs random operations against the model.
func TestRandom(t *testing.T) {
	seeds := []uint64{*seedFlag}
	if *seedFlag == 0 {
		seeds = nil
		for i := range *seedsFlag {
			seeds = append(seeds, uint64(i+1))
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			newSession(t, seed).run(1500)
		})
	}
}

// session is one run of random operations on an Index and its model.
type session struct {
	reader
	rand    *rand.Rand
	pool    []string // keys in use
	pending bool     // a compaction is under way
	freed   []VersionRef
}

func newSession(t *testing.T, seed uint64) *session {
	s := &session{rand: rand.New(rand.NewPCG(seed, 7))}
	s.reader = reader{t, New(), newModel()}
	for range 20 + s.rand.IntN(1+s.rand.IntN(600)) {
		s.pool = append(s.pool, s.makeKey())
	}
	return s
}

func (s *session) makeKey() string {
	prefixes := []string{
		"", "a", "a\x00", "/registry/pods/", "/registry/podsets/", "\xff\xff",
		"a/common/prefix/that/is/longer/than/a/node/keeps/of/it/inline/",
	}
	k := prefixes[s.rand.IntN(len(prefixes))]
	switch s.rand.IntN(4) {
	case 0:
		k += strings.Repeat("\x00", s.rand.IntN(12))
	case 1:
		k += strings.Repeat("x", s.rand.IntN(300))
	}
	return k + keyf("%d", s.rand.IntN(3000))
}

func (s *session) key() string {
	// A few keys get most of the writes, so that chains become long.
	if s.rand.IntN(3) == 0 {
		return s.pool[s.rand.IntN(3)]
	}
	return s.pool[s.rand.IntN(len(s.pool))]
}

func (s *session) run(steps int) {
	for i := range steps {
		switch n := s.rand.IntN(100); {
		case n < 70:
			s.write()
		case n < 72:
			s.startCompaction()
		case n < 80:
			s.stepCompaction()
		case n < 82:
			s.relocate()
		default:
			s.read()
		}
		if i%50 == 0 {
			check(s.t, s.x)
		}
		if i%500 == 499 {
			s.everything(s.revision())
			s.reload()
		}
	}
	s.finishCompaction()
	check(s.t, s.x)
	s.everything(s.m.main)
}

// revision returns one that may be read.
func (s *session) revision() int64 {
	low := max(s.m.compact, 1)
	return low + s.rand.Int64N(s.m.main-low+1)
}

// write makes one revision with one or several events.
func (s *session) write() {
	main := s.m.main + 1
	if s.rand.IntN(50) == 0 {
		main += s.rand.Int64N(1 << 33)
	}
	n := 1
	if s.rand.IntN(5) == 0 {
		n = 1 + s.rand.IntN(40)
	}
	s.x.BeginWrite()
	defer s.x.EndWrite()
	sub := int32(0)
	for range n {
		key := s.key()
		old, ok := s.m.newest(key)
		if ok && old.Main == main && s.rand.IntN(4) != 0 {
			continue // rarely the same key twice
		}
		h, got, found := s.x.Find([]byte(key))
		if found != ok || got != old {
			s.t.Fatalf("find %q: %+v %v, want %+v %v", key, got, found, old, ok)
		}
		del := ok && !old.Tombstone && s.rand.IntN(3) == 0
		v := s.m.next(key, main, sub, del, s.rand.IntN(4) == 0)
		s.x.Put(h, []byte(key), v)
		s.m.put(key, v)
		sub += 1
		if s.rand.IntN(10) == 0 {
			sub += int32(s.rand.IntN(3))
		}
	}
}

func (s *session) startCompaction() {
	if s.m.main <= s.m.compact || s.m.main < 2 {
		return
	}
	if s.rand.IntN(2) == 0 {
		s.finishCompaction() // else a compaction overtakes another
	}
	rev := s.m.compact + 1 + s.rand.Int64N(s.m.main-s.m.compact)
	if s.rand.IntN(3) == 0 && len(s.m.keys) > 0 {
		// Exactly at some event.
		e := s.m.events(s.m.compact+1, s.m.main)
		if len(e) > 0 {
			rev = e[s.rand.IntN(len(e))].Main
		}
	}
	s.x.BeginWrite()
	s.x.CompactTo(rev)
	s.x.EndWrite()
	s.m.compactTo(rev)
	s.pending = true
}

func (s *session) stepCompaction() {
	if !s.pending {
		return
	}
	s.x.BeginWrite()
	var done bool
	s.freed, done = s.x.CompactStep(s.freed, 1+s.rand.IntN(40))
	s.x.EndWrite()
	s.pending = !done
	if !done {
		return
	}
	freed := locsOf(s.freed)
	slices.Sort(freed)
	slices.Sort(s.m.removed)
	if !slices.Equal(freed, s.m.removed) {
		s.t.Fatalf("compaction to %d freed %v, want %v", s.m.compact, freed, s.m.removed)
	}
	s.freed, s.m.removed = s.freed[:0], nil
}

func (s *session) finishCompaction() {
	for s.pending {
		s.stepCompaction()
	}
}

// relocate moves the record of one version.
func (s *session) relocate() {
	key := s.key()
	vs := s.m.keys[key]
	if len(vs) == 0 || s.pending {
		return
	}
	v := &vs[s.rand.IntN(len(vs))]
	m := Relocation{Key: []byte(key), Main: v.Main, Sub: v.Sub, Old: v.Loc, New: s.m.nextLoc}
	s.m.nextLoc++
	wrong := m
	wrong.Old++
	if !s.x.Holds(m) || s.x.Holds(wrong) {
		s.t.Fatalf("holds %+v: %v, wrongly %v", m, s.x.Holds(m), s.x.Holds(wrong))
	}
	s.x.BeginWrite()
	defer s.x.EndWrite()
	if s.x.Relocate(wrong) || !s.x.Relocate(m) || s.x.Relocate(m) {
		s.t.Fatalf("relocate %+v", m)
	}
	v.Loc = m.New
}

func (s *session) read() {
	rev := s.revision()
	if s.rand.IntN(2) == 0 {
		rev = s.m.main
	}
	lo, hi := s.key(), s.key()
	if lo > hi {
		lo, hi = hi, lo
	}
	hiBytes := []byte(hi)
	if s.rand.IntN(4) == 0 {
		hiBytes = nil
	}
	switch s.rand.IntN(6) {
	case 0, 1:
		for range 10 {
			s.get(s.key(), rev)
		}
	case 2:
		q := Query{Lo: []byte(lo), Hi: hiBytes, Rev: rev, Descending: s.rand.IntN(2) == 0, Keys: s.rand.IntN(2) == 0}
		s.scan(q, 1+s.rand.IntN(300))
	case 3:
		s.count([]byte(lo), hiBytes, rev)
	case 4:
		s.events(s.revision(), rev, 1+s.rand.IntN(100))
	case 5:
		s.allVersions(rev)
	}
}

// reload replaces the Index by one that was loaded with the retained
// versions, and some that are not, in any order.
func (s *session) reload() {
	s.finishCompaction()
	l := New().NewLoader(LoadOptions{Workers: 3})
	type item struct {
		key string
		v   Version
	}
	var items []item
	for key, vs := range s.m.keys {
		for _, v := range vs {
			items = append(items, item{key, v})
			if s.rand.IntN(10) == 0 {
				items = append(items, item{key, v})
			}
		}
	}
	s.rand.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	for _, it := range items {
		l.Add(s.rand.IntN(3), []byte(it.key), it.v)
	}
	if err := l.Finish(s.m.compact); err != nil {
		s.t.Fatal(err)
	}
	s.x = l.x
	check(s.t, s.x)
	s.everything(s.m.main)
	s.everything(s.revision())
}

func locsOf(vs []VersionRef) (locs []Loc) {
	for _, v := range vs {
		locs = append(locs, v.Loc)
	}
	return locs
}

// FuzzOperations lets the fuzzer choose seeds and lengths of sessions.
func FuzzOperations(f *testing.F) {
	f.Add(uint64(1), uint16(300))
	f.Fuzz(func(t *testing.T, seed uint64, steps uint16) {
		newSession(t, seed).run(int(steps) % 2000)
	})
}
