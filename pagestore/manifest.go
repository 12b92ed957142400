package pagestore

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

const (
	manifestMagic     = 0x464d5551 // "QUMF"
	manifestHeadBytes = 88
	segmentEntryBytes = 48

	flagCheckpoint  = 1 // a Cut has been committed
	flagInlineState = 2 // the state lies in the manifest
	segmentSealed   = 1
)

// manifest is the root of the store: everything that recovery starts from.
type manifest struct {
	sequence    uint64
	incarnation uint64
	storeID     uint64
	committed   bool // false: the store has been opened, but nothing committed
	nextID      segmentID
	state       stateRef
	meta        []byte
	segments    []segmentEntry
}

// segmentEntry is what a checkpoint names of a segment.
type segmentEntry struct {
	id        segmentID
	epoch     uint64
	end       int64 // of the records
	footerEnd int64 // 0: no footer
	records   uint64
	live      uint64 // bytes, estimated at the commit; for people
}

// fileEnd is how much of the segment's file belongs to the checkpoint.
func (e segmentEntry) fileEnd() int64 { return max(e.end, e.footerEnd) }

// blobs returns the lengths of the blobs of an Export, checksums included.
func (m *manifest) blobs() []int64 {
	lengths := make([]int64, 0, len(m.segments)+1)
	for _, e := range m.segments {
		lengths = append(lengths, e.fileEnd()+sumBytes)
	}
	if m.state.fileName() != "" {
		lengths = append(lengths, m.state.bytes+sumBytes)
	}
	return lengths
}

// stateRef is the state of a checkpoint, or tells which file it is in. Sequence 0
// is no state.
type stateRef struct {
	sequence uint64
	bytes    int64
	sum      uint64
	inline   []byte // not nil: the state itself, and there is no file
}

// encode returns the manifest as it stands in its slot, padded with zeroes to
// whole units.
func (m *manifest) encode() []byte {
	b := m.encodeBare()
	return b[:cap(b)]
}

// encodeBare is encode without the padding; the padding is in the capacity.
func (m *manifest) encodeBare() []byte {
	le := binary.LittleEndian
	length := manifestHeadBytes + pad8(len(m.meta)) + pad8(len(m.state.inline)) + len(m.segments)*segmentEntryBytes
	b := make([]byte, manifestHeadBytes, roundUp(int64(length)))
	le.PutUint32(b[8:], manifestMagic)
	le.PutUint16(b[12:], formatVersion)
	flags := uint16(0)
	if m.committed {
		flags |= flagCheckpoint
	}
	if m.state.inline != nil {
		flags |= flagInlineState
	}
	le.PutUint16(b[14:], flags)
	le.PutUint64(b[16:], m.sequence)
	le.PutUint64(b[24:], m.incarnation)
	le.PutUint32(b[32:], uint32(length))
	le.PutUint32(b[36:], uint32(len(m.segments)))
	le.PutUint64(b[40:], m.storeID)
	le.PutUint64(b[48:], m.state.sequence)
	le.PutUint64(b[56:], uint64(m.state.bytes))
	le.PutUint64(b[64:], m.state.sum)
	le.PutUint32(b[72:], uint32(m.nextID))
	le.PutUint32(b[76:], uint32(len(m.meta)))
	for _, part := range [][]byte{m.meta, m.state.inline} {
		b = append(b, part...)
		b = append(b, make([]byte, pad8(len(part))-len(part))...)
	}
	for _, e := range m.segments {
		b = e.append(b)
	}
	le.PutUint64(b, xxhash.Sum64(b[8:]))
	return b
}

func pad8(n int) int { return (n + 7) &^ 7 }

func (e segmentEntry) append(b []byte) []byte {
	le := binary.LittleEndian
	flags := uint32(0)
	if e.footerEnd > 0 {
		flags |= segmentSealed
	}
	b = le.AppendUint32(b, uint32(e.id))
	b = le.AppendUint32(b, flags)
	b = le.AppendUint64(b, e.epoch)
	b = le.AppendUint64(b, uint64(e.end))
	b = le.AppendUint64(b, uint64(e.footerEnd))
	b = le.AppendUint64(b, e.records)
	return le.AppendUint64(b, e.live)
}

func decodeSegmentEntry(b []byte) segmentEntry {
	le := binary.LittleEndian
	return segmentEntry{
		id: segmentID(le.Uint32(b)), epoch: le.Uint64(b[8:]),
		end: int64(le.Uint64(b[16:])), footerEnd: int64(le.Uint64(b[24:])),
		records: le.Uint64(b[32:]), live: le.Uint64(b[40:]),
	}
}

// blankSlot says whether nothing was ever written to a slot.
func blankSlot(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// decodeManifest returns the manifest in a slot. A slot that is damaged, or
// whose writing was interrupted, gives a *CorruptError; a sound one of another
// version a *VersionError. It does not keep b.
func decodeManifest(file string, b []byte) (*manifest, error) {
	le := binary.LittleEndian
	at := place{file: file}
	if len(b) < manifestHeadBytes {
		return nil, at.corrupt("manifest too short", manifestHeadBytes, uint64(len(b)))
	}
	if magic := le.Uint32(b[8:]); magic != manifestMagic {
		return nil, at.corrupt("no manifest magic", manifestMagic, uint64(magic))
	}
	length := uint64(le.Uint32(b[32:]))
	if length < manifestHeadBytes || length > uint64(len(b)) {
		return nil, at.corrupt("manifest longer than its file", uint64(len(b)), length)
	}
	if want, got := le.Uint64(b), xxhash.Sum64(b[8:length]); want != got {
		return nil, at.corrupt("manifest checksum differs", want, got)
	}
	if v := le.Uint16(b[12:]); v != formatVersion {
		return nil, &VersionError{File: file, Version: int(v), Reads: formatVersion}
	}
	m := &manifest{
		sequence: le.Uint64(b[16:]), incarnation: le.Uint64(b[24:]), storeID: le.Uint64(b[40:]),
		committed: le.Uint16(b[14:])&flagCheckpoint != 0,
		nextID:    segmentID(le.Uint32(b[72:])),
		state:     stateRef{sequence: le.Uint64(b[48:]), bytes: int64(le.Uint64(b[56:])), sum: le.Uint64(b[64:])},
	}
	d := fields{rest: b[manifestHeadBytes:length]}
	m.meta = append([]byte(nil), d.padded(uint64(le.Uint32(b[76:])))...)
	if le.Uint16(b[14:])&flagInlineState != 0 {
		m.state.inline = append([]byte{}, d.padded(uint64(m.state.bytes))...)
	}
	count := uint64(le.Uint32(b[36:]))
	if d.bad || uint64(len(d.rest)) != count*segmentEntryBytes {
		return nil, at.corrupt("manifest length contradicts its content", count*segmentEntryBytes, uint64(len(d.rest)))
	}
	for i := range count {
		m.segments = append(m.segments, decodeSegmentEntry(d.rest[i*segmentEntryBytes:]))
	}
	return m, m.check(at)
}

// check refuses a manifest that no store writes.
func (m *manifest) check(at place) error {
	if m.nextID == 0 || m.nextID > maxSegmentID {
		return at.corrupt("impossible next segment id", uint64(maxSegmentID), uint64(m.nextID))
	}
	if m.sequence == 0 || m.incarnation == 0 || m.state.bytes < 0 {
		return at.corrupt("impossible manifest", 1, 0)
	}
	seen := make(map[segmentID]bool, len(m.segments))
	for _, e := range m.segments {
		switch {
		case e.id == 0 || e.id > maxSegmentID || seen[e.id]:
			return at.corrupt("impossible segment id", uint64(maxSegmentID), uint64(e.id))
		case e.end < unitBytes || e.end%unitBytes != 0 || e.end > maxSegmentBytes+maxJumboBytes:
			return at.corrupt("impossible length of segment "+segmentName(e.id), unitBytes, uint64(e.end))
		case e.footerEnd != 0 && (e.footerEnd <= e.end || e.footerEnd%unitBytes != 0):
			return at.corrupt("impossible footer of segment "+segmentName(e.id), uint64(e.end), uint64(e.footerEnd))
		}
		seen[e.id] = true
	}
	return nil
}
