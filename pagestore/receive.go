package pagestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"quire/disk"

	"github.com/cespare/xxhash/v2"
)

// Incoming is a checkpoint of another member that is being received, see Export
// for the other end. Its directory holds, of a segment or of the state:
//
//	<name>         all of it, verified and durable
//	<name>.part    the beginning; whatever of it verifies is not fetched again
//	<name>.reused  a file of another directory that should be the same
//
// and, when everything is there, two slots: then it is a store at rest.
type Incoming struct {
	home     *Home
	number   uint32
	raw      []byte    // the manifest as it came
	manifest *manifest // the same
	whole    bool      // by this process; guarded by home.mu
	// progress is how much of each part this process has written; it belongs
	// to the Fetch that runs.
	progress map[string]int64
}

const (
	partSuffix   = ".part"
	reusedSuffix = ".reused"
)

// defaultChunkBytes is how much is asked of the peer at once, and written at once:
// what a broken connection costs at most, besides the part of a page. The
// transport splits it into several requests under way at a time.
const defaultChunkBytes = 4 << 20

// spareBytes is what must stay free on the disk when everything is received, and
// a sixteenth of that on top: the store and the log go on to grow meanwhile.
const spareBytes = 16 << 20

// FetchFunc reads from a blob of the peer's Export, as Export.ReadAt does.
type FetchFunc = func(blob uint32, p []byte, off int64) (int, error)

// Meta returns what the owner of the other store gave to the Cut.
func (in *Incoming) Meta() []byte { return in.manifest.meta }

// FS returns the directory, which Open takes once it is whole.
func (in *Incoming) FS() disk.FS { return disk.Sub(in.home.fsys, storeDir(in.number)) }

// Whole tells whether everything has been received by this process.
func (in *Incoming) Whole() bool {
	in.home.mu.Lock()
	defer in.home.mu.Unlock()
	return in.whole
}

// PeerMeta returns what the owner of the other store gave to the Cut that a
// peer's manifest is of, before anything is received.
func PeerMeta(raw []byte) ([]byte, error) {
	m, err := decodeManifest("manifest of a peer", raw)
	if err != nil {
		return nil, err
	}
	return m.meta, nil
}

// Fetch receives what is missing, verifies it and makes it durable. meta takes
// the place of the peer's in the checkpoint.
//
// A *FetchError is a fault of the peer or of the way to it, or the end of ctx:
// what has been received stays, and the next Fetch goes on there. Damage is a
// *CorruptError in it. Any other error is of this member's own disk. Then in is
// discarded: after a failed sync everything would verify and not be on the disk,
// and of a full disk, which is ErrNoSpace, others need the room.
func (in *Incoming) Fetch(ctx context.Context, fetch FetchFunc, meta []byte) error {
	if in.Whole() {
		return nil
	}
	if in.progress == nil {
		in.progress = map[string]int64{}
	}
	r := &receiver{in: in, ctx: ctx, dir: in.FS(), fetch: fetch}
	defer r.freeBufs()
	if err := r.run(meta); err != nil {
		var failed *FetchError
		if errors.As(err, &failed) {
			return err
		}
		_ = in.home.Discard(in) // what remains goes at the next start
		if isNoSpace(err) {
			return noSpace(err)
		}
		return err
	}
	in.home.mu.Lock()
	in.whole = true
	in.home.mu.Unlock()
	return nil
}

// FetchError is a failure of the peer or of the way to it, not of this member's
// disk.
type FetchError struct{ error }

func (e *FetchError) Unwrap() error { return e.error }

// receiver is one Fetch.
type receiver struct {
	in    *Incoming
	ctx   context.Context
	dir   disk.FS
	fetch FetchFunc
	bufs  [2][]byte // aligned; one is fetched into, the other written
}

func (r *receiver) run(meta []byte) error {
	if err := r.checkRoom(); err != nil {
		return err
	}
	m := r.in.manifest
	for i, e := range m.segments {
		if err := r.segment(uint32(i), e); err != nil {
			return fmt.Errorf("receive segment %s: %w", segmentName(e.id), err)
		}
	}
	if m.state.fileName() != "" {
		if err := r.state(uint32(len(m.segments))); err != nil {
			return fmt.Errorf("receive state: %w", err)
		}
	}
	if err := r.tidy(); err != nil {
		return err
	}
	return r.slots(meta)
}

// tidy removes what lies in the directory for no reason any more.
func (r *receiver) tidy() error {
	infos, err := r.dir.List("")
	if err != nil {
		return err
	}
	keep := map[string]bool{r.in.manifest.state.fileName(): true}
	for _, e := range r.in.manifest.segments {
		keep[segmentName(e.id)] = true
	}
	for _, f := range infos {
		if keep[f.Name] {
			continue
		}
		if err := r.dir.Remove(f.Name); err != nil {
			return err
		}
	}
	return nil
}

// checkRoom refuses what will not fit, before it makes the disk full.
func (r *receiver) checkRoom() error {
	room, known := disk.Room(r.dir)
	if !known {
		return nil
	}
	infos, err := r.dir.List("")
	if err != nil {
		return err
	}
	need := int64(0)
	for _, n := range r.in.manifest.blobs() {
		need += n
	}
	for _, f := range infos {
		need -= f.SizeBytes
	}
	if need += max(need, 0)/16 + spareBytes; room < need {
		return fmt.Errorf("a snapshot needs %d bytes more, %d are free: %w", need, room, syscall.ENOSPC)
	}
	return nil
}

// otherError means that a file is not what the peer has, although the identity
// is the same or although it was received in full.
type otherError struct{ want, got uint64 }

func (e *otherError) Error() string {
	return fmt.Sprintf("checksum %#x differs from the peer's %#x", e.got, e.want)
}

// segment makes a segment's file whole.
func (r *receiver) segment(blob uint32, e segmentEntry) error {
	name := segmentName(e.id)
	if done, err := r.done(name, e.fileEnd()); done || err != nil {
		return err
	}
	at := place{file: name, segment: e.id, epoch: e.epoch}
	verify := func(f disk.File) error { return r.verifySegment(f, at, blob, e) }
	if err := r.take(name+reusedSuffix, name, verify); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The second time nothing of the first is left.
	for try := 0; ; try++ {
		err := r.fetchSegment(name, at, blob, e, verify)
		var other *otherError
		if !errors.As(err, &other) {
			return err
		}
		delete(r.in.progress, name)
		if err := r.dir.Remove(name + partSuffix); err != nil {
			return err
		}
		if try > 0 {
			return &FetchError{at.corrupt("received bytes differ from the peer's", other.want, other.got)}
		}
	}
}

// fetchSegment fetches what is missing of a segment and makes it whole. What comes
// is verified on its way from memory to the disk, past the kernel's cache: for that
// gibibyte the kernel would have to find memory and to copy, twice with the reading
// back, and its first sync would come when all has been fetched.
func (r *receiver) fetchSegment(name string, at place, blob uint32, e segmentEntry, verify func(disk.File) error) error {
	f, err := r.dir.Open(name+partSuffix, disk.ReadWrite)
	if err == nil {
		return r.resume(f, name, at, blob, e, verify)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f, err = r.dir.Create(name+partSuffix, 0); err != nil {
		return err
	}
	_ = f.Close() // nothing was written
	r.in.progress[name] = 0
	if f, err = r.dir.Open(name+partSuffix, disk.Direct); err != nil {
		return err
	}
	defer f.Close()
	sum := newPageSum(at, e)
	err = r.fetchPart(f, name, blob, 0, e.fileEnd(), sum.add)
	if err != nil {
		return err
	}
	want, err := r.sum(blob, e.fileEnd())
	if err != nil {
		return err
	}
	got, err := sum.end()
	if err := judge(want, got, got, err); err != nil {
		return err
	}
	return r.finish(f, name)
}

// resume goes on with a segment of which a part lies on the disk.
func (r *receiver) resume(f disk.File, name string, at place, blob uint32, e segmentEntry, verify func(disk.File) error) (err error) {
	defer f.Close()
	from, known := r.in.progress[name]
	if !known {
		if from, err = r.trust(f, at, e.fileEnd()); err != nil {
			return err
		}
	}
	if err := r.fetchPart(f, name, blob, from, e.fileEnd(), func([]byte) {}); err != nil {
		return err
	}
	if err := verify(f); err != nil {
		return err
	}
	return r.finish(f, name)
}

// fetchPart fetches from one offset to another into a file, and shows what has
// come to look.
func (r *receiver) fetchPart(f disk.File, name string, blob uint32, from, to int64, look func(p []byte)) error {
	return r.copy(blob, from, to, func(p []byte, off int64) error {
		look(p)
		err := f.WriteAt(p, off)
		if err == nil {
			r.in.progress[name] = off + int64(len(p))
		}
		return err
	})
}

// trust returns how much of a part that another process wrote can be kept: the
// pages that verify. They may be in the kernel's memory only, and if a sync of
// them has failed a later one would not tell: they are written again.
func (r *receiver) trust(f disk.File, at place, end int64) (int64, error) {
	from := soundPages(f, at, end)
	if err := cutBack(f, from); err != nil {
		return 0, err
	}
	r.makeBufs()
	for at.off = 0; at.off < from; {
		p := r.bufs[0][:min(int64(len(r.bufs[0])), from-at.off)]
		if err := readFull(f, p, at); err != nil {
			return 0, err
		}
		if err := f.WriteAt(p, at.off); err != nil {
			return 0, err
		}
		at.off += int64(len(p))
	}
	return from, nil
}

// done tells whether a file has been received in full. One that has changed since
// is removed.
func (r *receiver) done(name string, bytes int64) (bool, error) {
	f, err := r.dir.Open(name, disk.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	size, err := f.Size()
	_ = f.Close()
	if err == nil && size < bytes {
		return false, r.dir.Remove(name)
	}
	return err == nil, err
}

// take makes a reused file the whole one if it stands the test; it is durable
// where it comes from. Otherwise it is removed and the error is fs.ErrNotExist, as
// if it had never been there; what is wrong with it shows where it came from.
func (r *receiver) take(reused, name string, verify func(disk.File) error) error {
	f, err := r.dir.Open(reused, disk.ReadOnly)
	if err != nil {
		return err
	}
	err = verify(f)
	_ = f.Close()
	if err == nil {
		return r.dir.Rename(reused, name)
	}
	var failed *FetchError
	if errors.As(err, &failed) {
		return err
	}
	if err := r.dir.Remove(reused); err != nil {
		return err
	}
	return fs.ErrNotExist
}

// soundPages returns how far a file has sound pages of a segment.
func soundPages(file disk.File, at place, end int64) int64 {
	size, err := file.Size()
	if err != nil {
		return 0
	}
	r := pageReader{file: file, at: at, end: min(size, end)}
	for {
		if _, _, err := r.next(); err != nil {
			return r.at.off
		}
	}
}

func (r *receiver) makeBufs() {
	if r.bufs[0] != nil {
		return
	}
	most := int64(1) // of what is read at once
	for _, n := range r.in.manifest.blobs() {
		most = max(most, n)
	}
	size := disk.AlignUp(int(min(most, int64(r.in.home.chunkBytes))))
	for i := range r.bufs {
		r.bufs[i] = disk.AlignedBuf(size)
	}
}

func (r *receiver) freeBufs() {
	for i := range r.bufs {
		disk.FreeBuf(r.bufs[i])
		r.bufs[i] = nil
	}
}

// copy fetches a blob from off to end and hands what has come to write, on a
// goroutine of its own, while the next is being fetched. write is never called
// twice at a time, and has returned when copy does.
func (r *receiver) copy(blob uint32, off, end int64, write func(p []byte, off int64) error) error {
	r.makeBufs()
	wrote := make(chan error, 1)
	wrote <- nil
	for i := 0; off < end; i++ {
		buf := r.bufs[i%len(r.bufs)]
		p, at := buf[:min(int64(len(buf)), end-off)], off
		fetched := r.read(blob, p, at)
		if err := <-wrote; err != nil {
			return err
		}
		if fetched != nil {
			return fetched
		}
		go func() { wrote <- write(p, at) }()
		off += int64(len(p))
	}
	return <-wrote
}

// read fills p from a blob.
func (r *receiver) read(blob uint32, p []byte, off int64) error {
	for len(p) > 0 {
		if err := r.ctx.Err(); err != nil {
			return &FetchError{err}
		}
		n, err := r.fetch(blob, p, off)
		if n < 0 || n > len(p) {
			return &FetchError{fmt.Errorf("fetch of %d bytes returned %d", len(p), n)}
		}
		p, off = p[n:], off+int64(n)
		switch {
		case len(p) == 0:
		case errors.Is(err, io.EOF), err == nil && n == 0:
			return &FetchError{fmt.Errorf("blob %d ends at %d, before its manifest says: %w", blob, off, io.ErrUnexpectedEOF)}
		case err != nil:
			return &FetchError{err}
		}
	}
	return nil
}

// sum fetches the peer's checksum of a blob, which lies behind its content.
func (r *receiver) sum(blob uint32, content int64) (uint64, error) {
	var b [sumBytes]byte
	err := r.read(blob, b[:], content)
	return binary.LittleEndian.Uint64(b[:]), err
}

// verifySegment checks a whole segment as it lies in the file: every page by
// itself, and all of it against the peer.
func (r *receiver) verifySegment(f disk.File, at place, blob uint32, e segmentEntry) error {
	want, err := r.sum(blob, e.fileEnd())
	if err != nil {
		return err
	}
	got, err := sumPages(f, at, e)
	raw := got
	var bad *CorruptError
	if errors.As(err, &bad) {
		if raw, err = sumRaw(f, 0, e.fileEnd(), at); err != nil {
			return &otherError{want, 0}
		}
		err = bad
	}
	return judge(want, got, raw, err)
}

// judge says what is wrong with a whole segment, if anything is: want is the peer's
// checksum, got that of its pages, raw that of its bytes, bad what its pages say
// of themselves.
func judge(want, got, raw uint64, bad error) error {
	var corrupt *CorruptError
	switch {
	case errors.As(bad, &corrupt) && raw == want:
		return &FetchError{fmt.Errorf("the peer's segment is damaged: %w", bad)}
	case errors.As(bad, &corrupt):
		return &otherError{want, raw}
	case bad == nil && got != want:
		return &otherError{want, got}
	}
	return bad
}

// sumRaw returns the checksum of a stretch of a file, whatever it holds.
func sumRaw(f disk.File, from, to int64, at place) (uint64, error) {
	var sum xxhash.Digest
	sum.Reset()
	buf := make([]byte, min(walkBytes, max(to-from, 1)))
	for at.off = from; at.off < to; {
		p := buf[:min(int64(len(buf)), to-at.off)]
		if err := readFull(f, p, at); err != nil {
			return 0, err
		}
		sum.Write(p)
		at.off += int64(len(p))
	}
	return sum.Sum64(), nil
}

// finish makes a whole part durable and gives it its name.
func (r *receiver) finish(f disk.File, name string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	return r.dir.Rename(name+partSuffix, name)
}

// state receives the state, which has nothing in it that could be verified
// before its end: it is fetched as a whole.
func (r *receiver) state(blob uint32) error {
	ref := r.in.manifest.state
	name := ref.fileName()
	if done, err := r.done(name, stateHeadBytes+ref.bytes); done || err != nil {
		return err
	}
	at := place{file: name}
	f, err := createFresh(r.dir, name+partSuffix, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.WriteAt(ref.head(), 0); err != nil {
		return err
	}
	err = r.copy(blob, 0, ref.bytes, func(p []byte, off int64) error { return f.WriteAt(p, stateHeadBytes+off) })
	if err != nil {
		return err
	}
	sum, err := sumRaw(f, stateHeadBytes, stateHeadBytes+ref.bytes, at)
	if err != nil {
		return err
	}
	if sum != ref.sum {
		return &FetchError{at.corrupt("received state differs from the peer's", ref.sum, sum)}
	}
	return r.finish(f, name)
}

// slots writes the checkpoint, with the owner's own meta.
func (r *receiver) slots(meta []byte) error {
	m := *r.in.manifest
	m.meta = bytes.Clone(meta)
	b := m.encode()
	for _, name := range slotNames {
		f, err := r.dir.Create(name, 0)
		if err != nil {
			return err
		}
		err = writeSlot(f, b)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
