package pagestore

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"quire/disk"
)

// TestVerifyPageNamesTheFault changes one field of a page at a time, with a
// checksum that fits: each must be refused for what it is.
func TestVerifyPageNamesTheFault(t *testing.T) {
	at := place{file: "f", segment: 5, epoch: 77, off: 8192}
	good := pageHeader{kind: kindRecords, segment: 5, off: 8192, epoch: 77, length: 4096, used: 60, records: 1}
	for want, change := range map[string]func(*pageHeader){
		"": func(*pageHeader) {},
		"page of another segment (misdirected write)": func(h *pageHeader) { h.segment = 6 },
		"page of another offset (misdirected write)":  func(h *pageHeader) { h.off = 4096 },
		"page of another epoch (stale)":               func(h *pageHeader) { h.epoch = 76 },
		"page head contradicts itself":                func(h *pageHeader) { h.used = 5000 },
	} {
		h := good
		change(&h)
		page := make([]byte, 4096)
		encodePage(page, h)
		_, err := verifyPage(page, at)
		var c *CorruptError
		if want == "" && err == nil {
			continue
		}
		if !errors.As(err, &c) || c.Reason != want || c.File != "f" || c.Off != 8192 {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// TestFooterOfAnotherLength: a footer page belongs to one length of its segment.
func TestFooterOfAnotherLength(t *testing.T) {
	m := disk.NewMem(1)
	f, err := m.Create("f", 0)
	if err != nil {
		t.Fatal(err)
	}
	at := place{file: "f", segment: 1, epoch: 1, off: 8192}
	w := newHintWriter(f, at)
	if err := errors.Join(w.add(located{spot{makeRef(1, 0, 48), 3, false}, nil}), w.flush()); err != nil {
		t.Fatal(err)
	}
	page := make([]byte, 4096)
	if err := readFull(f, page, at); err != nil {
		t.Fatal(err)
	}
	h, err := verifyPage(page, at)
	if err != nil {
		t.Fatal(err)
	}
	for end, sound := range map[int64]bool{8192: true, 4096: false, 12288: false} {
		_, err := decodeHints(page, h, at, end, func(located) error { return nil })
		if (err == nil) != sound {
			t.Errorf("as a footer of %d bytes: %v", end, err)
		}
	}
}

// TestStalePageOfSameID: after a power cut a segment may get the id of one that
// was thrown away. A page of the old one in the place of a new one is refused.
func TestStalePageOfSameID(t *testing.T) {
	m := disk.NewMem(1)
	s, _ := mustOpen(t, m, testOptions())
	old, err := s.Append(testRecord(1, 100))
	if err != nil {
		t.Fatal(err)
	}
	c, _ := s.Cut(nil, nil)
	if err := s.awaitWritten(c.segs); err != nil {
		t.Fatal(err)
	}
	stale, err := m.ReadFile(segmentName(old.segment()))
	if err != nil {
		t.Fatal(err)
	}
	s, _ = mustOpen(t, m, testOptions()) // a restart: nothing was committed
	ref, err := s.Append(testRecord(2, 100))
	if err != nil || ref != old {
		t.Fatalf("%v, not the same place as %v; %v", ref, old, err)
	}
	mustCommit(t, s, "1", "")
	s.Close()
	m.WriteFile(segmentName(ref.segment()), stale)
	s, _ = mustOpen(t, m, testOptions())
	var corrupt *CorruptError
	if got, err := s.Read(ref); !errors.As(err, &corrupt) {
		t.Fatalf("read %x, %v", got, err)
	}
}

// liar is an FS on which a write of one of the slots reports a full disk:
// having written nothing, or everything.
type liar struct {
	disk.FS
	name  string
	left  *int // writes until the lie
	wrote bool
}

type liarFile struct {
	disk.File
	l liar
}

func (l liar) Open(name string, mode disk.Mode) (disk.File, error) {
	f, err := l.FS.Open(name, mode)
	if name == l.name && mode == disk.ReadWrite && err == nil {
		f = liarFile{f, l}
	}
	return f, err
}

func (f liarFile) WriteAt(p []byte, off int64) error {
	*f.l.left--
	if *f.l.left != 0 {
		return f.File.WriteAt(p, off)
	}
	if f.l.wrote {
		f.File.WriteAt(p, off)
	}
	return syscall.ENOSPC
}

// TestSlotErrorThenPowerCut has the write of a slot fail for lack of space, and
// then cuts the power at every operation of the commits that follow.
func TestSlotErrorThenPowerCut(t *testing.T) {
	for i := range 24 {
		m := disk.NewMem(uint64(i))
		mustOpen(t, m, testOptions()) // the slots exist
		left := 3 + i/4%3             // Open writes up to twice
		l := liar{m, slotNames[i%2], &left, i/2%2 == 0}
		w := newWorld(uint64(i), m)
		if err := w.slotError(l); err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
	}
}

func (w *world) slotError(l liar) error {
	found, _, s, err := recovered(l, w.opts, w.possible, w.size)
	if err != nil {
		return err
	}
	w.s, w.possible = s, []outcome{found}
	w.onImage = func(img *disk.Mem, choice disk.CrashChoice, possible []outcome) error {
		return w.checkImage(img, choice, possible, 1)
	}
	w.chances = 10
	w.watch()
	for range 4 {
		if err := w.append(); err != nil {
			return err
		}
		if err := w.commit(); err != nil && !errors.Is(err, ErrNoSpace) {
			return err
		}
		if w.fault != nil {
			return w.fault
		}
	}
	if *l.left > 0 {
		return fmt.Errorf("the fault was not reached")
	}
	return nil
}

// TestChecksumCoversAll: no byte of a page is outside of its checksum.
func TestChecksumCoversAll(t *testing.T) {
	page := make([]byte, 4096)
	encodePage(page, pageHeader{kind: kindRecords, segment: 1, length: 4096, used: 48})
	for i := 8; i < len(page); i++ {
		page[i]++
		if _, err := verifyPage(page, place{segment: 1}); err == nil {
			t.Fatalf("byte %d is not covered", i)
		}
		page[i]--
	}
}
