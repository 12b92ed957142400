package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// TestReadersBesideWriter has readers compare, at published revisions, what
// Scan, Count, Get and Events say with what the writer knows it put, while it
// goes on writing and compacting.
func TestReadersBesideWriter(t *testing.T) {
	const keys, revisions = 600, 6000
	s := &raceSession{t: t, x: New(), live: make([]int64, revisions+2)}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { s.read(rand.New(rand.NewPCG(uint64(i), 1))) })
	}
	s.write(keys, revisions)
	s.stop.Store(true)
	wg.Wait()
	check(t, s.x)
}

type raceSession struct {
	t         *testing.T
	x         *Index
	published atomic.Int64
	stop      atomic.Bool
	live      []int64 // by revision, written before it is published
}

func (s *raceSession) write(keys, revisions int) {
	r := rand.New(rand.NewPCG(9, 9))
	live := int64(0)
	for main := int64(1); main <= int64(revisions); main++ {
		s.x.BeginWrite()
		done := map[int]bool{}
		for sub := range int32(1 + r.IntN(3)) {
			i := r.IntN(keys)
			if done[i] {
				continue
			}
			done[i] = true
			key := fmt.Appendf(nil, "/k/%05d", i)
			h, old, ok := s.x.Find(key)
			v := Version{Main: main, Sub: sub, Create: main, Ver: 1, Loc: Loc(main)}
			switch alive := ok && !old.Tombstone; {
			case alive && r.IntN(3) == 0:
				v = Version{Main: main, Sub: sub, Tombstone: true, Loc: Loc(main)}
				live--
			case alive:
				v.Create, v.Ver = old.Create, old.Ver+1
			default:
				live++
			}
			s.x.Put(h, key, v)
		}
		s.live[main] = live
		s.published.Store(main)
		if main%50 == 0 {
			s.x.CompactTo(main - 150)
		}
		s.x.CompactStep(nil, 10)
		s.x.EndWrite()
	}
}

func (s *raceSession) read(r *rand.Rand) {
	var sc Scanner
	var events []Event
	for !s.stop.Load() {
		newest := s.published.Load()
		if newest == 0 {
			continue
		}
		rev := max(newest-r.Int64N(120), 1)
		want := s.live[rev]
		sc.Reset(s.x, Query{Lo: []byte("/"), Rev: rev, Keys: true, Descending: r.IntN(2) == 0})
		n, step := int64(0), 1+r.IntN(300)
		last, wrong := "", ""
		for hits := sc.Next(step); len(hits) > 0; hits = sc.Next(step) {
			for _, h := range hits {
				if h.Main > rev || string(h.Key) == last {
					wrong = string(h.Key)
				}
				last = string(h.Key)
				n++
			}
		}
		counted := s.x.Count([]byte("/"), nil, rev)
		v, _ := s.x.Get(fmt.Appendf(nil, "/k/%05d", r.IntN(600)), rev)
		var err error
		events, _, err = s.x.Events(events[:0], rev, newest, 1+r.IntN(500))
		if s.x.CompactRevision() > rev {
			continue // the answers mean nothing
		}
		if wrong != "" || n != want || counted != want || v.Main > rev || err != nil && !errors.Is(err, ErrCompacted) {
			s.t.Errorf("at %d: %d scanned, %d counted, want %d; wrong %q; got %d; %v", rev, n, counted, want, wrong, v.Main, err)
			return
		}
		for _, e := range events {
			if e.Main < rev || e.Main > newest || e.Loc != Loc(e.Main) || e.PrevLoc >= e.Loc {
				s.t.Errorf("event %+v from %d", e, rev)
			}
		}
	}
}

// TestLoadInParallel loads from several goroutines at once, with the same keys.
func TestLoadInParallel(t *testing.T) {
	const workers, n = 4, 20_000
	x := New()
	l := x.NewLoader(LoadOptions{Workers: workers})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				key := fmt.Appendf(nil, "/k/%d", i%1000)
				v := Version{Main: int64(i + 1), Create: int64(i%1000 + 1), Ver: int64(i/1000 + 1), Loc: Loc(i + 1)}
				if err := l.Add(w, key, v); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Finish(n / 2); err != nil {
		t.Fatal(err)
	}
	check(t, x)
	if s := x.Stats(); s.Keys != 1000 || s.Live != 1000 || s.Versions != n/2+1000 || s.Events != n/2+1 {
		t.Fatal(s)
	}
}
