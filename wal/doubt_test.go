package wal

import (
	"bytes"
	"errors"
	"testing"

	"quire/disk"
)

// endOf makes a log whose newest batch holds one record of n bytes, in a segment
// that was used before or not, and returns the disk before and after that batch.
func endOf(t *testing.T, n int, recycled bool) (before, after *disk.Mem, opts Options) {
	t.Helper()
	opts = Options{SegmentBytes: 8 * blockBytes, MaxBatchBytes: 2 * blockBytes, LogID: 9, Manual: true, SpareSegments: 2}
	m := disk.NewMem(1)
	l, _, err := Open(m, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	put := func(rec []byte) {
		t.Helper()
		pos, err := l.Append(rec)
		if err == nil {
			err = l.Submit(1, true)
		}
		for err == nil && l.Durable() < pos {
			_, err = l.Wait()
		}
		if err := firstError(err, l.TrimBefore(max(pos, 4)-3), l.Maintain()); err != nil {
			t.Fatal(err)
		}
	}
	rounds := 1
	if recycled {
		rounds = 12
	}
	for i := range rounds {
		put(bytes.Repeat([]byte{byte('a' + i)}, 5000))
	}
	before = m.Clone(1)
	put(bytes.Repeat([]byte("z"), n))
	return before, m.Clone(2), opts
}

// reopen opens a copy of the log.
func reopen(t *testing.T, m *disk.Mem, opts Options) (Recovery, *disk.Mem, error) {
	t.Helper()
	m = m.Clone(3)
	l, rec, err := Open(m, opts, nil)
	if err == nil {
		err = l.Close()
	}
	return rec, m, err
}

// TestDamagedEnd: each bit of the newest batch that flips at rest is noticed, and
// told from a torn write: the log is refused, or its end is cut and that is told at
// the next start too.
func TestDamagedEnd(t *testing.T) {
	for _, recycled := range []bool{false, true} {
		_, m, opts := endOf(t, 700, recycled)
		file, off, _ := lastBatch(t, m)
		whole, _, err := reopen(t, m, opts)
		if err != nil || whole.Doubtful {
			t.Fatal(whole, err)
		}
		for bit := off * 8; bit < (off+2*sectorBytes)*8; bit++ {
			if at := bit/8 - off; at > headerBytes+10 && bit%13 != 0 && at%sectorBytes < sectorData {
				continue // in the middle of the record one is as good as another
			}
			m.FlipBit(file, bit)
			_, _, err := reopen(t, m, opts)
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("recycled %v, bit %d of byte %d: %v", recycled, bit%8, bit/8-off, err)
			}
			cut := opts
			cut.CutDamaged = true
			first, n, err := reopen(t, m, cut)
			if err != nil || !first.Doubtful || first.DoubtPos != whole.LastPos-1 || first.LastPos != whole.LastPos-1 || first.CutBatches == 0 {
				t.Fatalf("recycled %v, bit %d of byte %d: %+v, %v", recycled, bit%8, bit/8-off, first, err)
			}
			second, _, err := reopen(t, n, opts)
			if err != nil || !second.Doubtful || second.DoubtPos != first.DoubtPos || second.LastPos != first.LastPos {
				t.Fatalf("again: %+v, %v", second, err)
			}
			m.FlipBit(file, bit)
		}
	}
}

// TestTornEnd: a batch of which any sector was not written is a torn write, whatever
// was there before.
func TestTornEnd(t *testing.T) {
	for _, recycled := range []bool{false, true} {
		old, m, opts := endOf(t, 2100, recycled)
		file, off, size := lastBatch(t, m)
		was, err := old.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		is, _ := m.ReadFile(file)
		sectors := int(size / sectorBytes)
		content := 5 // 2100 bytes and two heads
		for subset := range 1 << sectors {
			p := bytes.Clone(is)
			for s := range sectors {
				if subset>>s&1 == 0 {
					at := int(off) + s*sectorBytes
					copy(p[at:at+sectorBytes], was[at:])
				}
			}
			n := m.Clone(1)
			n.WriteFile(file, p)
			rec, _, err := reopen(t, n, opts)
			wantLost := subset&(1<<content-1) != 1<<content-1
			if lost := rec.LastPos != rec.DoubtPos && rec.CutBatches > 0; err != nil || rec.Doubtful || lost && !wantLost {
				t.Fatalf("recycled %v, sectors %08b: %+v, %v", recycled, subset, rec, err)
			}
		}
	}
}
