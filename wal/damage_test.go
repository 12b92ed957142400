package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"quire/disk"
)

// smallLog makes a log of a few segments and returns it with its records. If
// clean it is closed; else the power goes off with everything durable.
func smallLog(t testing.TB, clean bool) (*disk.Mem, [][]byte) {
	t.Helper()
	m := disk.NewMem(1)
	l, _, err := Open(m, Options{SegmentBytes: 3 * blockBytes, MaxBatchBytes: 2 * blockBytes, LogID: 77, Manual: true, SpareSegments: -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var recs [][]byte
	for i := range 9 {
		rec := bytes.Repeat([]byte{byte(i + 1)}, 100+i)
		if i == 4 {
			rec = bytes.Repeat([]byte("large"), 1000)
		}
		recs = append(recs, rec)
		if _, err := l.Append(rec); err != nil {
			t.Fatal(err)
		}
		if i%3 == 1 {
			continue
		}
		if err := l.Submit(1, true); err != nil {
			t.Fatal(err)
		}
		for l.Durable() < Pos(i+1) {
			if _, err := l.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Maintain(); err != nil {
			t.Fatal(err)
		}
	}
	if !clean {
		return m.Crash(disk.CrashChoice{Fate: disk.KeepAll}), recs
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return m.Clone(1), recs
}

// lastBatch returns where the newest batch lies.
func lastBatch(t testing.TB, m *disk.Mem) (file string, off, size int64) {
	t.Helper()
	r, err := newReader(m, visitor{batch: func(seg *segment, o int64, h *batchHeader) { file, off, size = seg.name, o, h.size() }})
	if err == nil {
		_, _, err = r.run()
	}
	if err != nil {
		t.Fatal(err)
	}
	return file, off, size
}

// judgeDamage checks the outcome after damage: right data, or a refusal that
// names the file, or, if only the newest batch of a log that was not closed was
// hit, a reported cut of that batch. It returns which.
func judgeDamage(m *disk.Mem, recs [][]byte, mayCut int) (string, error) {
	rec, records, err := readAll(m)
	for i, g := range records { // also those before a refusal
		if int(g.pos) != i+1 || i >= len(recs) || !bytes.Equal(g.rec, recs[i]) {
			return "", fmt.Errorf("wrong data: record %d", g.pos)
		}
	}
	if err != nil {
		var ce *CorruptError
		var ve *VersionError
		var me *MissingError
		if !errors.As(err, &ce) && !errors.As(err, &ve) && !errors.As(err, &me) || !strings.Contains(err.Error(), ".wal") {
			return "", fmt.Errorf("refusal without a name: %w", err)
		}
		return "refused", nil
	}
	switch missing := len(recs) - len(records); {
	case missing == 0 && rec.CutBatches == 0:
		return "right", nil
	case missing == 0:
		return "right, cut", nil
	case missing > mayCut:
		return "", fmt.Errorf("%d records lost: %+v", missing, rec)
	case rec.CutBatches == 0:
		return "", fmt.Errorf("%d records lost without a report", missing)
	}
	return "cut", nil
}

// TestBitFlips flips every bit of a small log that means something, and some of
// those that do not (padding, the room behind the end), one at a time.
func TestBitFlips(t *testing.T) {
	for _, clean := range []bool{true, false} {
		m, recs := smallLog(t, clean)
		file, off, size := lastBatch(t, m)
		used := usedBytes(t, m)
		infos, _ := m.List("")
		outcomes := map[string]int{}
		for _, info := range infos {
			for bit := int64(0); bit < info.SizeBytes*8; bit++ {
				at := bit / 8
				if !used[info.Name][at] && bit%41 != 0 {
					continue
				}
				mayCut := 0
				if !clean && info.Name == file && at >= off && at < off+size {
					mayCut = 2 // records in the newest batch
				}
				m.FlipBit(info.Name, bit)
				what, err := judgeDamage(m, recs, mayCut)
				m.FlipBit(info.Name, bit)
				if err != nil {
					t.Fatalf("clean %v: bit %d of byte %d of %s: %v", clean, bit%8, bit/8, info.Name, err)
				}
				if what == "right" && used[info.Name][at] {
					t.Fatalf("clean %v: bit %d of byte %d of %s went unnoticed", clean, bit%8, bit/8, info.Name)
				}
				outcomes[what]++
			}
		}
		t.Logf("clean %v: %v", clean, outcomes)
	}
}

// usedBytes tells which bytes of each file a hash covers, and the hash itself.
func usedBytes(t testing.TB, m *disk.Mem) map[string]map[int64]bool {
	t.Helper()
	used := map[string]map[int64]bool{}
	mark := func(name string, from, to int64) {
		for i := from; i < to; i++ {
			used[name][i] = true
		}
	}
	infos, _ := m.List("")
	for _, info := range infos {
		used[info.Name] = map[int64]bool{}
		mark(info.Name, 0, segmentHead)
	}
	r, err := newReader(m, visitor{batch: func(seg *segment, off int64, h *batchHeader) {
		mark(seg.name, off, off+h.hashed())
	}})
	if err == nil {
		_, _, err = r.run()
	}
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// TestTruncate cuts every segment at every length.
func TestTruncate(t *testing.T) {
	m, recs := smallLog(t, false)
	infos, _ := m.List("")
	for i, info := range infos {
		p, err := m.ReadFile(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(p) {
			c := m.Clone(1)
			c.WriteFile(info.Name, p[:n])
			want := "refused"
			if n == 0 && i == len(infos)-1 {
				want = "right" // it was only ready
			}
			if what, err := judgeDamage(c, recs, 0); err != nil || what != want {
				t.Fatalf("%s cut to %d bytes: %q, %v", info.Name, n, what, err)
			}
		}
	}
}

// TestDamagedSectors zeroes each sector, and swaps each pair of blocks.
func TestDamagedSectors(t *testing.T) {
	m, recs := smallLog(t, true)
	infos, _ := m.List("")
	type block struct {
		name string
		i    int
	}
	var blocks []block
	content := map[string][]byte{}
	for _, info := range infos {
		p, _ := m.ReadFile(info.Name)
		content[info.Name] = p
		for s := 0; s < len(p); s += 512 {
			q := bytes.Clone(p)
			clear(q[s : s+512])
			m.WriteFile(info.Name, q)
			if _, err := judgeDamage(m, recs, 0); err != nil {
				t.Fatalf("%s sector at %d zeroed: %v", info.Name, s, err)
			}
		}
		m.WriteFile(info.Name, p)
		for i := range len(p) / blockBytes {
			blocks = append(blocks, block{info.Name, i})
		}
	}
	for _, a := range blocks {
		for _, b := range blocks {
			c := m.Clone(1)
			pa, pb := bytes.Clone(content[a.name]), bytes.Clone(content[b.name])
			copy(pa[a.i*blockBytes:], content[b.name][b.i*blockBytes:(b.i+1)*blockBytes])
			if a.name == b.name {
				pb = pa
			}
			copy(pb[b.i*blockBytes:], content[a.name][a.i*blockBytes:(a.i+1)*blockBytes])
			c.WriteFile(a.name, pa)
			c.WriteFile(b.name, pb)
			if _, err := judgeDamage(c, recs, 0); err != nil {
				t.Fatalf("blocks %v and %v swapped: %v", a, b, err)
			}
		}
	}
}

// TestStaleBlocks puts every older version of every block back: a write that the
// disk acknowledged and lost.
func TestStaleBlocks(t *testing.T) {
	type version struct {
		name string
		i    int
		data string
	}
	m := disk.NewMem(1)
	seen := map[version]bool{}
	opts := Options{SegmentBytes: 4 * blockBytes, MaxBatchBytes: blockBytes, LogID: 5, Manual: true}
	var recs [][]byte
	for range 3 { // opened three times, with trimming, so that segments are recycled
		l, _, err := Open(m, opts, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 7 {
			rec := []byte(fmt.Sprintf("record %d", len(recs)+1))
			recs = append(recs, rec)
			if _, err := l.Append(rec); err != nil {
				t.Fatal(err)
			}
			if err := l.Submit(1, true); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Wait(); err != nil {
				t.Fatal(err)
			}
			if err := firstError(l.TrimBefore(Pos(max(len(recs)-5, 0))), l.Maintain()); err != nil {
				t.Fatal(err)
			}
			infos, _ := m.List("")
			for _, info := range infos {
				p, _ := m.ReadFile(info.Name)
				for i := range len(p) / blockBytes {
					seen[version{info.Name, i, string(p[i*blockBytes : (i+1)*blockBytes])}] = true
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]int{}
	for v := range seen {
		p, err := m.ReadFile(v.name)
		if err != nil {
			continue // the segment is gone
		}
		copy(p[v.i*blockBytes:], v.data)
		c := m.Clone(1)
		c.WriteFile(v.name, p)
		rec, records, err := readAll(c)
		if err == nil && int(rec.LastPos) != len(recs) {
			t.Fatalf("%s block %d: log ends with %d of %d", v.name, v.i, rec.LastPos, len(recs))
		}
		for _, g := range records {
			if !bytes.Equal(g.rec, recs[g.pos-1]) {
				t.Fatalf("%s block %d: wrong record %d", v.name, v.i, g.pos)
			}
		}
		cases[fmt.Sprint(err == nil)]++
	}
	t.Logf("right: %v", cases)
}

// TestMissingSegment takes each segment away.
func TestMissingSegment(t *testing.T) {
	m, recs := smallLog(t, false)
	infos, _ := m.List("")
	if len(infos) < 4 {
		t.Fatalf("%d files", len(infos))
	}
	for i, info := range infos {
		c := m.Clone(1)
		if err := c.Remove(info.Name); err != nil {
			t.Fatal(err)
		}
		_, err := Check(c)
		switch {
		case i == 0: // nothing says that it was not trimmed: the caller compares FirstPos
			rec, err := Check(c)
			if err != nil || rec.FirstPos == 1 {
				t.Fatal(rec, err)
			}
		case i == len(infos)-1: // only ready
			if what, err := judgeDamage(c, recs, 0); what != "right" {
				t.Fatal(what, err)
			}
		default:
			var me *MissingError
			if !errors.As(err, &me) || me.File != info.Name || me.Count != 1 || !errors.Is(err, ErrMissingSegment) {
				t.Fatal(err)
			}
		}
	}
	c := m.Clone(1)
	for _, info := range infos[:len(infos)-1] {
		if err := c.Remove(info.Name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Check(c); !errors.Is(err, ErrCorrupt) { // an empty segment with a high number is no new log
		t.Fatal(err)
	}
}

// TestZeroLength: the last segment may be empty, no other.
func TestZeroLength(t *testing.T) {
	m, recs := smallLog(t, true)
	infos, _ := m.List("")
	for i, info := range infos {
		c := m.Clone(1)
		c.WriteFile(info.Name, nil)
		l, rec, err := Open(c, Options{Manual: true, SegmentBytes: 3 * blockBytes}, nil)
		if i < len(infos)-1 {
			var ce *CorruptError
			if !errors.As(err, &ce) || ce.File != info.Name {
				t.Fatalf("%s empty: %v", info.Name, err)
			}
			continue
		}
		if err != nil || int(rec.LastPos) != len(recs) {
			t.Fatal(rec, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestForeignSegment: a segment of another log, or of another place, is refused.
func TestForeignSegment(t *testing.T) {
	m, _ := smallLog(t, true)
	infos, _ := m.List("")
	p, _ := m.ReadFile(infos[0].Name)
	q, _ := m.ReadFile(infos[1].Name)
	c := m.Clone(1)
	c.WriteFile(infos[1].Name, p)
	c.WriteFile(infos[0].Name, q)
	if _, err := Check(c); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "segment number") {
		t.Fatal(err)
	}
	other := disk.NewMem(1)
	l, _, err := Open(other, Options{SegmentBytes: 3 * blockBytes, MaxBatchBytes: 2 * blockBytes, LogID: 78, Manual: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p, _ = other.ReadFile(segmentName(1))
	c = m.Clone(1)
	c.WriteFile(infos[0].Name, p)
	if _, err := Check(c); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "identity") {
		t.Fatal(err)
	}
}

// TestReadError: an error of the disk while reading is told as it is.
func TestReadError(t *testing.T) {
	for n := 1; ; n++ {
		m, _ := smallLog(t, true)
		m.InjectErr(disk.Fault{Kind: disk.OpRead, Nth: n, Err: io.ErrNoProgress})
		_, err := Check(m)
		if err == nil {
			if n < 4 {
				t.Fatalf("only %d reads", n)
			}
			return
		}
		var de *disk.Error
		if !errors.Is(err, io.ErrNoProgress) || !errors.As(err, &de) || de.Name == "" {
			t.Fatal(err)
		}
	}
}
