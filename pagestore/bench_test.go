package pagestore

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"quire/disk"
)

// benchDir is a real directory; without NoSync, so that checkpoints cost what
// they do.
func benchDir(b *testing.B) *disk.Dir {
	b.Helper()
	d, err := disk.OpenDir(b.TempDir(), disk.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	return d
}

// benchHint is as long as an index entry: key of 32 bytes and some numbers.
func benchHint(dst, rec []byte) []byte { return append(dst, rec[:min(52, len(rec))]...) }

const benchRecord = 300

// fill appends n records and returns where they are.
func fill(b *testing.B, s *Store, n int) []Ref {
	b.Helper()
	rec := make([]byte, benchRecord)
	refs := make([]Ref, n)
	for i := range refs {
		rec[0], rec[1], rec[2] = byte(i), byte(i>>8), byte(i>>16)
		ref, err := s.Append(rec)
		if err != nil {
			b.Fatal(err)
		}
		refs[i] = ref
	}
	return refs
}

func benchStore(b *testing.B, fsys disk.FS, opts Options) *Store {
	b.Helper()
	opts.Hint = benchHint
	s, _, err := Open(fsys, opts)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkAppend is the apply goroutine's cost; the write behind runs beside it.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{50, 300, 4000} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			s := benchStore(b, benchDir(b), Options{})
			defer s.Close()
			rec := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Append(rec); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(s.Stats().AppendStall.Nanoseconds())/float64(b.N), "stall-ns/op")
		})
	}
}

// BenchmarkReadHot reads at random within the cache.
func BenchmarkReadHot(b *testing.B) {
	s := benchStore(b, benchDir(b), Options{})
	defer s.Close()
	refs := fill(b, s, 100_000)
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		i += 0x9e3779b97f4a7c15
		if _, err := s.Read(refs[i>>32%uint64(len(refs))]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadHotParallel is the same by two goroutines per processor.
func BenchmarkReadHotParallel(b *testing.B) {
	s := benchStore(b, benchDir(b), Options{})
	defer s.Close()
	refs := fill(b, s, 100_000)
	b.ReportAllocs()
	b.SetParallelism(2)
	b.RunParallel(func(p *testing.PB) {
		i := rand.Uint64()
		for p.Next() {
			i += 0x9e3779b97f4a7c15
			if _, err := s.Read(refs[i>>32%uint64(len(refs))]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkReadCold reads at random with a cache of 1 % of the store, whose files
// are in the kernel's memory: a miss costs one pread of 16 KiB and its checksum.
func BenchmarkReadCold(b *testing.B) {
	s := benchStore(b, benchDir(b), Options{CacheBytes: 3 << 20})
	defer s.Close()
	refs := fill(b, s, 1_000_000)
	commit(b, s)
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		i += 0x9e3779b97f4a7c15
		if _, err := s.Read(refs[i>>32%uint64(len(refs))]); err != nil {
			b.Fatal(err)
		}
	}
}

func commit(b *testing.B, s *Store) {
	b.Helper()
	c, err := s.Cut(make([]byte, 200), func(w io.Writer) error { _, err := w.Write(make([]byte, 10<<10)); return err })
	if err == nil {
		err = c.Commit()
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCommit is a checkpoint after so many appends of 300 B.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			s := benchStore(b, benchDir(b), Options{})
			defer s.Close()
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				fill(b, s, n)
				b.StartTimer()
				commit(b, s)
			}
		})
	}
}

// BenchmarkCut is the part of a checkpoint that the apply goroutine pays.
func BenchmarkCut(b *testing.B) {
	s := benchStore(b, disk.NewMem(1), Options{SegmentBytes: 1 << 20, Inline: true})
	fill(b, s, 500_000) // 150 segments
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Cut(nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpenHints opens a store of 1M records and replays all hints from
// the footers.
func BenchmarkOpenHints(b *testing.B) {
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			d := benchDir(b)
			s := benchStore(b, d, Options{})
			fill(b, s, 1_000_000)
			s.Roll()
			commit(b, s)
			s.Close()
			b.ReportAllocs()
			for b.Loop() {
				s := benchStore(b, d, Options{})
				counts := make([]int, workers*8)
				err := s.Hints(workers, func(w int, ref Ref, n int, hint []byte) error {
					counts[w*8]++
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
				total := 0
				for _, n := range counts {
					total += n
				}
				if total != 1_000_000 {
					b.Fatalf("%d records", total)
				}
				s.Close()
			}
		})
	}
}

// BenchmarkReclaim empties a segment of which 30 % is live; the unit is a byte of
// it.
func BenchmarkReclaim(b *testing.B) {
	s := benchStore(b, benchDir(b), Options{Hint: nil})
	defer s.Close()
	b.ReportAllocs()
	total := int64(0)
	for b.Loop() {
		b.StopTimer()
		owner := &benchOwner{s: s}
		for i, ref := range fill(b, s, 100_000) {
			if i%10 >= 3 {
				s.Free(ref)
			}
		}
		s.Roll()
		commit(b, s)
		b.StartTimer()
		n, err := s.Reclaim(b.Context(), Budget{}, owner)
		if err != nil {
			b.Fatal(err)
		}
		total += n
		b.StopTimer()
		commit(b, s)
		b.StartTimer()
	}
	b.SetBytes(benchRecord * 100_000)
	b.ReportMetric(float64(total)/float64(b.N), "reclaimed-B/op")
}

// benchOwner wants every third of ten records.
type benchOwner struct {
	s *Store
	n int
}

func (o *benchOwner) Live(batch []Candidate) {
	for i := range batch {
		batch[i].Live = o.n%10 < 3
		o.n++
	}
}

func (o *benchOwner) Moved(batch []Candidate) {
	for i := range batch {
		batch[i].Live = true
	}
}
