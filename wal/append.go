package wal

import (
	"encoding/binary"
	"fmt"
	"time"

	"quire/disk"
)

// The way of a record, all of it under mu:
//
//	Append   copies it into the open batch                    (sequential)
//	Submit   seals the open batch, if the gate permits        (sequential)
//	pump     starts sealed batches while there is a slot      (in order)
//	         … up to QueueDepth writes in flight at once …
//	settle   takes completions in any order, advances the     (in order)
//	         durable position over the contiguous prefix

// Append copies rec to the end of the log and returns its position. It is
// durable when Durable() ≥ that position, after a Submit.
//
// Append waits for the disk only if MaxBufferBytes of batches are already
// waiting for it. Then it takes completions itself if nobody is in Wait, so the
// caller may hold a lock that Wait's caller wants.
//
// An error other than ErrRecordTooLarge is final: the log is broken and the
// process must stop.
func (l *Log) Append(rec []byte) (Pos, error) { return l.AppendParts(rec) }

// AppendParts appends the concatenation of the parts as one record.
func (l *Log) AppendParts(parts ...[]byte) (Pos, error) {
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	if total > maxRecordBytes {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrRecordTooLarge, total, maxRecordBytes)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	if b := l.open; b != nil && total > b.room() && total <= capacity(l.opts.MaxBatchBytes)-headerBytes-frameBytes {
		l.sealLocked() // it fits in a batch of its own: do not split it
	}
	pos := l.appended + 1
	src := gather{parts: parts}
	for left, flags := total, uint32(frameFirst); ; flags = 0 {
		b, err := l.roomLocked()
		if err != nil {
			return 0, err
		}
		n := min(left, b.room())
		if left -= n; left == 0 {
			flags |= frameLast
		}
		b.put(&src, n, flags)
		b.lastPos = pos
		if left == 0 {
			b.endPos = pos
			break
		}
		l.sealLocked()
	}
	l.appended = pos
	l.stats.Records++
	l.stats.RecordBytes += uint64(total)
	return pos, nil
}

// gather reads parts one after another.
type gather struct {
	parts [][]byte
	i, at int
}

// read fills dst.
func (g *gather) read(dst []byte) {
	for len(dst) > 0 {
		n := copy(dst, g.parts[g.i][g.at:])
		dst, g.at = dst[n:], g.at+n
		if g.at == len(g.parts[g.i]) {
			g.i, g.at = g.i+1, 0
		}
	}
}

// room returns how many bytes of a record still fit.
func (b *batch) room() int { return capacity(len(b.buf)) - b.used - frameBytes }

// put adds a frame of the next n bytes of src.
func (b *batch) put(src *gather, n int, flags uint32) {
	binary.LittleEndian.PutUint32(b.buf[b.used:], uint32(n)|flags)
	b.used += frameBytes
	src.read(b.buf[b.used : b.used+n])
	b.used += n
	b.frames++
}

// roomLocked returns the open batch, a new one if need be. It waits if the
// buffers are used up.
func (l *Log) roomLocked() (*batch, error) {
	if b := l.open; b != nil {
		// Room for no byte at all would make an empty piece.
		if b.room() > 0 {
			return b, nil
		}
		l.sealLocked()
	}
	if b := l.takeLocked(); b != nil {
		l.open = b
		return b, nil
	}
	start := time.Now()
	l.stats.BlockedCount++
	for {
		if l.err != nil {
			return nil, l.err
		}
		if b := l.takeLocked(); b != nil {
			l.stats.BlockedTime += time.Since(start)
			l.open = b
			return b, nil
		}
		l.progressLocked()
	}
}

// takeLocked returns an empty batch, or nil if there are as many as may be.
func (l *Log) takeLocked() *batch {
	var b *batch
	switch n := len(l.free); {
	case n > 0:
		b, l.free = l.free[n-1], l.free[:n-1]
	case l.batches < cap(l.free):
		b = &batch{buf: disk.AlignedBuf(l.opts.MaxBatchBytes)}
		l.batches++
	default:
		return nil
	}
	// What the batch before it ends with, this one begins with.
	end := l.appended
	*b = batch{buf: b.buf, used: headerBytes, basePos: end, endPos: end, lastPos: end}
	return b
}

// Submit asks for the open batch to be written. ops is the number of operations
// that wait for what was appended since the last Submit; it is the weight in
// the fair-share gate:
//
// With writes in flight a batch is held back until it carries its share of the
// outstanding operations, pending·QueueDepth ≥ pending + inflight, so that
// batches stay large and evenly spread. What is held back is written by a later
// Submit or, without any further call, by Wait when completions arrive; with
// nothing in flight it is written at once. force writes whatever the gate says.
//
// Submit never waits. An error is final.
func (l *Log) Submit(ops int, force bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	b := l.open
	if b == nil { // the last record filled its batch, which is on its way
		l.creditLocked(ops)
		return nil
	}
	b.ops += ops
	b.want = true
	if force {
		l.sealLocked()
	} else {
		l.gateLocked()
	}
	return l.err
}

// creditLocked adds ops to the newest batch.
func (l *Log) creditLocked(ops int) {
	switch {
	case len(l.sealed) > 0:
		l.sealed[len(l.sealed)-1].ops += ops
	case len(l.flying) > 0:
		l.flying[len(l.flying)-1].ops += ops
		l.flyingOps += ops
	}
}

// gateLocked writes the open batch if it is wanted and has its fair share.
func (l *Log) gateLocked() {
	b := l.open
	if b == nil || !b.want || len(l.sealed) > 0 {
		return
	}
	if k := len(l.flying); k > 0 {
		pending := max(b.ops, 1)
		if k >= l.opts.QueueDepth || pending*l.opts.QueueDepth < pending+l.flyingOps {
			return
		}
	}
	l.sealLocked()
}

// sealLocked ends the open batch and starts its write when its turn comes.
func (l *Log) sealLocked() {
	l.sealed = append(l.sealed, l.open)
	l.open = nil
	l.pumpLocked()
}

// pumpLocked starts sealed batches, in order, while there is a slot and a segment.
func (l *Log) pumpLocked() {
	for len(l.sealed) > 0 && len(l.flying) < l.opts.QueueDepth && l.err == nil {
		if !l.startLocked(l.sealed[0]) {
			return
		}
		n := copy(l.sealed, l.sealed[1:])
		l.sealed = l.sealed[:n]
	}
}

// startLocked submits the write of b. It reports false if there is no segment
// to write to, yet or for good.
func (l *Log) startLocked(b *batch) bool {
	h := batchHeader{
		flags:       b.flags,
		incarnation: l.incarnation,
		seq:         l.lastSeq + 1,
		prevHash:    l.lastHash,
		durable:     l.durableSeq,
		pos:         b.basePos,
		payload:     uint32(b.used - headerBytes),
		frames:      b.frames,
		logID:       l.logID,
	}
	seg := l.segs[len(l.segs)-1]
	if seg.off+h.size() > seg.sizeBytes {
		if seg = l.rollLocked(); seg == nil {
			return false
		}
	}
	h.segment = seg.number
	l.lastHash = h.seal(b.buf)
	l.lastSeq = h.seq
	b.seq, b.seg, b.off, b.size, b.done = h.seq, seg, seg.off, h.size(), false
	for i, other := range l.slots {
		if other == nil {
			b.token = uint64(i)
			break
		}
	}
	l.slots[b.token] = b
	l.flying = append(l.flying, b)
	l.flyingOps += max(b.ops, 1)
	b.ops = max(b.ops, 1)
	before := l.aheadDueLocked()
	seg.off += h.size()
	seg.flying++
	if !before && l.aheadDueLocked() {
		l.wake()
	}
	seg.lastPos, seg.lastSeq = b.lastPos, b.seq
	l.marked = b.flags&flagMark != 0
	b.started = time.Now()
	err := l.queue.Submit(disk.Write{File: seg.file, Buf: b.buf[:h.size()], Off: b.off, Token: b.token})
	if err != nil {
		l.failLocked(&WriteError{File: seg.name, Off: b.off, Seq: b.seq, Err: err})
	}
	return true
}

// rollLocked makes the segment that is ready ahead the current one.
func (l *Log) rollLocked() *segment {
	if len(l.ahead) == 0 {
		l.starved = true
		l.wake()
		return nil
	}
	seg := l.ahead[0]
	n := copy(l.ahead, l.ahead[1:])
	l.ahead = l.ahead[:n]
	old := l.segs[len(l.segs)-1]
	l.segs = append(l.segs, seg)
	l.wake() // for the next one ahead
	l.retireLocked(old)
	return seg
}

// retireLocked closes the handle of a segment that will not be written again.
func (l *Log) retireLocked(seg *segment) {
	if seg.flying > 0 || seg == l.segs[len(l.segs)-1] {
		return
	}
	if err := seg.close(); err != nil {
		l.failLocked(&WriteError{File: seg.name, Err: err})
	}
}

// sealMarkLocked writes an empty batch that tells that all before it is durable.
func (l *Log) sealMarkLocked(flags uint16) {
	b := l.takeLocked()
	if b == nil {
		return
	}
	b.flags = flags
	l.sealed = append(l.sealed, b)
	l.pumpLocked()
}

// Mark writes an empty batch that tells that all before it is durable, if the
// log is idle and its newest batch is no mark. Damage to the batch before it is
// then told from a torn write. It does not wait.
func (l *Log) Mark() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil && !l.closing && !l.marked && l.open == nil && len(l.sealed)+len(l.flying) == 0 {
		l.sealMarkLocked(flagMark)
	}
	return l.err
}
