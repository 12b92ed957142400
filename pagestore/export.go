package pagestore

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"quire/disk"
)

// An Export is a checkpoint that another member copies, see receive.go for the
// other end. It consists of a manifest and of blobs, numbered from 0: what the
// checkpoint names of each segment, in the manifest's order, and last the content
// of the state, unless that lies in the manifest. None of these bytes changes any
// more. Behind its content a blob has sumBytes more: the xxhash64 of the content,
// which the source computes while it checks every page, so that it never vouches
// for a damaged one.
//
// It holds the files open, not their names: Reclaim and Commit go on as if it were
// not there, and the space comes back when the last one is released.
type Export struct {
	s        *Store
	manifest manifest
	segs     []*segment
	state    *shared // nil: in the manifest, or none
	released atomic.Bool
}

// sumBytes is the length of what follows the content of a blob.
const sumBytes = 8

// TryExport holds the newest checkpoint for a copy. It reads nothing and does not
// wait: it returns nil if there is no checkpoint to be had, and busy if that is
// because one is just being committed.
func (s *Store) TryExport() (x *Export, busy bool) {
	if !s.committing.TryLock() {
		return nil, true
	}
	defer s.committing.Unlock()
	last := &s.committing.last
	if !last.committed || last.state.fileName() != "" && s.committing.state == nil {
		return nil, false
	}
	x = &Export{s: s, manifest: *last}
	for _, e := range last.segments {
		seg := s.segment(e.id)
		if seg == nil || !seg.acquire() {
			x.Release()
			return nil, false // closed
		}
		x.segs = append(x.segs, seg)
	}
	if f := s.committing.state; f != nil && f.acquire() {
		x.state = f
	}
	return x, false
}

// Meta returns what the owner gave to the Cut.
func (x *Export) Meta() []byte { return x.manifest.meta }

// Manifest returns what a receiver has to know first.
func (x *Export) Manifest() []byte { return slices.Clip(x.manifest.encodeBare()) }

// Bytes is the length of all blobs.
func (x *Export) Bytes() (sum int64) {
	for _, n := range x.manifest.blobs() {
		sum += n
	}
	return sum
}

// Release lets go of the files. It may be called more than once, and while
// ReadAt is under way.
func (x *Export) Release() {
	if x.released.Swap(true) {
		return
	}
	for _, seg := range x.segs {
		seg.release()
	}
	if x.state != nil {
		x.state.release()
	}
}

// ReadAt reads from a blob as an io.ReaderAt does from a file. Any goroutine.
func (x *Export) ReadAt(blob uint32, p []byte, off int64) (n int, err error) {
	blobs := x.manifest.blobs()
	if int64(blob) >= int64(len(blobs)) || off < 0 {
		return 0, fmt.Errorf("pagestore: no blob %d in an export of %d, or no offset %d", blob, len(blobs), off)
	}
	if x.released.Load() {
		return 0, ErrGone
	}
	content := blobs[blob] - sumBytes
	if off < content {
		n = int(min(int64(len(p)), content-off))
		if err := x.readContent(blob, p[:n], off); err != nil {
			return 0, x.s.noteDamage(err)
		}
	}
	if n == len(p) {
		return n, nil
	}
	sum, err := x.sum(blob)
	if err != nil {
		return n, err
	}
	trailer := binary.LittleEndian.AppendUint64(nil, sum)
	n += copy(p[n:], trailer[min(off+int64(n)-content, sumBytes):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (x *Export) readContent(blob uint32, p []byte, off int64) error {
	if int(blob) < len(x.segs) {
		seg := x.segs[blob]
		if !seg.acquire() {
			return ErrGone
		}
		defer seg.release()
		return seg.readAt(p, off)
	}
	if !x.state.acquire() {
		return ErrGone
	}
	defer x.state.release()
	return readFull(x.state, p, place{file: x.manifest.state.fileName(), off: off + stateHeadBytes})
}

// sum returns the checksum of a blob. That of a segment is computed once.
func (x *Export) sum(blob uint32) (uint64, error) {
	if int(blob) >= len(x.segs) {
		return x.manifest.state.sum, nil
	}
	seg, e := x.segs[blob], x.manifest.segments[blob]
	x.s.mu.Lock()
	known, sum := seg.summed == e.fileEnd(), seg.sum
	x.s.mu.Unlock()
	if known {
		return sum, nil
	}
	if !seg.acquire() {
		return 0, ErrGone
	}
	defer seg.release()
	sum, err := sumPages(seg.file.Load(), seg.at(0), e)
	if err == nil {
		x.s.mu.Lock()
		seg.summed, seg.sum = e.fileEnd(), sum
		x.s.mu.Unlock()
	}
	return sum, err
}

// sumPages verifies every page of a segment as a manifest names it, and returns
// the checksum of all of them.
func sumPages(file disk.File, at place, e segmentEntry) (uint64, error) {
	s := newPageSum(at, e)
	r := pageReader{file: file, at: at, end: e.fileEnd()}
	for {
		page, h, err := r.next()
		if err == io.EOF {
			return s.end()
		}
		if err != nil {
			return 0, err
		}
		if err := s.page(page, h); err != nil {
			return 0, err
		}
		s.raw.Write(page)
	}
}

// shared is an open file with several readers; the last one closes it.
type shared struct {
	disk.File
	refs atomic.Int32
}

func newShared(f disk.File) *shared {
	s := &shared{File: f}
	s.refs.Store(1)
	return s
}

// acquire keeps the file open until release; false once it is closed.
func (f *shared) acquire() bool {
	for {
		n := f.refs.Load()
		if n == 0 {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (f *shared) release() {
	if f.refs.Add(-1) == 0 {
		_ = f.File.Close() // read only: nothing can be lost
	}
}
