package pagestore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"quire/disk"

	"github.com/cespare/xxhash/v2"
)

const (
	stateMagic     = 0x54535551 // "QUST"
	stateHeadBytes = 64
	stateBlock     = 256 << 10 // one write
)

func stateName(sequence uint64) string { return fmt.Sprintf("state-%016x", sequence) }

func parseStateName(name string) (uint64, bool) {
	var sequence uint64
	if _, err := fmt.Sscanf(name, "state-%016x", &sequence); err != nil {
		return 0, false
	}
	return sequence, stateName(sequence) == name
}

// stateWriter takes what the owner's function writes. It keeps a small state in
// memory, for the manifest: a file costs four syncs more, in the way of the log's.
// Once there is too much for that it goes to a file, behind a head that is
// written last.
type stateWriter struct {
	create func() (disk.File, error)
	file   disk.File // nil: nothing written yet
	buf    []byte
	off    int64
	sum    xxhash.Digest
	err    error // of the disk, as opposed to one of the owner's function
}

func (w *stateWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	w.sum.Write(p)
	w.buf = append(w.buf, p...)
	if len(w.buf) >= stateBlock {
		w.flush()
	}
	return len(p), w.err
}

func (w *stateWriter) flush() {
	if w.file == nil && w.err == nil {
		w.file, w.err = w.create()
	}
	if w.err != nil || len(w.buf) == 0 {
		return
	}
	w.err = w.file.WriteAt(w.buf, w.off)
	w.off += int64(len(w.buf))
	w.buf = w.buf[:0]
}

// writeState makes the state of a checkpoint durable, or returns it to lie in the
// manifest if it has at most inlineBytes. A fault of fill itself comes back as it
// is, with ours false.
func writeState(fsys disk.FS, sequence uint64, inlineBytes int, fill func(io.Writer) error) (ref stateRef, ours bool, err error) {
	w := &stateWriter{off: stateHeadBytes, create: func() (disk.File, error) {
		return createFresh(fsys, stateName(sequence), 0)
	}}
	w.sum.Reset()
	defer func() {
		if w.file != nil {
			w.file.Close()
		}
	}()
	if err := fill(w); err != nil && w.err == nil {
		return stateRef{}, false, err
	}
	ref = stateRef{sequence: sequence, bytes: w.off - stateHeadBytes + int64(len(w.buf)), sum: w.sum.Sum64()}
	if w.file == nil && len(w.buf) <= inlineBytes {
		ref.inline = append([]byte{}, w.buf...)
		return ref, true, w.err
	}
	if w.flush(); w.err != nil {
		return stateRef{}, true, w.err
	}
	return ref, true, writeSlot(w.file, ref.head())
}

// fileName returns the name of the state's file, "" if it has none.
func (r stateRef) fileName() string {
	if r.sequence == 0 || r.inline != nil {
		return ""
	}
	return stateName(r.sequence)
}

// head returns the first stateHeadBytes of the file.
func (r stateRef) head() []byte {
	le := binary.LittleEndian
	b := make([]byte, stateHeadBytes)
	le.PutUint32(b[8:], stateMagic)
	le.PutUint16(b[12:], formatVersion)
	le.PutUint64(b[16:], r.sequence)
	le.PutUint64(b[24:], uint64(r.bytes))
	le.PutUint64(b[32:], r.sum)
	le.PutUint64(b, xxhash.Sum64(b[8:]))
	return b
}

// readState returns the content that a checkpoint names.
func readState(fsys disk.FS, ref stateRef) ([]byte, error) {
	at := place{file: ref.fileName()}
	if at.file == "" {
		return bytes.Clone(ref.inline), nil
	}
	b, err := readWhole(fsys, at.file)
	if err != nil {
		return nil, err
	}
	return decodeState(at, b, ref)
}

// decodeState checks a state file against what the manifest says of it.
func decodeState(at place, b []byte, ref stateRef) ([]byte, error) {
	le := binary.LittleEndian
	if len(b) < stateHeadBytes {
		return nil, at.corrupt("state file too short", stateHeadBytes, uint64(len(b)))
	}
	head, content := b[:stateHeadBytes], b[stateHeadBytes:]
	if want, got := le.Uint64(head), xxhash.Sum64(head[8:]); want != got {
		return nil, at.corrupt("state head checksum differs", want, got)
	}
	if magic := le.Uint32(head[8:]); magic != stateMagic {
		return nil, at.corrupt("no state magic", stateMagic, uint64(magic))
	}
	if v := le.Uint16(head[12:]); v != formatVersion {
		return nil, &VersionError{File: at.file, Version: int(v), Reads: formatVersion}
	}
	if int64(len(content)) != ref.bytes {
		return nil, at.corrupt("state of another length", uint64(ref.bytes), uint64(len(content)))
	}
	if sum := xxhash.Sum64(content); sum != ref.sum || sum != le.Uint64(head[32:]) {
		return nil, at.corrupt("state checksum differs", ref.sum, sum)
	}
	if sequence := le.Uint64(head[16:]); sequence != ref.sequence {
		return nil, at.corrupt("state of another checkpoint", ref.sequence, sequence)
	}
	return content, nil
}
