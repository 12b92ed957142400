package wal

import (
	"errors"
	"fmt"
	"time"

	"quire/disk"
)

// Device is where a log lives: a directory and a queue of durable writes to it.
// *disk.Dir and *disk.Mem are devices.
type Device interface {
	disk.FS
	NewQueue(depth int) (disk.Queue, error)
}

// Pos is the position of a record: its ordinal over the life of the log, from 1.
// Positions of records that a crash took away are given out again.
type Pos uint64

// Seq is the ordinal of a batch over the life of the log, from 1.
type Seq uint64

// Options of Open. The zero value of a field means its default.
type Options struct {
	// SegmentBytes is the size of a segment file, a multiple of 4096; default
	// 64 MiB. Larger: fewer roll-overs, more space held, longer scan at start.
	SegmentBytes int64
	// MaxBatchBytes is the size of a batch buffer and the largest write, a
	// multiple of 4096; default 1 MiB. A record that does not fit is split.
	MaxBatchBytes int
	// MaxBufferBytes bounds the memory of batches that are open, waiting or
	// in flight; default 16 MiB. Append blocks when it is used up.
	MaxBufferBytes int
	// QueueDepth is the largest number of writes in flight; default 3. 2 to 3
	// is best with the fair-share gate; 1 is a serial group commit.
	QueueDepth int
	// SpareSegments is how many trimmed segments are kept for recycling
	// beside the one that is ready ahead; default 1. 0 means the default, a
	// negative number none.
	SpareSegments int
	// IdleMark is how long the log must have been idle before an empty batch
	// is written that tells that all before it is durable, so that damage to
	// the last batch cannot pass for a torn write; default 200 ms. A negative
	// value switches it off. A Manual log writes none by itself.
	IdleMark time.Duration
	// CutDamaged cuts the end off a log whose newest batch was written as a whole and
	// damaged since, as if it had never been written, and says so at this and later
	// starts (Recovery.Doubtful); without it such a log is refused. For an owner who
	// can get what is missing from elsewhere.
	CutDamaged bool
	// MustExist makes Open fail with ErrNoLog instead of making a new log.
	MustExist bool
	// LogID is the identity of a log that is made; 0 means a random one. A
	// segment of another log is refused.
	LogID uint64
	// Manual starts no goroutine: the owner calls Maintain. For simulations.
	Manual bool
	// OnWrite, if set, is called for each completed write, with the log's lock
	// held: it must not block and not call the log.
	OnWrite func(WriteInfo)
}

// WriteInfo describes a completed write.
type WriteInfo struct {
	Bytes int           // as written, with header and padding
	Ops   int           // as given to Submit
	Took  time.Duration // from submission to completion
}

func (o Options) withDefaults() Options {
	set := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	batch, buffer, depth, spare := int64(o.MaxBatchBytes), int64(o.MaxBufferBytes), int64(o.QueueDepth), int64(o.SpareSegments)
	set(&o.SegmentBytes, 64<<20)
	set(&batch, min(1<<20, o.SegmentBytes-blockBytes))
	set(&buffer, 16<<20)
	set(&depth, 3)
	set(&spare, 1)
	set((*int64)(&o.IdleMark), int64(200*time.Millisecond))
	o.MaxBatchBytes, o.QueueDepth, o.SpareSegments = int(batch), int(depth), int(max(spare, 0))
	// One buffer is open while QueueDepth are in flight and one waits for a slot.
	o.MaxBufferBytes = int(max(buffer, batch*(depth+2)))
	return o
}

// Validate reports everything that is wrong with the options.
func (o Options) Validate() error {
	var errs []error
	if o.SegmentBytes%blockBytes != 0 || o.SegmentBytes < 2*blockBytes {
		errs = append(errs, fmt.Errorf("SegmentBytes %d is not a multiple of %d of at least two", o.SegmentBytes, blockBytes))
	}
	if o.MaxBatchBytes%blockBytes != 0 || o.MaxBatchBytes <= 0 || int64(o.MaxBatchBytes) > o.SegmentBytes-blockBytes {
		errs = append(errs, fmt.Errorf("MaxBatchBytes %d is not a multiple of %d that fits into a segment of %d", o.MaxBatchBytes, blockBytes, o.SegmentBytes))
	}
	if o.QueueDepth < 1 || o.QueueDepth > 64 {
		errs = append(errs, fmt.Errorf("QueueDepth %d is not within 1 and 64", o.QueueDepth))
	}
	return errors.Join(errs...)
}
