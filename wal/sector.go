package wal

import (
	"encoding/binary"
	"math/bits"
)

// A sector is what a disk writes as a whole or not at all. Each sector of a batch
// ends with a stamp that belongs to this batch alone, so that recovery can tell a
// batch of which a part was never written, which nobody was told of, from one that
// was written as a whole and damaged since.
const (
	sectorBytes = 512
	stampBytes  = 4
	sectorData  = sectorBytes - stampBytes
)

// sectorsOf returns how many sectors n bytes of header and frames take.
func sectorsOf(n int64) int64 { return (n + sectorData - 1) / sectorData }

// capacity returns how many bytes of header and frames fit into n bytes on disk.
func capacity(n int) int { return n / sectorBytes * sectorData }

// spread moves the first n bytes of b apart, makes the rest of the last sector
// zero and sets the stamps. It returns the end of the last sector.
func spread(b []byte, n int64, stamp uint32) int64 {
	count := sectorsOf(n)
	for s := count - 1; s >= 0; s-- {
		from, to := s*sectorData, s*sectorBytes
		have := min(n-from, sectorData)
		copy(b[to:to+have], b[from:from+have])
		clear(b[to+have : to+sectorData])
		binary.LittleEndian.PutUint32(b[to+sectorData:], stamp)
	}
	return count * sectorBytes
}

// gatherSectors appends the first n bytes of a batch on disk, without its stamps.
func gatherSectors(dst, b []byte, n int64) []byte {
	for n > 0 {
		have := min(n, sectorData)
		dst = append(dst, b[:have]...)
		b, n = b[sectorBytes:], n-have
	}
	return dst
}

// stampOf returns the stamp of a batch.
func stampOf(logID, segment, incarnation uint64, seq Seq) uint32 {
	v := logID
	for _, x := range [...]uint64{segment, incarnation, uint64(seq)} {
		v = (v ^ x) * 0x9e3779b97f4a7c15
		v ^= v >> 29
	}
	return uint32(v>>32) | 1
}

// stamped tells whether a sector was written as one of the batch with this stamp.
// The stamp itself may have lost a bit.
func stamped(sector []byte, stamp uint32) bool {
	return bits.OnesCount32(binary.LittleEndian.Uint32(sector[sectorData:])^stamp) <= 1
}
