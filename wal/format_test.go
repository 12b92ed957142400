package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"quire/disk"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenRecords are the records in testdata/v2.wal.
func goldenRecords() [][]byte {
	return [][]byte{[]byte("first"), {}, bytes.Repeat([]byte("0123456789"), 1000), []byte("last")}
}

// writeGolden makes the log whose first segment is the golden file: batches of
// every kind, a record of three pieces, an empty one.
func writeGolden(t *testing.T, m *disk.Mem) {
	l, _, err := Open(m, Options{SegmentBytes: 11 * blockBytes, MaxBatchBytes: blockBytes, LogID: 0x1122334455667788, QueueDepth: 1, Manual: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, rec := range goldenRecords() {
		pos, err := l.Append(rec)
		if err != nil || int(pos) != i+1 {
			t.Fatal(pos, err)
		}
		if i == 0 {
			continue
		}
		if err := l.Submit(1, true); err != nil {
			t.Fatal(err)
		}
		for l.Durable() < pos {
			if _, err := l.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Mark(); err != nil {
			t.Fatal(err)
		}
		for l.InFlight() > 0 {
			if _, err := l.Poll(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestGolden: version 2 is read as it was written then, and written as it was.
func TestGolden(t *testing.T) {
	const file, dump = "testdata/v2.wal", "testdata/v2.dump"
	m := disk.NewMem(1)
	writeGolden(t, m)
	now, err := m.ReadFile(segmentName(1))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := Dump(m, &text); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := firstError(os.WriteFile(file, now, 0o600), os.WriteFile(dump, text.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(golden, now) {
		t.Fatal("version 2 is not written any more as it was: a new version is needed")
	}
	wantDump, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(wantDump) {
		t.Fatalf("dump:\n%s\nwant:\n%s", text.String(), wantDump)
	}
	g := disk.NewMem(1)
	g.WriteFile(segmentName(1), golden)
	rec, records, err := readAll(g)
	want := goldenRecords()
	if err != nil || !rec.Clean || len(records) != len(want) {
		t.Fatal(rec, err)
	}
	for i, r := range records {
		if !bytes.Equal(r.rec, want[i]) {
			t.Fatalf("record %d: %q", i+1, r.rec)
		}
	}
}

// TestWrongVersion: a segment of another version, right in itself, is refused by name.
func TestWrongVersion(t *testing.T) {
	m := disk.NewMem(1)
	writeGolden(t, m)
	p, _ := m.ReadFile(segmentName(1))
	binary.LittleEndian.PutUint32(p[16:], 3)
	binary.LittleEndian.PutUint64(p, xxhash.Sum64(p[8:segmentHead]))
	m.WriteFile(segmentName(1), p)
	_, _, err := Open(m, Options{}, nil)
	var ve *VersionError
	if !errors.Is(err, ErrVersion) || !errors.As(err, &ve) || ve.File != segmentName(1) || ve.Got != 3 || ve.Want != 2 {
		t.Fatal(err)
	}
}

// TestDumpDamaged: what is damaged is shown and named.
func TestDumpDamaged(t *testing.T) {
	m, _ := smallLog(t, true)
	m.FlipBit(segmentName(1), (2*blockBytes+100)*8)
	var text bytes.Buffer
	err := Dump(m, &text)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(text.String(), "refused: wal: "+segmentName(1)) {
		t.Fatalf("%v\n%s", err, text.String())
	}
	text.Reset()
	if err := Dump(disk.NewMem(1), &text); err != nil {
		t.Fatal(err)
	}
	if rec, err := Check(disk.NewMem(1)); err != nil || !rec.Fresh {
		t.Fatal(rec, err)
	}
}

// FuzzRecover puts arbitrary bytes somewhere into a small log. Whatever comes,
// the reader must not panic nor give out a record that was not written; with
// fixHash the bytes get a right hash, so that what lies behind it is reached.
func FuzzRecover(f *testing.F) {
	m, recs := smallLog(f, true)
	infos, _ := m.List("")
	f.Add(uint8(0), uint16(0), []byte{1, 2, 3}, false)
	f.Add(uint8(0), uint16(blockBytes+64), []byte{0xff, 0xff, 0xff, 0xff}, true)
	f.Add(uint8(1), uint16(blockBytes+headerBytes), []byte{0xff, 0xff, 0xff, 0xff}, true)
	f.Add(uint8(1), uint16(2*blockBytes), make([]byte, 100), false)
	f.Fuzz(func(t *testing.T, seg uint8, at uint16, data []byte, fixHash bool) {
		name := infos[int(seg)%len(infos)].Name
		p, err := m.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		off := int(at) % len(p)
		copy(p[off:], data)
		if block := off / blockBytes * blockBytes; fixHash && block > 0 {
			h, _ := decodeBatchHeader(p[block:])
			if end := block + int(h.hashed()); end <= len(p) {
				binary.LittleEndian.PutUint64(p[block:], xxhash.Sum64(p[block+8:end]))
			}
		}
		c := m.Clone(1)
		c.WriteFile(name, p)
		_, records, err := readAll(c)
		if fixHash {
			return // a forged hash makes forged records; only panics count
		}
		for i, g := range records {
			if int(g.pos) != i+1 || i >= len(recs) || !bytes.Equal(g.rec, recs[i]) {
				t.Fatalf("wrong record %d (%v)", g.pos, err)
			}
		}
	})
}
