package index

import (
	"math/bits"
	"unsafe"
)

// ref names a record: the number of its first 8-byte unit in the arena.
// 0 is no record.
type ref uint32

const (
	chunkUnitBits = 17
	chunkUnits    = 1 << chunkUnitBits // 1 MiB
	chunkMask     = chunkUnits - 1
	maxChunks     = 1 << (32 - chunkUnitBits) // 32 GiB of records
	// A record larger than half a chunk gets memory of its own, so that at
	// most half of the ref space can be lost to rounding.
	jumboUnits = chunkUnits / 2
	// Free memory is kept for reuse in this many whole chunks; more goes
	// back to the runtime.
	spareChunks = 8
)

type chunk = [chunkUnits]uint64

// recordKind separates what lives long from what dies at compaction, so that
// whole chunks of superseded versions become empty and can be reused.
type recordKind uint8

const (
	keyKind recordKind = iota
	versionKind
	kinds
)

// chunkState is what a chunk number is used for.
type chunkState uint8

const (
	chunkFree  chunkState = iota // number not in use
	chunkSmall                   // one of the ordinary ones
	chunkJumbo                   // one record larger than jumboUnits
	chunkTail                    // continues the jumbo before it
)

type chunkInfo struct {
	state   chunkState
	kind    recordKind
	bumping bool   // some bump pointer is in it
	used    uint32 // units in records (small) or chunk numbers covered (jumbo)
	end     uint32 // units that have ever been handed out: blocks lie in [0, end)
}

// arena hands out blocks of units. A block is a record or free; its first
// word tells which and so a chunk can be walked from its start to its end.
// It holds no Go pointers but the table of chunks: the collector has nothing
// to follow.
//
// Costs: alloc and free are O(1); freeing the last record of a chunk costs a
// walk over the chunk's free blocks (at most 26,000, under half a
// millisecond), which makes the memory available to every size again.
// Until then a freed block serves records of its size class or, split, of a
// smaller one.
//
// The two tables have room for every chunk number, so that the workers of a
// Loader can read them while one of them adds a chunk. What is not in use of
// them is never touched and so takes no memory.
type arena struct {
	chunks  [maxChunks]*chunk
	spare   []*chunk // memory of freed chunks
	freed   []uint32 // freed chunk numbers
	info    [maxChunks]chunkInfo
	numbers uint32 // chunk numbers ever used; 0 never is
	bump    [kinds]bumper
	free    [kinds]freeLists

	chunkBytes int64 // memory held in chunks, spares included
}

// bumper hands out the unused rest of one chunk. The zero bumper is empty.
type bumper struct {
	off, end uint32 // absolute units
}

// freeLists are doubly linked lists of free blocks, one per size class, with
// a bitmap of those that are not empty. A free block's words are
// freeMark<<56|units and prev<<32|next.
type freeLists struct {
	head [classes]ref
	set  [classes/64 + 1]uint64
}

func newArena() *arena {
	return &arena{numbers: 1}
}

// word returns the i-th word of a record. i must be inside the record.
func (a *arena) word(r ref, i uint32) *uint64 {
	return &a.chunks[r>>chunkUnitBits][(uint32(r)+i)&chunkMask]
}

// bytes views n bytes of a record from its i-th word on.
func (a *arena) bytes(r ref, i uint32, n int) []byte {
	// The view is of plain words in one allocation (a jumbo chunk is longer
	// than its array type says), so it neither hides a pointer nor leaves
	// the object.
	return unsafe.Slice((*byte)(unsafe.Pointer(a.word(r, i))), n)
}

// Size classes: every number of units up to exactUnits, then eight steps per
// doubling. A block always has its class's size.
const (
	exactBits  = 9
	exactUnits = 1 << exactBits
	classes    = exactUnits + 8*(chunkUnitBits-exactBits) + 1
)

// classOf returns the smallest class that holds units, and its size.
func classOf(units uint32) (class int, size uint32) {
	if units <= exactUnits {
		return int(units), units
	}
	log := uint32(bits.Len32(units-1)) - 1
	step := uint32(1) << (log - 3)
	eighth := (units - 1 - 1<<log) / step
	return exactUnits + int(log-exactBits)*8 + int(eighth) + 1, 1<<log + (eighth+1)*step
}

// classBelow returns the largest class that fits into units.
func classBelow(units uint32) (class int, size uint32) {
	if units <= exactUnits {
		return int(units), units
	}
	log := uint32(bits.Len32(units)) - 1
	step := uint32(1) << (log - 3)
	eighth := (units - 1<<log) / step
	return exactUnits + int(log-exactBits)*8 + int(eighth), 1<<log + eighth*step
}

// alloc returns a block for a record of units. Its content is undefined.
// It panics when the ref space is exhausted; see Index.RoomBytes.
func (a *arena) alloc(kind recordKind, units uint32) ref {
	if units > jumboUnits {
		return a.allocJumbo(units)
	}
	class, size := classOf(units)
	f := &a.free[kind]
	if r := f.head[class]; r != 0 {
		a.unlinkFree(kind, class, r)
		a.info[r>>chunkUnitBits].used += size
		return r
	}
	if kind == keyKind {
		if r := a.split(kind, class, size); r != 0 {
			return r
		}
	}
	return a.allocBump(&a.bump[kind], kind, size)
}

// split cuts a block of size from a larger free one.
func (a *arena) split(kind recordKind, class int, size uint32) ref {
	// A rest smaller than a record could never be used.
	least, _ := classOf(size + headerUnits)
	larger := a.free[kind].nextSet(max(least, class+1))
	if larger == 0 {
		return 0
	}
	r := a.free[kind].head[larger]
	have := uint32(*a.word(r, 0))
	a.unlinkFree(kind, larger, r)
	a.info[r>>chunkUnitBits].used += size
	a.fillFree(kind, uint32(r)+size, uint32(r)+have)
	return r
}

// allocBump takes size units from b, which gets a new chunk when it is full.
func (a *arena) allocBump(b *bumper, kind recordKind, size uint32) ref {
	if b.end-b.off < size {
		a.retire(b, kind)
		a.refill(b, kind)
	}
	r := ref(b.off)
	b.off += size
	in := &a.info[r>>chunkUnitBits]
	in.used += size
	in.end += size
	return r
}

// refill gives b a whole chunk.
func (a *arena) refill(b *bumper, kind recordKind) {
	no := a.takeNumber()
	a.chunks[no] = a.takeChunk()
	a.info[no] = chunkInfo{state: chunkSmall, kind: kind, bumping: true}
	b.off = no << chunkUnitBits
	// The last unit of the ref space stays unused, so that off+size never
	// wraps around.
	b.end = b.off + chunkMask
}

// retire turns the rest of b's chunk into free blocks and leaves b empty.
func (a *arena) retire(b *bumper, kind recordKind) {
	if b.end == 0 {
		return
	}
	no := b.end >> chunkUnitBits
	in := &a.info[no]
	in.bumping = false
	in.end += b.end - b.off
	a.fillFree(kind, b.off, b.end)
	*b = bumper{}
	if in.used == 0 {
		a.releaseSmall(no)
	}
}

// fillFree makes free blocks of the units in [from, to).
func (a *arena) fillFree(kind recordKind, from, to uint32) {
	for from < to {
		class, size := classBelow(to - from)
		a.linkFree(kind, class, size, ref(from))
		from += size
	}
}

// release frees the block of a record of units.
func (a *arena) release(kind recordKind, r ref, units uint32) {
	if units > jumboUnits {
		a.releaseJumbo(r)
		return
	}
	class, size := classOf(units)
	a.linkFree(kind, class, size, r)
	no := uint32(r) >> chunkUnitBits
	in := &a.info[no]
	in.used -= size
	if in.used == 0 && !in.bumping {
		a.releaseSmall(no)
	}
}

// releaseSmall gives back a chunk in which every block is free.
func (a *arena) releaseSmall(no uint32) {
	in := &a.info[no]
	for off := uint32(0); off < in.end; {
		r := ref(no<<chunkUnitBits | off)
		units := uint32(*a.word(r, 0))
		class, _ := classBelow(units)
		a.unlinkFree(in.kind, class, r)
		off += units
	}
	a.giveChunk(a.chunks[no])
	a.giveNumber(no)
}

// linkFree marks the block free and puts it at the head of its list. Blocks that
// are too small for any record are marked only.
func (a *arena) linkFree(kind recordKind, class int, size uint32, r ref) {
	*a.word(r, 0) = uint64(freeMark)<<flagShift | uint64(size)
	if size < headerUnits {
		return
	}
	f := &a.free[kind]
	next := f.head[class]
	*a.word(r, 1) = uint64(next)
	if next != 0 {
		w := a.word(next, 1)
		*w = *w&(1<<32-1) | uint64(r)<<32
	}
	f.head[class] = r
	f.set[class/64] |= 1 << (class % 64)
}

// unlinkFree takes a free block out of its list.
func (a *arena) unlinkFree(kind recordKind, class int, r ref) {
	if class < headerUnits {
		return
	}
	f := &a.free[kind]
	links := *a.word(r, 1)
	next, prev := ref(links), ref(links>>32)
	if next != 0 {
		w := a.word(next, 1)
		*w = *w&(1<<32-1) | uint64(prev)<<32
	}
	if prev != 0 {
		w := a.word(prev, 1)
		*w = *w>>32<<32 | uint64(next)
		return
	}
	f.head[class] = next
	if next == 0 {
		f.set[class/64] &^= 1 << (class % 64)
	}
}

// nextSet returns the first class ≥ from that has a block, or 0.
func (f *freeLists) nextSet(from int) int {
	if from >= classes {
		return 0
	}
	i := from / 64
	w := f.set[i] >> (from % 64) << (from % 64)
	for w == 0 {
		i++
		if i == len(f.set) {
			return 0
		}
		w = f.set[i]
	}
	return i*64 + bits.TrailingZeros64(w)
}

// takeNumber returns an unused chunk number.
func (a *arena) takeNumber() uint32 {
	if n := len(a.freed); n > 0 {
		no := a.freed[n-1]
		a.freed = a.freed[:n-1]
		return no
	}
	if a.numbers == maxChunks {
		panic("index: more than 32 GiB of keys and versions")
	}
	a.numbers++
	return a.numbers - 1
}

// giveNumber makes a chunk number available again.
func (a *arena) giveNumber(no uint32) {
	a.chunks[no] = nil
	a.info[no] = chunkInfo{}
	a.freed = append(a.freed, no)
}

func (a *arena) takeChunk() *chunk {
	if n := len(a.spare); n > 0 {
		c := a.spare[n-1]
		a.spare = a.spare[:n-1]
		return c
	}
	a.chunkBytes += chunkUnits * 8
	return new(chunk)
}

func (a *arena) giveChunk(c *chunk) {
	if len(a.spare) < spareChunks {
		a.spare = append(a.spare, c)
		return
	}
	a.chunkBytes -= chunkUnits * 8
}

// allocJumbo gives a record memory of its own and as many consecutive chunk
// numbers as its length spans.
func (a *arena) allocJumbo(units uint32) ref {
	n := (units + chunkUnits - 1) / chunkUnits
	no := a.takeNumbers(n)
	mem := make([]uint64, max(units, chunkUnits))
	a.chunkBytes += int64(len(mem)) * 8
	a.chunks[no] = (*chunk)(mem)
	a.info[no] = chunkInfo{state: chunkJumbo, kind: keyKind, used: n, end: uint32(len(mem))}
	for i := no + 1; i < no+n; i++ {
		a.info[i] = chunkInfo{state: chunkTail}
	}
	return ref(no << chunkUnitBits)
}

func (a *arena) releaseJumbo(r ref) {
	no := uint32(r) >> chunkUnitBits
	in := a.info[no]
	a.chunkBytes -= int64(in.end) * 8
	for i := uint32(0); i < in.used; i++ {
		a.giveNumber(no + i)
	}
}

// takeNumbers returns the first of n consecutive unused chunk numbers.
func (a *arena) takeNumbers(n uint32) uint32 {
	if n == 1 {
		return a.takeNumber()
	}
	if a.numbers+n <= maxChunks {
		a.numbers += n
		return a.numbers - n
	}
	run := uint32(0)
	for no := uint32(1); no < a.numbers; no++ {
		run++
		if a.info[no].state != chunkFree {
			run = 0
		}
		if run == n {
			first := no + 1 - n
			kept := a.freed[:0]
			for _, f := range a.freed {
				if f < first || f > no {
					kept = append(kept, f)
				}
			}
			a.freed = kept
			return first
		}
	}
	panic("index: more than 32 GiB of keys and versions")
}

// roomBytes is how much more the ref space can surely hold in small records.
func (a *arena) roomBytes() int64 {
	return int64(maxChunks-int(a.numbers)+len(a.freed)) * chunkUnits * 8
}
