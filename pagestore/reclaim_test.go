package pagestore

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"quire/disk"
)

// fickleOwner has records die between Live and Moved, or the disk fill up.
type fickleOwner struct {
	mapOwner
	s       *Store
	dies    func(key uint64) bool
	full    bool // at every third of the first Lives: some copies still fit in the open page
	asked   int
	refused int
}

func (o *fickleOwner) Live(batch []Candidate) {
	o.mapOwner.Live(batch)
	if o.asked++; o.full && o.asked%3 == 0 && o.asked < 60 {
		o.s.noteSpace(syscall.ENOSPC)
	}
}

func (o *fickleOwner) Moved(batch []Candidate) {
	for _, c := range batch {
		if key := hintKey(c.Hint); o.dies(key) {
			o.s.Free(c.Ref)
			delete(o.places, key)
			o.refused++
		}
	}
	o.mapOwner.Moved(batch)
}

// TestCopiesTakenBack: a copy that the owner did not take is not there after a
// restart, whether it lies in a page that is still open, or sealed meanwhile, or
// alone in a page; nor are copies of a batch that was broken off.
func TestCopiesTakenBack(t *testing.T) {
	for _, c := range []struct {
		name string
		dies func(uint64) bool
		full bool
	}{
		{"some", func(k uint64) bool { return k%7 == 0 }, false},
		{"all", func(uint64) bool { return true }, false},
		{"disk full within a batch", func(uint64) bool { return false }, true},
		{"both", func(k uint64) bool { return k%5 == 0 }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := disk.NewMem(1)
			opts := testOptions()
			opts.SegmentBytes, opts.PageBytes, opts.DirtyBytes = 4<<20, 4<<10, 1<<20
			s, _ := mustOpen(t, m, opts)
			owner := &fickleOwner{mapOwner: mapOwner{map[uint64]Ref{}}, s: s, dies: c.dies, full: c.full}
			size := map[uint64]int{}
			for key := range uint64(600) {
				n := 100 + int(key%900)
				if key%50 == 0 {
					n = 5000 + int(key)
				}
				ref, err := s.Append(testRecord(key, n))
				if err != nil {
					t.Fatal(err)
				}
				owner.places[key], size[key] = ref, n+8
			}
			s.Roll()
			mustCommit(t, s, "1", "")
			budget := Budget{Below: 2} // everything
			_, err := s.Reclaim(context.Background(), budget, owner)
			if c.full {
				if !errors.Is(err, ErrNoSpace) {
					t.Fatalf("on a full disk: %v", err)
				}
				for errors.Is(err, ErrNoSpace) {
					s.noteSpace(nil)
					_, err = s.Reclaim(context.Background(), budget, owner)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			mustCommit(t, s, "2", "")
			if err := s.checkInvariants(); err != nil {
				t.Fatal(err)
			}
			s.Close()
			if err := Check(m.Clone(1)); err != nil {
				t.Fatal(err)
			}
			s, _ = mustOpen(t, m, opts)
			found := map[uint64]bool{}
			err = s.Hints(1, func(_ int, ref Ref, n int, hint []byte) error {
				key := hintKey(hint)
				if found[key] || owner.places[key] != ref || size[key] != n {
					t.Errorf("record %d at %v, known at %v, seen before: %v", key, ref, owner.places[key], found[key])
				}
				found[key] = true
				return nil
			})
			if err != nil || len(found) != len(owner.places) || (c.full == (owner.refused > 0)) != (c.name == "both") {
				t.Fatalf("%d records of %d, %d refused, %v", len(found), len(owner.places), owner.refused, err)
			}
			// Nothing but void records in a segment: it can be emptied, too.
			s.Roll()
			mustCommit(t, s, "3", "")
			if _, err := s.Reclaim(context.Background(), budget, &mapOwner{map[uint64]Ref{}}); err != nil {
				t.Fatal(err)
			}
			mustCommit(t, s, "4", "")
			if n := s.Stats().Segments; n != 0 {
				t.Fatalf("%d segments left", n)
			}
		})
	}
}
