package index

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestScanResumes has keys come and go between the chunks of a scan.
func TestScanResumes(t *testing.T) {
	for seed := range uint64(40) {
		s := newSession(t, seed+1000)
		for range 200 {
			s.write()
		}
		rev := s.m.main
		want := s.m.scan("", "", rev)
		q := Query{Rev: rev, Keys: true, Descending: seed%2 == 0}
		if q.Descending {
			slices.Reverse(want)
		}
		var sc Scanner
		sc.Reset(s.x, q)
		got := 0
		for hits := sc.Next(7); len(hits) > 0; hits = sc.Next(7) {
			for _, h := range hits {
				if got >= len(want) || string(h.Key) != string(want[got].Key) || h.Version != want[got].Version {
					t.Fatalf("seed %d: hit %d is %q", seed, got, h.Key)
				}
				got++
			}
			s.write()
			s.x.BeginWrite()
			s.x.CompactTo(rev)
			s.x.CompactStep(nil, 50)
			s.x.EndWrite()
			s.m.compactTo(rev)
		}
		if got != len(want) {
			t.Fatalf("seed %d: %d hits, want %d", seed, got, len(want))
		}
	}
}

// TestScanByTheWriter reads and deletes a range between BeginWrite and
// EndWrite, as a DeleteRange does.
func TestScanByTheWriter(t *testing.T) {
	x := New()
	for i := range 1000 {
		put(x, keyf("%04d", i), Version{Main: int64(i + 1), Create: int64(i + 1), Ver: 1})
	}
	lo, hi := []byte("0100"), []byte("0900")
	x.BeginWrite()
	var s Scanner
	s.Reset(x, Query{Lo: lo, Hi: hi, Keys: true, Locked: true})
	sub := int32(0)
	for hits := s.Next(100); len(hits) > 0; hits = s.Next(100) {
		for _, hit := range hits {
			h, _, _ := x.Find(hit.Key)
			x.Put(h, hit.Key, Version{Main: 2000, Sub: sub, Tombstone: true})
			sub++
		}
	}
	if n := x.CountLocked(lo, hi, Newest); sub != 800 || n != 0 {
		t.Fatal(sub, n)
	}
	if n := x.CountLocked(lo, hi, 1999); n != 800 {
		t.Fatal(n)
	}
	if _, ok := x.GetLocked(lo, Newest); ok {
		t.Fatal("still there")
	}
	x.EndWrite()
	check(t, x)
}

func TestScanPages(t *testing.T) {
	s := newSession(t, 77)
	for range 300 {
		s.write()
	}
	for _, limit := range []int{1, 10, 256, 1000} {
		want := s.m.scan("a", "b", s.m.main)
		var got []Hit
		for lo := []byte("a"); lo != nil; {
			before := len(got)
			got, lo = s.x.Scan(got, lo, []byte("b"), s.m.main, limit)
			if len(got)-before > limit || lo != nil && len(got)-before < limit {
				t.Fatalf("page of %d, limit %d", len(got)-before, limit)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d hits, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i].Version != want[i].Version || string(got[i].Key) != string(want[i].Key) {
				t.Fatalf("hit %d: %q", i, got[i].Key)
			}
		}
	}
}

// TestReadsAllocateNothing once their buffers have grown; only a count that
// visits the keys has to remember where it stopped.
func TestReadsAllocateNothing(t *testing.T) {
	x := New()
	for i := range 5000 {
		put(x, keyf("%05d", i), Version{Main: int64(i + 1), Create: int64(i + 1), Ver: 1})
	}
	var s Scanner
	var events []Event
	lo, hi := []byte("00100"), []byte("04000")
	reads := map[string]func(){
		"get":         func() { x.Get(lo, 4000) },
		"count":       func() { x.Count(lo, hi, 5000) },
		"count older": func() { x.Count(lo, hi, 3000) },
		"events":      func() { events, _, _ = x.Events(events[:0], 1, 5000, 2000) },
		"scan": func() {
			s.Reset(x, Query{Lo: lo, Hi: hi, Rev: 4000, Keys: true})
			for len(s.Next(1000)) > 0 {
			}
		},
	}
	for name, read := range reads {
		read()
		most := 0.0
		if name == "count older" {
			most = 1
		}
		if n := testing.AllocsPerRun(20, read); n > most {
			t.Errorf("%s: %.0f allocations", name, n)
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	main := int64(5000)
	key := []byte("00000")
	update := func() {
		for range 1000 {
			copy(key, keyDigits[r.IntN(1000)])
			main++
			insertOne(x, key, main)
		}
		x.BeginWrite()
		x.CompactTo(main - 100)
		x.CompactStep(nil, 0)
		for done := false; !done; {
			freedBuf, done = x.CompactStep(freedBuf[:0], 100)
		}
		x.EndWrite()
	}
	for range 20 {
		update()
	}
	if n := testing.AllocsPerRun(20, update); n > 1 {
		t.Errorf("1000 updates and their compaction: %.0f allocations", n)
	}
}

var freedBuf []VersionRef

var keyDigits = func() (d [1000]string) {
	for i := range d {
		d[i] = keyf("%05d", i)
	}
	return d
}()
