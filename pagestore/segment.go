package pagestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"quire/disk"
)

// origin says who appends, or appended, to a segment.
type origin uint8

const (
	fromWriter    origin = iota // Append
	fromReclaim                 // copies made by Reclaim
	fromRecovered               // an earlier process; never appended to again
)

// segment is one file of pages. Each byte of it is written once in the life of
// its epoch, which is why a page that names segment, offset and epoch is the
// page that belongs there and no older one.
type segment struct {
	id     segmentID
	epoch  uint64
	name   string
	origin origin

	// file is nil until the write behind creates it. refs counts the owner
	// (1, until the segment is dropped) and everyone inside a file operation;
	// whoever brings it to 0 closes the file.
	file atomic.Pointer[fileBox]
	refs atomic.Int32

	// chunks hold the frames of pages in memory, by page number.
	chunks []atomic.Pointer[slotChunk]
	// flushed is how far the file has been written; below it a page may be
	// missing from memory.
	flushed atomic.Int64

	tally tally

	// The rest belongs to Store.mu.

	end     int64  // end of the last sealed page
	records uint64 // up to there
	full    bool   // nothing more will be appended
	// A checkpoint may name the segment up to cutEnd: up to the last Cut, or
	// up to where the copies of the last wholly reclaimed segment end.
	cutEnd     int64
	cutRecords uint64
	synced     int64 // up to here fdatasync has been called
	summed     int64 // sum is that of the file up to here, 0: not known
	sum        uint64
	// footerEnd is where the hint footer ends, which begins at end; 0 without
	// a footer.
	footerEnd int64
	footerBad bool // the footer failed its check; the pages serve in its place
	abandoned bool // Reclaim could not read all of it and leaves it alone
	retired   bool // every live record has been copied elsewhere
	doomed    bool // no manifest names it; it goes when no Pin holds it
}

// fileBox exists because an interface has no atomic.
type fileBox struct{ disk.File }

// slotChunk is the frames of chunkSlots consecutive page numbers, allocated
// when one of them is first in memory: a cold segment costs 2 KiB, not 128.
type slotChunk [chunkSlots]atomic.Pointer[frame]

const chunkSlots = 64

func segmentName(id segmentID) string { return fmt.Sprintf("%08x.pages", uint32(id)) }

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (segmentID, bool) {
	var id uint32
	if _, err := fmt.Sscanf(name, "%08x.pages", &id); err != nil || id == 0 || segmentID(id) > maxSegmentID {
		return 0, false
	}
	return segmentID(id), segmentName(segmentID(id)) == name
}

// newSegment returns a segment whose pages start below startLimit.
func newSegment(id segmentID, epoch uint64, from origin, startLimit int64) *segment {
	slots := (startLimit + unitBytes - 1) / unitBytes
	seg := &segment{
		id: id, epoch: epoch, name: segmentName(id), origin: from,
		chunks: make([]atomic.Pointer[slotChunk], (slots+chunkSlots-1)/chunkSlots),
	}
	seg.refs.Store(1)
	return seg
}

func (g *segment) at(off int64) place {
	return place{file: g.name, segment: g.id, epoch: g.epoch, off: off}
}

// slot returns the cell of page n; nil if it is not allocated and make is
// false, or if n is beyond the segment.
func (g *segment) slot(n pageNo, make bool) *atomic.Pointer[frame] {
	if int(n/chunkSlots) >= len(g.chunks) {
		return nil
	}
	cell := &g.chunks[n/chunkSlots]
	chunk := cell.Load()
	if chunk == nil {
		if !make {
			return nil
		}
		chunk = new(slotChunk)
		if !cell.CompareAndSwap(nil, chunk) {
			chunk = cell.Load()
		}
	}
	return &chunk[n%chunkSlots]
}

// frame returns the page in memory, or nil.
func (g *segment) frame(n pageNo) *frame {
	if cell := g.slot(n, false); cell != nil {
		return cell.Load()
	}
	return nil
}

// acquire keeps the file open until release; false once it is dropped.
func (g *segment) acquire() bool {
	for {
		n := g.refs.Load()
		if n == 0 {
			return false
		}
		if g.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (g *segment) release() error {
	if g.refs.Add(-1) > 0 {
		return nil
	}
	if f := g.file.Load(); f != nil {
		return f.Close()
	}
	return nil
}

// readAt fills p from the file; a file that ends before is corrupt. The caller
// has acquired the segment.
func (g *segment) readAt(p []byte, off int64) error {
	f := g.file.Load()
	if f == nil {
		return g.at(off).corrupt("page was never written", 1, 0)
	}
	return readFull(f, p, g.at(off))
}

func readFull(f disk.File, p []byte, at place) error {
	n, err := f.ReadAt(p, at.off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return at.corrupt("file ends too early", uint64(at.off)+uint64(len(p)), uint64(at.off)+uint64(n))
	}
	return err
}

// ensureFile creates the segment's file when its first page is written.
func (g *segment) ensureFile(fsys disk.FS) (disk.File, error) {
	if f := g.file.Load(); f != nil {
		return f, nil
	}
	f, err := createFresh(fsys, g.name, 0)
	if err != nil {
		return nil, err
	}
	g.file.Store(&fileBox{f})
	return f, nil
}

// createFresh creates a file under a name that nothing durable refers to, so
// that what a failed attempt left there can go.
func createFresh(fsys disk.FS, name string, sizeBytes int64) (disk.File, error) {
	f, err := fsys.Create(name, sizeBytes)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	if err := fsys.Remove(name); err != nil {
		return nil, err
	}
	return fsys.Create(name, sizeBytes)
}

// tally counts what of a segment is alive. Free does not know how long a record
// is and must not read it to find out, so ordinary records are counted and
// weighed by their mean; jumbo records, of which one can outweigh all others,
// are known one by one.
type tally struct {
	records atomic.Int64 // ordinary ones: all, freed, bytes of all
	freed   atomic.Int64
	bytes   atomic.Int64

	jumboBytes atomic.Int64 // of all jumbo records
	jumboFreed atomic.Int64 // bytes
	jumbos     atomic.Int32 // length of the map; most segments have none
	mu         struct {
		sync.Mutex
		jumbo map[pageNo]int64 // bytes of the live jumbo record at a page
	}
}

func (t *tally) add(records, bytes int64) {
	t.bytes.Add(bytes)
	t.records.Add(records)
}

func (t *tally) addJumbo(n pageNo, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.jumbo == nil {
		t.mu.jumbo = map[pageNo]int64{}
	}
	if _, known := t.mu.jumbo[n]; known { // Hints was called before
		return
	}
	t.mu.jumbo[n] = bytes
	t.jumboBytes.Add(bytes)
	t.jumbos.Add(1)
}

// free counts the record on page n as dead.
func (t *tally) free(n pageNo, delta int64) {
	if t.jumbos.Load() > 0 {
		t.mu.Lock()
		bytes, jumbo := t.mu.jumbo[n]
		t.mu.Unlock()
		if jumbo {
			t.jumboFreed.Add(bytes * delta)
			return
		}
	}
	t.freed.Add(delta)
}

// clear counts every record as dead.
func (t *tally) clear() {
	t.freed.Store(t.records.Load())
	t.jumboFreed.Store(t.jumboBytes.Load())
}

// live estimates the bytes of live records.
func (t *tally) live() int64 {
	live := t.jumboBytes.Load() - t.jumboFreed.Load()
	if n := t.records.Load(); n > 0 {
		left := min(max(n-t.freed.Load(), 0), n)
		live += int64(float64(t.bytes.Load()) * float64(left) / float64(n))
	}
	return max(live, 0)
}
