package disk

import (
	"io"
	"io/fs"
)

const (
	memPage = 4096 // granularity of copy-on-write between images
	sector  = 512  // granularity of tearing
)

// memImage is the content of a file. Pages are shared between images; an image
// may change a page in place only if the page's gen is its own.
type memImage struct {
	pages []*memPageData // nil: zeroes; may be shorter than size
	size  int64
	gen   *int
}

type memPageData struct {
	gen  *int
	data [memPage]byte
}

// clone returns an image with the same content, at the cost of the page table.
// Both sides lose the right to change the present pages in place.
func (im *memImage) clone() memImage {
	im.gen = new(int)
	return memImage{pages: append([]*memPageData(nil), im.pages...), size: im.size, gen: new(int)}
}

// page returns page i for writing.
func (im *memImage) page(i int) *memPageData {
	for len(im.pages) <= i {
		im.pages = append(im.pages, nil)
	}
	p := im.pages[i]
	switch {
	case p == nil:
		p = &memPageData{gen: im.gen}
	case p.gen != im.gen:
		p = &memPageData{gen: im.gen, data: p.data}
	}
	im.pages[i] = p
	return p
}

// put writes p at off and does not change size.
func (im *memImage) put(p []byte, off int64) {
	for len(p) > 0 {
		at := int(off % memPage)
		n := copy(im.page(int(off / memPage)).data[at:], p)
		p, off = p[n:], off+int64(n)
	}
}

// zero writes n zeroes at off and does not change size.
func (im *memImage) zero(off, n int64) {
	end := min(off+n, int64(len(im.pages))*memPage)
	for off < end {
		i, at := int(off/memPage), off%memPage
		k := min(memPage-at, end-off)
		switch {
		case im.pages[i] == nil:
		case k == memPage:
			im.pages[i] = nil
		default:
			clear(im.page(i).data[at : at+k])
		}
		off += k
	}
}

func (im *memImage) setSize(size int64) {
	if size < im.size {
		im.zero(size, im.size-size)
		im.pages = im.pages[:min(int64(len(im.pages)), (size+memPage-1)/memPage)]
	}
	im.size = size
}

// get copies from off into p, which lies within the size.
func (im *memImage) get(p []byte, off int64) {
	for len(p) > 0 {
		i, at := int(off/memPage), int(off%memPage)
		k := min(memPage-at, len(p))
		if i < len(im.pages) && im.pages[i] != nil {
			copy(p[:k], im.pages[i].data[at:])
		} else {
			clear(p[:k])
		}
		p, off = p[k:], off+int64(k)
	}
}

type writeKind uint8

const (
	dataWrite  writeKind = iota
	zeroWrite            // n zeroes
	truncWrite           // size becomes off
)

// memWrite is a change of a file's content or size that is not yet durable.
type memWrite struct {
	kind   writeKind
	off    int64
	data   []byte // dataWrite
	n      int64  // length in bytes, 0 for truncWrite
	direct bool   // becomes durable by its own completion, not by Sync
}

func (w *memWrite) end() int64 { return w.off + w.n }

// apply makes the whole change in im.
func (w *memWrite) apply(im *memImage) {
	switch w.kind {
	case truncWrite:
		im.setSize(w.off)
		return
	case zeroWrite:
		im.zero(w.off, w.n)
	case dataWrite:
		im.put(w.data, w.off)
	}
	im.size = max(im.size, w.end())
}

// part returns the bytes from..to of the write as a write.
func (w *memWrite) part(from, to int64) *memWrite {
	p := &memWrite{kind: w.kind, off: w.off + from, n: to - from}
	if w.kind == dataWrite {
		p.data = w.data[from:to]
	}
	return p
}

// memInode is a file: its content as seen by reads, its content on the platter,
// and the changes in between, in the order of issue.
type memInode struct {
	cur  memImage
	dur  memImage
	pend []*memWrite
}

func newInode() *memInode {
	return &memInode{cur: memImage{gen: new(int)}, dur: memImage{gen: new(int)}}
}

// complete makes w, a direct write, durable. What older writes would have put
// in its place can no longer arrive.
func (in *memInode) complete(w *memWrite) {
	var rest []*memWrite
	older := true
	for _, p := range in.pend {
		switch {
		case p == w:
			older = false
		case older && p.kind != truncWrite && !p.direct && p.off < w.end() && w.off < p.end():
			if p.off < w.off {
				rest = append(rest, p.part(0, w.off-p.off))
			}
			if p.end() > w.end() {
				rest = append(rest, p.part(w.end()-p.off, p.n))
			}
		default:
			rest = append(rest, p)
		}
	}
	in.pend = rest
	w.apply(&in.dur)
	w.apply(&in.cur)
}

// memFile is a handle.
type memFile struct {
	m      *Mem
	in     *memInode
	name   string
	mode   Mode
	closed bool
}

func (f *memFile) Name() string { return f.name }

func (f *memFile) usableLocked() error {
	if f.m.off {
		return ErrCrashed
	}
	if f.closed {
		return fs.ErrClosed
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.usableLocked()
	if err == nil {
		err = f.m.faultLocked(OpRead, f.name)
	}
	if err == nil && f.mode == Direct && !aligned(p, off) {
		err = ErrMisaligned
	}
	if err != nil {
		return 0, wrap("read", f.name, off, err)
	}
	n := int(max(0, min(int64(len(p)), f.in.cur.size-off)))
	f.in.cur.get(p[:n], off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.mode == Direct && !aligned(p, off) {
		return wrap("write", f.name, off, ErrMisaligned)
	}
	if len(p) == 0 {
		return nil
	}
	w := &memWrite{kind: dataWrite, off: off, data: append([]byte(nil), p...), n: int64(len(p)), direct: f.mode == Direct}
	return wrap("write", f.name, off, f.writeLocked(w))
}

func (f *memFile) writeLocked(w *memWrite) error {
	err := f.usableLocked()
	if err != nil {
		return err
	}
	if f.mode == ReadOnly {
		return fs.ErrPermission
	}
	if err = f.m.faultLocked(OpWrite, f.name); err != nil {
		f.failedWriteLocked(w, err)
		return err
	}
	f.in.pend = append(f.in.pend, w)
	if !w.direct {
		w.apply(&f.in.cur)
	}
	if err = f.m.stepLocked(); err == nil && w.direct {
		f.in.complete(w)
	}
	return err
}

func (f *memFile) Truncate(sizeBytes int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err := f.usableLocked()
	if err == nil && f.mode == ReadOnly {
		err = fs.ErrPermission
	}
	if err == nil {
		err = f.m.faultLocked(OpTruncate, f.name)
	}
	if err == nil {
		w := &memWrite{kind: truncWrite, off: sizeBytes}
		f.in.pend = append(f.in.pend, w)
		w.apply(&f.in.cur)
		err = f.m.stepLocked()
	}
	return wrap("truncate", f.name, sizeBytes, err)
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return wrap("sync", f.name, 0, f.syncLocked())
}

func (f *memFile) syncLocked() error {
	if err := f.usableLocked(); err != nil {
		return err
	}
	if err := f.m.faultLocked(OpSync, f.name); err != nil {
		f.failedSyncLocked()
		return err
	}
	if err := f.m.stepLocked(); err != nil {
		return err
	}
	rest := f.in.pend[:0]
	for _, w := range f.in.pend {
		if w.direct { // in flight in a queue: fdatasync does not wait for it
			rest = append(rest, w)
			continue
		}
		w.apply(&f.in.dur)
	}
	clear(f.in.pend[len(rest):])
	f.in.pend = rest
	for _, op := range f.m.pend {
		op.journaled = true
	}
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.usableLocked(); err != nil {
		return 0, wrap("stat", f.name, 0, err)
	}
	return f.in.cur.size, nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return wrap("close", f.name, 0, fs.ErrClosed)
	}
	f.closed = true
	return nil
}
