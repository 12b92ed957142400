package pagestore

import (
	"errors"
	"fmt"
	"io"

	"quire/disk"
)

// Dump prints the manifest and every page that the checkpoint names.
func Dump(fsys disk.FS, w io.Writer) error {
	return errors.Join(DumpManifest(fsys, w), DumpPages(fsys, w))
}

// DumpManifest prints both copies of the manifest, damaged ones as far as they
// can be told.
func DumpManifest(fsys disk.FS, w io.Writer) error {
	slots, err := readSlots(fsys)
	if err != nil {
		return err
	}
	for i, slot := range slots {
		if slot.m == nil {
			fmt.Fprintf(w, "%s: %v\n", slotNames[i], slot.err)
			continue
		}
		slot.m.dump(w, slotNames[i])
	}
	return nil
}

func (m *manifest) dump(w io.Writer, name string) {
	fmt.Fprintf(w, "%s: version %d sequence %d incarnation %d store %016x committed %v next segment %08x\n",
		name, formatVersion, m.sequence, m.incarnation, m.storeID, m.committed, uint32(m.nextID))
	fmt.Fprintf(w, "  meta %d bytes %x\n", len(m.meta), m.meta)
	if m.state.sequence != 0 {
		where := m.state.fileName()
		if where == "" {
			where = "here"
		}
		fmt.Fprintf(w, "  state %s %d bytes checksum %016x\n", where, m.state.bytes, m.state.sum)
	}
	for _, e := range m.segments {
		fmt.Fprintf(w, "  segment %s epoch %016x records %d in %d bytes, %d live, footer to %d\n",
			segmentName(e.id), e.epoch, e.records, e.end, e.live, e.footerEnd)
	}
}

// DumpPages prints the pages that the newest checkpoint names, their records as
// lengths, and the footers. Of a segment with damage it prints what comes before.
func DumpPages(fsys disk.FS, w io.Writer) error {
	slots, err := readSlots(fsys)
	if err != nil {
		return err
	}
	best, err := newest(slots)
	if err != nil || best < 0 {
		return err
	}
	var faults []error
	for _, e := range slots[best].m.segments {
		if err := dumpSegment(fsys, w, e); err != nil {
			fmt.Fprintf(w, "  %v\n", err)
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func dumpSegment(fsys disk.FS, w io.Writer, e segmentEntry) error {
	name := segmentName(e.id)
	fmt.Fprintf(w, "%s: epoch %016x records %d to %d footer to %d\n", name, e.epoch, e.records, e.end, e.footerEnd)
	file, err := fsys.Open(name, disk.ReadOnly)
	if err != nil {
		return err
	}
	defer file.Close()
	r := pageReader{file: file, at: place{file: name, segment: e.id, epoch: e.epoch}, end: e.fileEnd()}
	for {
		at := r.at
		page, h, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "  %8d %-7s %6d bytes, %6d used, %4d records", at.off, h.kind, h.length, h.used, h.records)
		if err := dumpContent(w, page, h, at, e); err != nil {
			return err
		}
	}
}

// dumpContent ends the line of a page with what is in it.
func dumpContent(w io.Writer, page []byte, h pageHeader, at place, e segmentEntry) error {
	defer fmt.Fprintln(w)
	if h.kind == kindHints {
		_, err := decodeHints(page, h, at, e.end, func(l located) error {
			_, err := fmt.Fprintf(w, " %d+%d:%d=%x", int64(l.ref.page())*unitBytes, l.ref.offset(), l.bytes, l.hint)
			return err
		})
		return err
	}
	return eachRecord(page, h, at, func(off int, rec []byte) error {
		_, err := fmt.Fprintf(w, " %d:%d", off, len(rec))
		return err
	})
}

// String names the kind as the dump does.
func (k pageKind) String() string {
	switch k {
	case kindRecords:
		return "records"
	case kindJumbo:
		return "jumbo"
	case kindHints:
		return "hints"
	}
	return fmt.Sprintf("kind %d", uint16(k))
}
