package etcdfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// A bbolt file is an array of pages; integers are in the byte order of the
// machine that wrote it, which for etcd is little endian. See doc.go for why
// this package reads it by itself.
//
//	page    u64 id, u16 flags, u16 count, u32 overflow: pages that follow as part of it
//	meta    pages 0 and 1: u32 magic, u32 version, u32 page size, u32 flags,
//	        root bucket, u64 freelist, u64 pages in use, u64 transaction, u64 FNV-1a of all this
//	branch  count × {u32 pos, u32 key length, u64 page}; the key is pos behind the element
//	leaf    count × {u32 flags, u32 pos, u32 key length, u32 value length}; the value is behind the key
//	bucket  the value of a leaf element with flag 1: u64 root page, u64 sequence;
//	        root 0: the leaf page follows in the value
const (
	pageHeadBytes = 16
	elementBytes  = 16
	metaBytes     = 64
	bucketBytes   = 16

	flagBranch = 1
	flagLeaf   = 2
	flagMeta   = 4

	leafIsBucket = 1

	boltMagic   = 0xED0CDAED
	boltVersion = 2

	minPageBytes = 512
	maxPageBytes = 1 << 20
	// maxRunBytes bounds one page with its overflow: a value is bounded by
	// etcd's request limit, which nobody sets to this.
	maxRunBytes = 1 << 30
	// maxDepth bounds the height of a tree; one of 64 has more than 2^64 leaves.
	maxDepth = 64
)

// boltFile reads the pages of one file.
type boltFile struct {
	r         io.ReaderAt
	name      string
	pageBytes int64
	pages     uint64   // in use
	root      uint64   // page of the root bucket
	seen      []uint64 // bit per page: read in the present walk
}

// openBolt finds the newest whole meta page.
func openBolt(r io.ReaderAt, name string, sizeBytes int64) (*boltFile, error) {
	f := &boltFile{r: r, name: name}
	var newest meta
	found := false
	consider := func(off int64) {
		if m, ok := f.meta(off); ok && (!found || m.txid > newest.txid) {
			newest, found = m, true
		}
	}
	consider(0)
	if found {
		consider(newest.pageBytes)
	} else {
		for size := int64(minPageBytes); size <= maxPageBytes && !found; size *= 2 {
			consider(size)
		}
	}
	if !found {
		return nil, f.corrupt(0, "no valid meta page")
	}
	f.pageBytes, f.pages, f.root = newest.pageBytes, newest.pages, newest.root
	if limit := uint64(sizeBytes / f.pageBytes); f.pages > limit {
		return nil, f.corrupt(sizeBytes, "the file has %d pages of %d bytes, its meta page says %d", limit, f.pageBytes, f.pages)
	}
	f.seen = make([]uint64, f.pages/64+1)
	return f, nil
}

type meta struct {
	pageBytes         int64
	root, pages, txid uint64
}

// meta reads a meta page at off; false if it is none or torn.
func (f *boltFile) meta(off int64) (m meta, ok bool) {
	var b [pageHeadBytes + metaBytes]byte
	if _, err := f.r.ReadAt(b[:], off); err != nil {
		return m, false
	}
	p := b[pageHeadBytes:]
	sum := fnv.New64a()
	sum.Write(p[:metaBytes-8])
	u32, u64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	m = meta{pageBytes: int64(u32(p[8:])), root: u64(p[16:]), pages: u64(p[40:]), txid: u64(p[48:])}
	ok = binary.LittleEndian.Uint16(b[8:])&flagMeta != 0 && u32(p) == boltMagic && u32(p[4:]) == boltVersion &&
		m.pageBytes >= minPageBytes && m.pageBytes <= maxPageBytes && m.pageBytes&(m.pageBytes-1) == 0 &&
		u64(p[56:]) == sum.Sum64()
	return m, ok
}

func (f *boltFile) corrupt(off int64, format string, args ...any) error {
	return &CorruptError{File: f.name, Off: off, What: fmt.Sprintf(format, args...)}
}

// page is one page with its overflow, or one inside a bucket's value.
type page struct {
	off   int64 // in the file, for messages
	data  []byte
	flags uint16
	count int
}

func parsePage(off int64, data []byte) page {
	return page{off: off, data: data, flags: binary.LittleEndian.Uint16(data[8:]), count: int(binary.LittleEndian.Uint16(data[10:]))}
}

// page reads a page that this walk has not read before: in a sound file each has
// one parent, and a loop ends here.
func (f *boltFile) page(id uint64, buf []byte) (page, error) {
	if id < 2 || id >= f.pages {
		return page{}, f.corrupt(-1, "reference to page %d of %d", id, f.pages)
	}
	off := int64(id) * f.pageBytes
	if f.seen[id/64]>>(id%64)&1 != 0 {
		return page{}, f.corrupt(off, "two references to page %d", id)
	}
	f.seen[id/64] |= 1 << (id % 64)
	var head [pageHeadBytes]byte
	if _, err := f.r.ReadAt(head[:], off); err != nil {
		return page{}, fmt.Errorf("read %s: %w", f.name, err)
	}
	overflow := uint64(binary.LittleEndian.Uint32(head[12:]))
	if got := binary.LittleEndian.Uint64(head[:]); got != id {
		return page{}, f.corrupt(off, "page %d says that it is page %d", id, got)
	}
	n := int64(1+overflow) * f.pageBytes
	if id+overflow >= f.pages || n > maxRunBytes {
		return page{}, f.corrupt(off, "page %d of %d runs over %d more", id, f.pages, overflow)
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	if _, err := f.r.ReadAt(buf[:n], off); err != nil {
		return page{}, fmt.Errorf("read %s: %w", f.name, err)
	}
	return parsePage(off, buf[:n]), nil
}

// at returns n bytes at i, or false if they are not all in the page.
func (p *page) at(i, n uint64) ([]byte, bool) {
	if size := uint64(len(p.data)); i > size || n > size-i {
		return nil, false
	}
	return p.data[i : i+n], true
}

// element returns the head of element i and where it lies.
func (p *page) element(i int) (head []byte, at uint64, ok bool) {
	at = pageHeadBytes + uint64(i)*elementBytes
	head, ok = p.at(at, elementBytes)
	return head, at, ok
}

// visitor gets the leaf elements of a tree in the order of their keys, which are
// valid during the call.
type visitor func(off int64, key, value []byte, isBucket bool) error

// walk visits the tree below a page. low and high bound its keys: low ≤ key <
// high; nil is no bound.
type walk struct {
	f     *boltFile
	visit visitor
	last  []byte // newest key visited
	begun bool
	bufs  [maxDepth][]byte // one per level, reused
}

func (w *walk) tree(id uint64, low, high []byte, depth int) error {
	if depth == maxDepth {
		return w.f.corrupt(-1, "the tree is deeper than %d pages", maxDepth)
	}
	p, err := w.f.page(id, w.bufs[depth])
	if err != nil {
		return err
	}
	w.bufs[depth] = p.data
	switch p.flags {
	case flagLeaf:
		return w.leaf(p, low, high, depth > 0)
	case flagBranch:
		return w.branch(p, low, high, depth)
	}
	return w.f.corrupt(p.off, "page flags %#x in a tree", p.flags)
}

func (w *walk) branch(p page, low, high []byte, depth int) error {
	if p.count == 0 {
		return w.f.corrupt(p.off, "a branch page without elements")
	}
	key := func(i int) ([]byte, uint64, bool) {
		head, at, ok := p.element(i)
		if !ok {
			return nil, 0, false
		}
		u32 := binary.LittleEndian.Uint32
		k, ok := p.at(at+uint64(u32(head)), uint64(u32(head[4:])))
		return k, binary.LittleEndian.Uint64(head[8:]), ok
	}
	next, child, ok := key(0)
	for i := range p.count {
		from, id := next, child
		to := high
		if ok && i+1 < p.count {
			next, child, ok = key(i + 1)
			to = next
		}
		if !ok {
			return w.f.corrupt(p.off, "element %d of a branch page is cut", i)
		}
		if i == 0 && low != nil && bytes.Compare(from, low) < 0 || to != nil && bytes.Compare(from, to) >= 0 {
			return w.f.corrupt(p.off, "keys of a branch page are out of order at element %d", i)
		}
		if err := w.tree(id, from, to, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) leaf(p page, low, high []byte, inner bool) error {
	if p.count == 0 && inner {
		return w.f.corrupt(p.off, "a leaf page without elements below a branch")
	}
	for i := range p.count {
		head, at, ok := p.element(i)
		if !ok {
			return w.f.corrupt(p.off, "element %d of a leaf page is cut", i)
		}
		u32 := binary.LittleEndian.Uint32
		pos, keyLen, valueLen := at+uint64(u32(head[4:])), uint64(u32(head[8:])), uint64(u32(head[12:]))
		kv, ok := p.at(pos, keyLen+valueLen)
		if !ok || pos < at+elementBytes {
			return w.f.corrupt(p.off, "element %d of a leaf page is cut", i)
		}
		key, value := kv[:keyLen:keyLen], kv[keyLen:]
		if w.begun && bytes.Compare(key, w.last) <= 0 || low != nil && bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0 {
			return w.f.corrupt(p.off, "keys of a leaf page are out of order at element %d", i)
		}
		w.last, w.begun = append(w.last[:0], key...), true
		if err := w.visit(p.off, key, value, u32(head)&leafIsBucket != 0); err != nil {
			return err
		}
	}
	return nil
}

// bucket is a nested bucket: a tree, or one leaf page inline.
type bucket struct {
	root   uint64
	inline []byte // the page, if root is 0
	off    int64
}

func (f *boltFile) parseBucket(off int64, value []byte) (b bucket, err error) {
	if len(value) < bucketBytes {
		return b, f.corrupt(off, "a bucket of %d bytes", len(value))
	}
	b = bucket{root: binary.LittleEndian.Uint64(value), off: off}
	if b.root == 0 {
		if len(value) < bucketBytes+pageHeadBytes {
			return b, f.corrupt(off, "an inline bucket of %d bytes", len(value))
		}
		b.inline = append([]byte(nil), value[bucketBytes:]...)
	}
	return b, nil
}

// each visits the bucket's elements in order.
func (f *boltFile) each(b bucket, visit visitor) error {
	clear(f.seen)
	w := &walk{f: f, visit: visit}
	if b.root != 0 {
		return w.tree(b.root, nil, nil, 0)
	}
	p := parsePage(b.off, b.inline)
	if p.flags != flagLeaf {
		return f.corrupt(b.off, "page flags %#x in an inline bucket", p.flags)
	}
	return w.leaf(p, nil, nil, false)
}
