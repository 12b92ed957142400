package wal

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"quire/disk"
)

// The layout is told in doc.go.
const (
	formatVersion = 2

	blockBytes = disk.Align // unit of placement and of direct I/O

	segmentMagic = 0x6c61776572697571 // "quirewal"
	segmentHead  = 64                 // bytes that the header's hash covers

	batchMagic  = 0x48435442 // "BTCH"
	headerBytes = 88
	frameBytes  = 4

	frameFirst = 1 << 30 // the frame begins a record
	frameLast  = 1 << 31 // the frame ends a record
	frameLen   = frameFirst - 1

	// maxRecordBytes bounds a record, so that a bug does not fill the disk.
	maxRecordBytes = 1 << 30

	segmentSuffix = ".wal"
	spareSuffix   = ".spare"
	tmpSuffix     = ".tmp"
)

// The flags of a batch.
const (
	flagOpen  = 1 << 0 // first of an incarnation, written by Open
	flagMark  = 1 << 1 // tells only that all before it is durable
	flagClose = 1 << 2 // a mark, written by Close
	flagCut   = 1 << 3 // an open batch: what was durable once was cut off before it
)

// spareName returns the file name of a spare that segment n left, or was to be.
func spareName(n uint64) string { return fmt.Sprintf("%016x%s", n, spareSuffix) }

// segmentName returns the file name of segment number n.
func segmentName(n uint64) string { return fmt.Sprintf("%016x%s", n, segmentSuffix) }

// parseName returns the number of a file with the suffix.
func parseName(name, suffix string) (uint64, bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok || len(hex) != 16 || strings.ToLower(hex) != hex {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 64)
	return n, err == nil && n > 0
}

// segmentHeader is the first block of a segment.
type segmentHeader struct {
	version   uint32
	number    uint64
	logID     uint64
	sizeBytes int64
}

// encode fills the block b.
func (h *segmentHeader) encode(b []byte) {
	clear(b[:blockBytes])
	le := binary.LittleEndian
	le.PutUint64(b[8:], segmentMagic)
	le.PutUint32(b[16:], h.version)
	le.PutUint32(b[20:], segmentHead)
	le.PutUint64(b[24:], h.number)
	le.PutUint64(b[32:], h.logID)
	le.PutUint64(b[40:], uint64(h.sizeBytes))
	le.PutUint64(b[0:], xxhash.Sum64(b[8:segmentHead]))
}

// decodeSegment reads a segment header. The version is looked at before the
// hash: another version may hash differently.
func decodeSegment(file string, b []byte) (segmentHeader, error) {
	le := binary.LittleEndian
	h := segmentHeader{
		version:   le.Uint32(b[16:]),
		number:    le.Uint64(b[24:]),
		logID:     le.Uint64(b[32:]),
		sizeBytes: int64(le.Uint64(b[40:])),
	}
	bad := func(what string, want, got uint64) error {
		return &CorruptError{File: file, What: what, Want: want, Got: got, Reason: "a segment gets its name only when its header is durable"}
	}
	if got := le.Uint64(b[8:]); got != segmentMagic {
		return h, bad("segment magic", segmentMagic, got)
	}
	if h.version != formatVersion {
		return h, &VersionError{File: file, Got: h.version, Want: formatVersion}
	}
	if want, got := xxhash.Sum64(b[8:segmentHead]), le.Uint64(b); got != want {
		return h, bad("segment header hash", want, got)
	}
	return h, nil
}

// batchHeader is the head of a batch.
type batchHeader struct {
	hash        uint64 // of everything after it
	version     uint16
	flags       uint16
	segment     uint64 // number of the segment it was written for: its epoch
	incarnation uint64
	seq         Seq
	prevHash    uint64 // hash of batch seq-1
	durable     Seq    // all batches up to it were durable when this one was written
	pos         Pos    // complete records in the log before this batch
	payload     uint32 // bytes
	frames      uint32
	logID       uint64
}

// size returns the bytes that the batch takes on disk.
func (h *batchHeader) size() int64 {
	return (h.hashed() + blockBytes - 1) &^ (blockBytes - 1)
}

// hashed returns the bytes up to the end of the last sector, which the hash covers.
func (h *batchHeader) hashed() int64 { return sectorsOf(headerBytes+int64(h.payload)) * sectorBytes }

// stamp returns what ends each sector of the batch.
func (h *batchHeader) stamp() uint32 { return stampOf(h.logID, h.segment, h.incarnation, h.seq) }

// seal writes the header into b, whose payload is in place, moves both apart into
// sectors, clears the padding up to the next block and returns the hash.
func (h *batchHeader) seal(b []byte) uint64 {
	le := binary.LittleEndian
	le.PutUint32(b[8:], batchMagic)
	le.PutUint16(b[12:], formatVersion)
	le.PutUint16(b[14:], h.flags)
	le.PutUint64(b[16:], h.segment)
	le.PutUint64(b[24:], h.incarnation)
	le.PutUint64(b[32:], uint64(h.seq))
	le.PutUint64(b[40:], h.prevHash)
	le.PutUint64(b[48:], uint64(h.durable))
	le.PutUint64(b[56:], uint64(h.pos))
	le.PutUint32(b[64:], h.payload)
	le.PutUint32(b[68:], h.frames)
	le.PutUint64(b[72:], h.logID)
	le.PutUint64(b[80:], xxhash.Sum64(b[8:80]))
	end := spread(b, headerBytes+int64(h.payload), h.stamp())
	clear(b[end:h.size()])
	h.hash = xxhash.Sum64(b[8:end])
	le.PutUint64(b, h.hash)
	return h.hash
}

// decodeBatchHeader reads the fields, whatever they are; ok tells that magic
// and version fit.
func decodeBatchHeader(b []byte) (h batchHeader, ok bool) {
	le := binary.LittleEndian
	h = batchHeader{
		hash:        le.Uint64(b),
		version:     le.Uint16(b[12:]),
		flags:       le.Uint16(b[14:]),
		segment:     le.Uint64(b[16:]),
		incarnation: le.Uint64(b[24:]),
		seq:         Seq(le.Uint64(b[32:])),
		prevHash:    le.Uint64(b[40:]),
		durable:     Seq(le.Uint64(b[48:])),
		pos:         Pos(le.Uint64(b[56:])),
		payload:     le.Uint32(b[64:]),
		frames:      le.Uint32(b[68:]),
		logID:       le.Uint64(b[72:]),
	}
	return h, le.Uint32(b[8:]) == batchMagic && h.version == formatVersion
}

// headerIntact tells whether a header is as it was written, whatever became of the
// rest of the batch.
func headerIntact(b []byte) bool {
	return binary.LittleEndian.Uint64(b[80:]) == xxhash.Sum64(b[8:80])
}

// frame is a record or a piece of one.
type frame struct {
	data        []byte
	first, last bool
}

// nextFrame takes the first frame off the payload p.
func nextFrame(p []byte) (f frame, rest []byte, ok bool) {
	if len(p) < frameBytes {
		return f, nil, false
	}
	head := binary.LittleEndian.Uint32(p)
	n := int(head & frameLen)
	p = p[frameBytes:]
	if n > len(p) {
		return f, nil, false
	}
	return frame{data: p[:n:n], first: head&frameFirst != 0, last: head&frameLast != 0}, p[n:], true
}
