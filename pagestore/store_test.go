package pagestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

func TestEmptyStoreIsSmall(t *testing.T) {
	m := disk.NewMem(1)
	s, _ := mustOpen(t, m, Options{})
	defer s.Close()
	total := int64(0)
	infos, _ := m.List("")
	for _, f := range infos {
		total += f.SizeBytes
	}
	files, live := s.Size()
	if files != total || live != 0 || files > 16<<10 {
		t.Fatalf("empty store: %d bytes in files, Size says %d, %d live", total, files, live)
	}
}

// TestSizeIsTheFiles compares Size with the files after a commit.
func TestSizeIsTheFiles(t *testing.T) {
	m := disk.NewMem(1)
	s, _ := mustOpen(t, m, testOptions())
	bytesIn := int64(0)
	for i := range 1000 {
		if _, err := s.Append(testRecord(uint64(i), i%700)); err != nil {
			t.Fatal(err)
		}
		bytesIn += int64(8 + i%700)
	}
	mustCommit(t, s, "x", "some state")
	total := int64(0)
	infos, _ := m.List("")
	for _, f := range infos {
		total += f.SizeBytes
	}
	files, live := s.Size()
	if files != total || live < bytesIn || live > bytesIn+3000 {
		t.Fatalf("%d bytes in files, Size says %d; %d bytes of records, Size says %d", total, files, bytesIn, live)
	}
}

// TestHugeRecord writes records larger than a segment, beside small ones.
func TestHugeRecord(t *testing.T) {
	dir, err := disk.OpenDir(t.TempDir(), disk.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, inline := range []bool{true, false} {
		opts := Options{Inline: inline, SegmentBytes: 1 << 20, Hint: testHint, CacheBytes: 8 << 20, DirtyBytes: 4 << 20}
		s, _ := mustOpen(t, dir, opts)
		recs := map[Ref][]byte{}
		for i, n := range []int{10, 65 << 20, 10, 16000, 16400, 3 << 20, 1, 0} {
			rec := testRecord(uint64(i), n)
			ref, err := s.Append(rec)
			if err != nil {
				t.Fatal(err)
			}
			recs[ref] = rec
		}
		for range 2 {
			for ref, want := range recs {
				if got, err := s.Read(ref); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%v: %v", ref, err)
				}
			}
			mustCommit(t, s, "1", "")
		}
		if st := s.Stats(); st.CacheBytes > opts.CacheBytes {
			t.Fatalf("cache has %d bytes", st.CacheBytes)
		}
		// The large one dies: the estimate must notice.
		_, before := s.Size()
		for ref, rec := range recs {
			if len(rec) > 60<<20 {
				s.Free(ref)
			}
		}
		if _, after := s.Size(); before-after < 60<<20 {
			t.Fatalf("live bytes from %d to %d", before, after)
		}
		s.Close()
		if err := Check(dir); err != nil {
			t.Fatal(err)
		}
		s, _ = mustOpen(t, dir, opts)
		found := 0
		s.Hints(1, func(_ int, ref Ref, n int, hint []byte) error {
			if recs[ref] != nil && len(recs[ref]) == n {
				found++
			}
			if n > 60<<20 {
				s.Free(ref)
			}
			return nil
		})
		if found != len(recs) {
			t.Fatalf("%d of %d records", found, len(recs))
		}
		if _, live := s.Size(); live < 3<<20 || live > 8<<20 {
			t.Fatalf("%d live bytes after start, without the large one", live)
		}
		s.Close()
	}
}

func TestRecordTooLarge(t *testing.T) {
	opts := testOptions()
	opts.MaxRecordBytes = 1000
	s, _ := mustOpen(t, disk.NewMem(1), opts)
	if _, err := s.Append(make([]byte, 1001)); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if _, err := s.Append(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
}

// TestPinKeeps reads a record's old place through a Pin after it was moved and
// its segment left the checkpoint, and sees it go with the Pin.
func TestPinKeeps(t *testing.T) {
	m := disk.NewMem(1)
	opts := testOptions()
	opts.CacheBytes = 0
	s, _ := mustOpen(t, m, opts)
	owner := &mapOwner{places: map[uint64]Ref{}}
	for i := range uint64(300) {
		ref, err := s.Append(testRecord(i, 100))
		if err != nil {
			t.Fatal(err)
		}
		owner.places[i] = ref
	}
	for i := range uint64(299) {
		s.Free(owner.places[i])
		delete(owner.places, i)
	}
	s.Roll()
	mustCommit(t, s, "1", "")
	old := owner.places[299]
	pin := s.Pin()
	if _, err := s.Reclaim(context.Background(), Budget{}, owner); err != nil {
		t.Fatal(err)
	}
	if owner.places[299] == old {
		t.Fatal("not moved")
	}
	mustCommit(t, s, "2", "")
	younger := s.Pin() // does not hold what went before it
	defer younger.Release()
	if got, err := s.Read(old); err != nil || !bytes.Equal(got, testRecord(299, 100)) {
		t.Fatalf("pinned: %v", err)
	}
	pin.Release()
	mustCommit(t, s, "3", "")
	if _, err := s.Read(old); !errors.Is(err, ErrGone) {
		t.Fatalf("after the Pin: %v", err)
	}
	if _, err := m.ReadFile(segmentName(old.segment())); err == nil {
		t.Fatal("the file is still there")
	}
	if got, err := s.Read(owner.places[299]); err != nil || !bytes.Equal(got, testRecord(299, 100)) {
		t.Fatalf("new place: %v", err)
	}
}

func TestBadRefs(t *testing.T) {
	s, _ := mustOpen(t, disk.NewMem(1), testOptions())
	ref, _ := s.Append(testRecord(1, 100))
	mustCommit(t, s, "1", "")
	for _, bad := range []Ref{0, ref + 1<<offsetBits*5, ref | 0x3000, makeRef(ref.segment(), maxPageNo, 48), ref - 1} {
		if _, err := s.Read(bad); !errors.Is(err, ErrBadRef) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := s.Read(ref + 1<<(offsetBits+pageBits)); !errors.Is(err, ErrGone) {
		t.Errorf("no such segment: %v", err)
	}
	if got, err := s.Read(ref | 0xff<<RefBits); err != nil || !bytes.Equal(got, testRecord(1, 100)) {
		t.Errorf("with flags: %v", err)
	}
}

// TestIDsGoRound: after the last id come those that are free.
func TestIDsGoRound(t *testing.T) {
	m := disk.NewMem(1)
	s, _ := mustOpen(t, m, testOptions())
	recs := map[Ref][]byte{}
	put := func(key uint64) {
		t.Helper()
		rec := testRecord(key, 10)
		ref, err := s.Append(rec)
		if err != nil {
			t.Fatal(err)
		}
		recs[ref] = rec
		s.Roll()
	}
	put(1)
	s.mu.nextID = maxSegmentID
	for key := range uint64(3) {
		put(key + 2)
	}
	mustCommit(t, s, "1", "")
	s.Close()
	s, _ = mustOpen(t, m, testOptions())
	checkHints(t, s, recs, 1)
	for ref, want := range recs {
		if got, err := s.Read(ref); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v: %v", ref, err)
		}
	}
}

// TestRestartsMerge opens a store again and again: the small segments that each
// life leaves do not pile up.
func TestRestartsMerge(t *testing.T) {
	m := disk.NewMem(1)
	owner := &mapOwner{places: map[uint64]Ref{}}
	for i := range uint64(100) {
		s, _ := mustOpen(t, m, testOptions())
		if s.Incarnation() != i+1 {
			t.Fatalf("incarnation %d, want %d", s.Incarnation(), i+1)
		}
		ref, err := s.Append(testRecord(i, 100))
		if err != nil {
			t.Fatal(err)
		}
		owner.places[i] = ref
		mustCommit(t, s, fmt.Sprint(i), "")
		if _, err := s.Reclaim(context.Background(), Budget{}, owner); err != nil {
			t.Fatal(err)
		}
		mustCommit(t, s, fmt.Sprint(i), "")
		if n := s.Stats().Segments; n > 2*smallMerge+1 {
			t.Fatalf("%d segments after %d lives", n, i+1)
		}
		s.Close()
	}
	s, _ := mustOpen(t, m, testOptions())
	for key, ref := range owner.places {
		if got, err := s.Read(ref); err != nil || !bytes.Equal(got, testRecord(key, 100)) {
			t.Fatalf("key %d: %v", key, err)
		}
	}
}

// TestReclaimKeepsToBudget measures, in simulated time, how long a Reclaim takes.
func TestReclaimKeepsToBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := mustOpen(t, disk.NewMem(1), testOptions())
		owner := &mapOwner{places: map[uint64]Ref{}}
		for i := range uint64(2000) {
			ref, err := s.Append(testRecord(i, 200))
			if err != nil {
				t.Fatal(err)
			}
			if owner.places[i] = ref; i%4 != 0 {
				s.Free(ref)
				delete(owner.places, i)
			}
		}
		s.Roll()
		mustCommit(t, s, "1", "")
		began := time.Now()
		if _, err := s.Reclaim(context.Background(), Budget{BytesPerSecond: 100 << 10}, owner); err != nil {
			t.Fatal(err)
		}
		copied := int64(s.Stats().CopiedBytes)
		if took := time.Since(began); took < time.Duration(copied)*time.Second/(100<<10) || took > 20*time.Second {
			t.Fatalf("copied %d bytes in %v", copied, took)
		}
	})
}

// TestSupersededCommit: committing an older Cut after a newer one changes nothing.
func TestSupersededCommit(t *testing.T) {
	m := disk.NewMem(1)
	s, _ := mustOpen(t, m, testOptions())
	cuts := []*Cut{}
	for i := range 3 {
		if _, err := s.Append(testRecord(uint64(i), 10)); err != nil {
			t.Fatal(err)
		}
		c, err := s.Cut([]byte(fmt.Sprint(i)), nil)
		if err != nil {
			t.Fatal(err)
		}
		cuts = append(cuts, c)
	}
	for _, i := range []int{1, 0, 2, 1} {
		if err := cuts[i].Commit(); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	_, c := mustOpen(t, m, testOptions())
	if string(c.Meta) != "2" {
		t.Fatalf("checkpoint %q", c.Meta)
	}
}

// TestStateFunctionFails: an error of the owner's function is not the store's end.
func TestStateFunctionFails(t *testing.T) {
	m := disk.NewMem(1)
	s, _ := mustOpen(t, m, testOptions())
	mustCommit(t, s, "1", "first")
	own := errors.New("own")
	c, _ := s.Cut([]byte("2"), func(io.Writer) error { return own })
	if err := c.Commit(); !errors.Is(err, own) {
		t.Fatal(err)
	}
	c, _ = s.Cut([]byte("3"), nil) // the state is still the first
	if err := c.Commit(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	_, got := mustOpen(t, m, testOptions())
	if string(got.Meta) != "3" || string(got.State) != "first" {
		t.Fatalf("%q %q", got.Meta, got.State)
	}
	if infos, _ := m.List(""); len(infos) != 2 {
		t.Fatalf("files %v", infos)
	}
}

func TestValidate(t *testing.T) {
	err := Options{SegmentBytes: 1, PageBytes: 5000, DirtyBytes: 1, MaxRecordBytes: -1}.Validate()
	for _, name := range []string{"SegmentBytes", "PageBytes", "DirtyBytes", "MaxRecordBytes"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not reported: %v", name, err)
		}
	}
	if err := (Options{}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestClosed(t *testing.T) {
	s, _ := mustOpen(t, disk.NewMem(1), testOptions())
	ref, _ := s.Append(testRecord(1, 10))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, readErr := s.Read(ref)
	_, cutErr := s.Cut(nil, nil)
	for _, err := range []error{readErr, cutErr, s.Close()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}
