package pagestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"quire/disk"
)

// testOptions are small sizes, so that every path is taken often.
func testOptions() Options {
	return Options{
		SegmentBytes: 64 << 10, PageBytes: 8 << 10, CacheBytes: 64 << 10, DirtyBytes: 32 << 10,
		FlushBytes: 16 << 10, NoSpaceBytes: 32 << 10, Hint: testHint, Inline: true, Nonce: counterNonce(),
	}
}

func counterNonce() func() uint64 {
	n := uint64(0x1111)
	return func() uint64 { n += 0x9e3779b97f4a7c15; return n }
}

// testRecord is a record with a key in its first 8 bytes.
func testRecord(key uint64, n int) []byte {
	rec := make([]byte, 8+n)
	binary.LittleEndian.PutUint64(rec, key)
	rng := rand.NewPCG(key, 7)
	for i := 8; i < len(rec); i++ {
		rec[i] = byte(rng.Uint64())
	}
	return rec
}

// testHint is the key and a byte of the record's end.
func testHint(dst, rec []byte) []byte {
	if len(rec) < 8 {
		return dst
	}
	return append(append(dst, rec[:8]...), rec[len(rec)-1])
}

func mustOpen(t testing.TB, fsys disk.FS, opts Options) (*Store, *Checkpoint) {
	t.Helper()
	s, c, err := Open(fsys, opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s, c
}

func mustCommit(t testing.TB, s *Store, meta string, state string) {
	t.Helper()
	c, err := s.Cut([]byte(meta), func(w io.Writer) error { _, err := io.WriteString(w, state); return err })
	if err != nil {
		t.Fatalf("Cut: %v", err)
	}
	if err := c.Commit(); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func TestAppendReadReopen(t *testing.T) {
	m := disk.NewMem(1)
	s, c := mustOpen(t, m, testOptions())
	if c != nil {
		t.Fatalf("fresh store has a checkpoint: %+v", c)
	}
	recs := map[Ref][]byte{}
	for i := range 2000 {
		rec := testRecord(uint64(i), i%300)
		if i%500 == 499 {
			rec = testRecord(uint64(i), 100<<10)
		}
		ref, err := s.Append(rec)
		if err != nil {
			t.Fatal(err)
		}
		recs[ref] = rec
		if i == 700 || i == 1500 {
			mustCommit(t, s, fmt.Sprint(i), "state "+fmt.Sprint(i))
		}
	}
	check := func() {
		t.Helper()
		for ref, want := range recs {
			got, err := s.Read(ref)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read %v: %v, %d bytes, want %d", ref, err, len(got), len(want))
			}
		}
	}
	check()
	mustCommit(t, s, "end", "the state")
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, c = mustOpen(t, m, testOptions())
	if string(c.Meta) != "end" || string(c.State) != "the state" {
		t.Fatalf("checkpoint %q %q", c.Meta, c.State)
	}
	check()
	for _, workers := range []int{1, 4} {
		checkHints(t, s, recs, workers)
	}
}

func checkHints(t testing.TB, s *Store, recs map[Ref][]byte, workers int) {
	t.Helper()
	type hit struct {
		ref  Ref
		n    int
		hint string
	}
	found := make([][]hit, max(workers, 1))
	err := s.Hints(workers, func(w int, ref Ref, n int, hint []byte) error {
		found[w] = append(found[w], hit{ref, n, string(hint)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, hits := range found {
		for _, h := range hits {
			total++
			want, ok := recs[h.ref]
			if !ok || len(want) != h.n || h.hint != string(testHint(nil, want)) {
				t.Fatalf("hint of %v: known %v, %d bytes, want %d, hint %x", h.ref, ok, h.n, len(want), h.hint)
			}
		}
	}
	if total != len(recs) {
		t.Fatalf("%d hints, want %d", total, len(recs))
	}
}

// mapOwner is the simplest owner: key to place.
type mapOwner struct{ places map[uint64]Ref }

func hintKey(hint []byte) uint64 { return binary.LittleEndian.Uint64(hint) }

func (o *mapOwner) Live(batch []Candidate) {
	for i, c := range batch {
		batch[i].Live = o.places[hintKey(c.Hint)] == c.Ref
	}
}

func (o *mapOwner) Moved(batch []Candidate) {
	for i, c := range batch {
		key := hintKey(c.Hint)
		if batch[i].Live = o.places[key] == c.Ref; batch[i].Live {
			o.places[key] = c.New
		}
	}
}

func TestReclaimShrinks(t *testing.T) {
	m := disk.NewMem(1)
	s, _ := mustOpen(t, m, testOptions())
	owner := &mapOwner{places: map[uint64]Ref{}}
	for i := range 5000 {
		key := uint64(i % 100)
		if old, ok := owner.places[key]; ok {
			s.Free(old)
		}
		ref, err := s.Append(testRecord(key, 200))
		if err != nil {
			t.Fatal(err)
		}
		owner.places[key] = ref
	}
	s.Roll()
	mustCommit(t, s, "1", "")
	before, _ := s.Size()
	freed, err := s.Reclaim(context.Background(), Budget{Below: 0.95}, owner)
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, "2", "")
	after, live := s.Size()
	t.Logf("%d → %d bytes, %d live, %d said to be freed", before, after, live, freed)
	if after > before/10 || freed < before/2 {
		t.Fatalf("reclaim left %d of %d bytes, freed %d", after, before, freed)
	}
	for key, ref := range owner.places {
		got, err := s.Read(ref)
		if err != nil || !bytes.Equal(got, testRecord(key, 200)) {
			t.Fatalf("key %d: %v", key, err)
		}
	}
	s.Close()
	s, _ = mustOpen(t, m, testOptions())
	recs := map[Ref][]byte{}
	for key, ref := range owner.places {
		recs[ref] = testRecord(key, 200)
	}
	checkHints(t, s, recs, 2)
}
