// Package wal is a durable, ordered log of opaque records: append, wait until
// durable, read back at the next start, trim at the front. It knows batches,
// segments and positions; it does not know what a record means.
//
// # Terms
//
//   - record: the caller's bytes. Its position (Pos) is its ordinal, from 1.
//   - batch: what one write carries: a header and frames. Its sequence (Seq) is
//     its ordinal, from 1. A frame is a record, or a piece of one that was too
//     large for its batch; the pieces follow each other without another record
//     in between.
//   - segment: one file, numbered from 1 without a gap. Its number is also the
//     epoch in each of its batches: a file is used again under another number,
//     and what is left in it of its former life does not count.
//   - incarnation: one opening of the log, numbered from 1.
//   - durable hint: the sequence, in each batch, up to which all batches were
//     known to be durable when it was written.
//   - mark: a batch without frames, written for its hint: when the log is idle,
//     and by Close.
//   - sector: 512 bytes, the unit that a disk writes as a whole or not at all.
//     Stamp: the end of each sector of a batch, which says whose it is.
//   - ready ahead: a segment with header and name that has no batch yet. Spare:
//     a file that can become one.
//
// # Files
//
// In the directory of the log, n being 16 hexadecimal digits:
//
//	n.wal        segment n
//	n.spare      a file, written over its whole length once, for reuse
//	n.spare.tmp  one that is being made; removed by Open
//
// A segment gets its name only when it is written over its whole length and its
// header is durable: n.spare.tmp → n.spare → header → n.wal. Trimming goes from
// the front, one file after another: n.wal → n.spare, or removal.
//
// # Format, version 2
//
// Little-endian. A segment is a header block of 4096 bytes and then batches, each
// at a multiple of 4096, without a gap. A batch that does not fit any more is the
// first of the next segment; what is left of the segment stays unused.
//
// Segment header, at offset 0; the rest of its block is 0:
//
//	offset  bytes  field
//	0       8      xxhash64 of bytes 8 to 63
//	8       8      magic "quirewal"
//	16      4      format version, 2
//	20      4      64, the length of this header
//	24      8      segment number
//	32      8      log identity, the same in all segments
//	40      8      file size in bytes
//	48      16     0
//
// Batch. Header and frames are dealt out to sectors, 508 bytes to each; the last 4
// bytes of a sector are the stamp. The rest of the last sector is 0, that of the
// last block too, and not covered by the hash. Offsets of header and frames, before
// they are dealt out:
//
//	offset  bytes  field
//	0       8      xxhash64 of bytes 8 to the end of the last sector, stamps included
//	8       4      magic "BTCH"
//	12      2      format version, 2
//	14      2      flags: 1 first of an incarnation, 2 mark, 4 mark of a Close,
//	               8 first of an incarnation that cut off a damaged end
//	16      8      segment number
//	24      8      incarnation
//	32      8      sequence
//	40      8      hash of the batch before; of batch 1: the inverted log identity
//	48      8      durable hint
//	56      8      number of complete records before this batch
//	64      4      length of the frames in bytes
//	68      4      number of frames
//	72      8      log identity
//	80      8      xxhash64 of bytes 8 to 79
//	88      …      frames
//
// The stamp is a hash of log identity, segment number, incarnation and sequence
// (sector.go).
//
// Frame:
//
//	0       4      bits 0–29 length, bit 30 begins a record, bit 31 ends one
//	4       …      bytes
//
// # Writing
//
// Batches are written O_DIRECT|O_DSYNC, up to QueueDepth at once, in any order of
// completion. A record is acknowledged when its batch and all before it have
// completed. The first thing an incarnation writes is its open batch, alone.
//
// # Recovery
//
//  1. The segments' numbers must have no gap (ErrMissingSegment), headers and
//     file sizes must be right (ErrCorrupt, ErrVersion). A last segment of no
//     length is taken as never written.
//  2. The prefix rule. From the first batch on, a batch is accepted only if its
//     hash is right, its epoch is its segment's number, its sequence is the next,
//     the hash of the batch before is that of the batch accepted before, its
//     count of records agrees, and its incarnation is the same or, for an open
//     batch, one more. The first that is not ends the log there. In a log that
//     was trimmed (first segment not 1) the first batch must be there.
//  3. All blocks behind the end are looked at for whole batches. If one has a
//     durable hint that covers the missing batch, that one was durable once:
//     ErrCorrupt, with file and offset. So it is, without Options.CutDamaged, if
//     all of the missing batch was written, see below. Otherwise what is behind the
//     end is a torn tail and is reported (Recovery.Cut…).
//  4. Accepted batches of which no hint tells that they are durable are written
//     again, byte for byte. The beginning of a record without its end is dropped.
//  5. The open batch of the new incarnation is written behind the end, and only
//     when it is durable anything else.
//
// # Crash argument
//
// Let batches up to d be complete when the power goes off, and d+1…d+k submitted
// and not complete (k ≤ QueueDepth). Each of those is on the disk as a whole, in
// part, or not at all, whatever became of the others.
//
//   - None of d+1 is there: its place holds zeroes, or what recycling left there,
//     whose epoch is lower. The log ends with d. Nothing more was acknowledged.
//   - A part of d+1 is there: the hash is wrong. The log ends with d.
//   - All of d+1 is there: it is accepted although it was not acknowledged, and so
//     on with d+2. Step 4 makes it durable before anybody sees it.
//   - d+2 is there and d+1 is not: d+2 has a hint of at most d, since it was
//     submitted before d+1 had completed. It accuses nobody and is not accepted.
//     Later it may lie behind the new batch d+1 again. It cannot be taken for its
//     successor: the new d+1 is of another incarnation, hence has another hash,
//     and d+2 names the hash of the old one; and its incarnation is lower.
//   - The crash is in step 4: the same bytes are being written; sectors are old or
//     new, which is the same.
//   - The crash is in step 5: the open batch is there or not, as any batch. If
//     not, the next incarnation has the same number and writes the same bytes.
//   - A batch crosses into the next segment: that segment had header and name
//     before the batch was submitted.
//   - The crash is while a segment is made: there is a file .tmp or .spare, or the
//     name is there with everything in it.
//   - The crash is while trimming: the segment is there or not. All before it are
//     gone, all after it are there. The new first segment begins with a durable
//     batch: else it is not trimmed so far.
//   - Only the process dies: writes in flight may be visible and not durable.
//     Step 4 is for them; disk.OpenDir makes names durable.
//   - A write fails: the log is broken for good, nothing is acknowledged any more,
//     and the next Open sees one of the cases above.
//
// Damage at rest. Any flipped bit under a hash is noticed. In a batch that some
// later batch's hint covers it is ErrCorrupt. In the newest batches, of which no
// hint tells, the stamps tell it from a torn write: of a torn batch some sector was
// never written, and has another stamp or none. If all have it, the batch was on
// the disk as a whole and may have been acknowledged, and what is wrong with it
// came later. (The first sector alone tells it if its header is not intact: it was
// written as a whole, so that it was right once. A stamp may have lost one bit.) A
// log that ends so is refused, or, with Options.CutDamaged, cut; the open batch
// that takes the damaged one's place says so, so that a crash cannot make it be
// forgotten (Recovery.Doubtful). What damage cannot be told from a torn write: a
// sector of which the stamp is gone too, and a batch that is gone as a whole, as
// after a write that the disk acknowledged and lost. Idle marks and the mark of
// Close keep the window for that small. A log that ends with the mark of a Close,
// and nothing cut, is whole (Recovery.Clean).
//
// A false alarm, a sector whose old content ends with the stamp by chance, has a
// probability of one in a hundred million for each torn batch.
//
// What the log cannot notice alone, and its owner must: that all segments are gone
// (Recovery.Fresh), that the first ones are (Recovery.FirstPos), that the last
// ones are (Recovery.LastPos).
//
// # Ownership
//
// Append and Submit have one caller at a time, Wait has one goroutine. One
// goroutine of the log's own, started by Open and awaited by Close, makes and
// recycles segments and writes idle marks. Lock order: caller's lock, then
// maintaining, then mu; nobody who holds mu does I/O except the submission of a
// write and the closing of a handle. Buffers are bounded by MaxBufferBytes; when they are used up Append
// waits, and takes completions itself if nobody is in Wait, so that the caller's
// lock may be one that Wait's caller needs.
//
// # How it fails
//
// *WriteError is final: after a failed durable write nobody knows what is on the
// disk, so the process must stop and recover. ENOSPC while a segment is made ready
// ahead is not yet an error; Stats().FillErr tells it and AheadBytes how far the
// log can go on; it is one when a batch needs the segment.
package wal
