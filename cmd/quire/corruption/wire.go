package corruption

import (
	"encoding/binary"
	"errors"

	"quire/engine"
)

// maxIndices bounds the entries of one question and the marks of one answer.
const maxIndices = 64

// The question AskMarks is a uvarint for each entry; none asks for the oldest and
// the newest mark. The answer has for each mark:
//
//	uvarint entry | varint revision | hash u64, little-endian

var errMalformed = errors.New("corruption: malformed question or answer")

func appendIndices(dst []byte, indices []uint64) []byte {
	for _, i := range indices {
		dst = binary.AppendUvarint(dst, i)
	}
	return dst
}

func parseIndices(b []byte) (indices []uint64, err error) {
	for len(b) > 0 {
		i, n := binary.Uvarint(b)
		if n <= 0 || len(indices) == maxIndices {
			return nil, errMalformed
		}
		indices, b = append(indices, i), b[n:]
	}
	return indices, nil
}

func appendMarks(dst []byte, marks []engine.RollingMark) []byte {
	for _, m := range marks {
		dst = binary.AppendUvarint(dst, m.Index)
		dst = binary.AppendVarint(dst, m.Revision)
		dst = binary.LittleEndian.AppendUint64(dst, m.Sum)
	}
	return dst
}

func parseMarks(b []byte) (marks []engine.RollingMark, err error) {
	for len(b) > 0 {
		var m engine.RollingMark
		var n int
		if m.Index, n = binary.Uvarint(b); n <= 0 || len(marks) == maxIndices {
			return nil, errMalformed
		}
		b = b[n:]
		if m.Revision, n = binary.Varint(b); n <= 0 || len(b)-n < 8 {
			return nil, errMalformed
		}
		m.Sum = binary.LittleEndian.Uint64(b[n:])
		marks, b = append(marks, m), b[n+8:]
	}
	return marks, nil
}
