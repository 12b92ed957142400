package pagestore

import (
	"errors"
	"math/rand/v2"
	"testing"

	"quire/disk"
)

// TestPageSumInPieces: bytes in pieces of any size say what the pages of the file
// say, and a flipped bit anywhere is seen.
func TestPageSumInPieces(t *testing.T) {
	for seed := range uint64(20) {
		s, err := newSource(seed, 60)
		if err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(seed, 1))
		for i, e := range s.x.manifest.segments {
			content := make([]byte, e.fileEnd())
			if _, err := s.x.ReadAt(uint32(i), content, 0); err != nil {
				t.Fatal(err)
			}
			f, err := s.disk.Open(segmentName(e.id), disk.ReadOnly)
			if err != nil {
				t.Fatal(err)
			}
			at := place{file: segmentName(e.id), segment: e.id, epoch: e.epoch}
			want, err := sumPages(f, at, e)
			if err != nil {
				t.Fatal(err)
			}
			inPieces := func() (uint64, error) {
				sum := newPageSum(at, e)
				for p := content; len(p) > 0; {
					n := 1 + rnd.IntN(min(len(p), 1+rnd.IntN(20000)))
					sum.add(p[:n])
					p = p[n:]
				}
				return sum.end()
			}
			if got, err := inPieces(); err != nil || got != want {
				t.Fatalf("seed %d, segment %d: %x, %v, want %x", seed, i, got, err, want)
			}
			content[rnd.IntN(len(content))] ^= 1 << rnd.IntN(8)
			var corrupt *CorruptError
			var version *VersionError
			if got, err := inPieces(); got == want || !errors.As(err, &corrupt) && !errors.As(err, &version) {
				t.Fatalf("seed %d, segment %d: a flipped bit: %x, %v", seed, i, got, err)
			}
		}
	}
}
