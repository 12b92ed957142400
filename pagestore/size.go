package pagestore

import (
	"errors"
	"io/fs"
	"slices"

	"quire/disk"
)

// FileBytes returns the bytes that the store takes on the disk, or will take once
// everything is written behind. It takes no lock.
func (s *Store) FileBytes() int64 {
	return s.rootBytes.Load() + s.pageBytes.Load() + roundUp(s.writer.taken.Load()) + roundUp(s.copier.taken.Load())
}

// Size returns FileBytes, and an estimate of how many of them are live records,
// which costs a look at each segment.
func (s *Store) Size() (fileBytes, liveBytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.mu.order {
		if !seg.retired {
			liveBytes += seg.tally.live()
		}
	}
	return s.FileBytes(), liveBytes + s.writer.taken.Load() + s.copier.taken.Load()
}

// tallySum adds up a segment's records while they are replayed.
type tallySum struct {
	records, bytes int64 // ordinary ones
	jumbos         int64
}

func (t *tallySum) add(l located) {
	if l.jumbo {
		t.jumbos++
		return
	}
	t.records++
	t.bytes += int64(recordBytesOnPage(l.bytes))
}

func (t *tallySum) count() uint64 { return uint64(t.records + t.jumbos) }

// set replaces the counts of ordinary records by exact ones. What was freed
// meanwhile stays freed.
func (t *tally) set(sum tallySum) {
	t.records.Store(sum.records)
	t.bytes.Store(sum.bytes)
}

func removeIfThere(fsys disk.FS, name string) error {
	if err := fsys.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}

// HasSegment tells whether a segment is still there: in use, or emptied but named
// by the last checkpoint, or kept by a Pin. Ids are not used again while it is.
func (s *Store) HasSegment(id uint32) bool { return s.segment(segmentID(id)) != nil }
