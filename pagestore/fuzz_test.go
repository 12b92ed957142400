package pagestore

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// The decoders are fuzzed twice: with the bytes as they come, which the checksum
// refuses, and with the checksum made to fit, so that what lies behind it is
// reached.

// FuzzPage feeds the page decoders.
func FuzzPage(f *testing.F) {
	p := newSample(f)
	for name := range p.files() {
		if b, err := p.m.ReadFile(name); err == nil && len(b) >= unitBytes {
			f.Add(b[:unitBytes])
			f.Add(b[len(b)-unitBytes:])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		page := make([]byte, roundUp(int64(max(len(b), 1))))
		copy(page, b)
		decodeAnyPage(t, page)
		binary.LittleEndian.PutUint64(page, xxhash.Sum64(page[8:]))
		decodeAnyPage(t, page)
	})
}

func decodeAnyPage(t *testing.T, page []byte) {
	le := binary.LittleEndian
	at := place{file: "f", segment: segmentID(le.Uint32(page[16:])), off: int64(le.Uint64(page[24:])), epoch: le.Uint64(page[32:])}
	length, err := pageLength(page, at, int64(len(page)))
	if err != nil {
		return
	}
	h, err := verifyPage(page[:length], at)
	if err != nil {
		return
	}
	again := append([]byte(nil), page[:length]...)
	encodePage(again, h)
	if !bytes.Equal(again, page[:length]) {
		t.Fatal("a page that verifies is encoded differently")
	}
	records := 0
	eachRecord(page[:length], h, at, func(off int, rec []byte) error {
		records++
		if got, end, void := recordAt(page[:length], off); end == 0 || void || !bytes.Equal(got, rec) {
			t.Fatalf("record at %d differs", off)
		}
		return nil
	})
	if records > int(h.records) {
		t.Fatalf("%d records of %d", records, h.records)
	}
	decodeHints(page[:length], h, at, 1<<20, func(l located) error {
		if l.ref&RefMask != l.ref || l.ref.offset() < pageHeadBytes || l.bytes < 0 {
			t.Fatalf("footer entry %+v", l)
		}
		return nil
	})
	for off := 0; off < len(page); off += 97 {
		recordAt(page, off)
	}
}

// FuzzManifest feeds the manifest decoder.
func FuzzManifest(f *testing.F) {
	p := newSample(f)
	for _, name := range slotNames {
		b, err := p.m.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:300])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeManifest("f", b)
		if len(b) < manifestHeadBytes {
			return
		}
		b = append([]byte(nil), b...)
		length := binary.LittleEndian.Uint32(b[32:])
		if uint64(length) > uint64(len(b)) || length < manifestHeadBytes {
			return
		}
		binary.LittleEndian.PutUint64(b, xxhash.Sum64(b[8:length]))
		m, err := decodeManifest("f", b)
		if err != nil {
			return
		}
		again, err := decodeManifest("f", m.encode())
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("a manifest that decodes, encoded and decoded again: %v\n%+v\n%+v", err, m, again)
		}
	})
}

// FuzzState feeds the state decoder.
func FuzzState(f *testing.F) {
	ref := stateRef{sequence: 3, bytes: 5, sum: xxhash.Sum64String("state")}
	f.Add(append(ref.head(), "state"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		content, err := decodeState(place{file: "f"}, b, ref)
		if err == nil && string(content) != "state" {
			t.Fatalf("state %q", content)
		}
		if len(b) < stateHeadBytes {
			return
		}
		b = append([]byte(nil), b...)
		binary.LittleEndian.PutUint64(b, xxhash.Sum64(b[8:stateHeadBytes]))
		if content, err = decodeState(place{file: "f"}, b, ref); err == nil && string(content) != "state" {
			t.Fatalf("state %q", content)
		}
	})
}

// FuzzNames: a file name is ours only if we would have made it.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"00000001.pages", "state-0000000000000001", "00000001.pagesx", "state-1", "0000000G.pages"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if id, ok := parseSegmentName(name); ok && segmentName(id) != name {
			t.Fatalf("%q taken for segment %d", name, id)
		}
		if n, ok := parseStateName(name); ok && stateName(n) != name {
			t.Fatalf("%q taken for state %d", name, n)
		}
	})
}
