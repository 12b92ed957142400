package wal

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"quire/disk"
)

// Log is an open log.
//
// Append and Submit belong to one caller at a time (the raft room, under its
// lock). Wait belongs to one goroutine. TrimBefore, Mark, Durable and Stats may
// be called by anybody.
//
// Nothing here allocates per record or per batch: batches, their buffers and
// the lists below are made once and reused.
type Log struct {
	dev   Device
	queue disk.Queue
	opts  Options
	logID uint64

	kick chan struct{} // wakes the background goroutine; holds one token
	stop chan struct{} // ends it
	idle sync.WaitGroup

	maintaining sync.Mutex // held over one Maintain; taken before mu

	mu   sync.Mutex
	cond *sync.Cond // progress: a completion, a segment, an error, the end

	// Writing.
	open     *batch   // takes records; nil until the next Append
	sealed   []*batch // full or forced, waiting for a slot or a segment, in order
	flying   []*batch // submitted, in order of seq
	slots    []*batch // flying by token
	free     []*batch // reused last in, first out, so that few pages stay resident
	batches  int      // that exist
	appended Pos      // of the newest record
	// lastHash and lastSeq are those of the newest submitted batch.
	lastHash    uint64
	lastSeq     Seq
	incarnation uint64
	flyingOps   int

	// Durability.
	durablePos Pos
	durableSeq Seq
	told       Pos  // what Wait returned last
	reaping    bool // somebody is in queue.Wait
	marked     bool // the newest batch is a mark
	lastWrite  time.Time

	// Segments.
	segs      []*segment // in order; the last one is being written
	ahead     []*segment // ready to be written next, in order
	spares    []spare    // files to make segments of
	trimTo    Pos
	starved   bool  // a batch waits for a segment
	fillErr   error // why there is no segment ahead
	fillTried time.Time

	closing bool
	err     error // final
	stats   Stats
	done    []disk.Completion // of the reaper
}

// batch is the unit of writing.
type batch struct {
	buf    []byte // MaxBatchBytes, aligned
	used   int    // bytes, with the header and without stamps
	frames uint32
	flags  uint16
	ops    int
	want   bool // Submit was called for it
	token  uint64

	basePos Pos // complete records in the log before it
	endPos  Pos // … and after it
	lastPos Pos // of the newest record of which it holds a piece

	seq     Seq
	seg     *segment
	off     int64
	size    int64
	started time.Time
	done    bool
}

// segment is one file of the log.
type segment struct {
	name      string
	number    uint64
	sizeBytes int64
	file      disk.File // opened Direct; nil when nothing will be written
	off       int64     // where the next batch goes
	flying    int       // writes
	lastPos   Pos       // of the newest record of which it holds a piece
	lastSeq   Seq       // of its newest batch
	durable   bool      // its first batch is durable
}

// spare is a file, filled once, that can become a segment.
type spare struct {
	name string
	num  uint64
}

// Stats is a snapshot of counters and gauges.
type Stats struct {
	Records     uint64 // appended
	RecordBytes uint64
	Batches     uint64 // completed writes
	BatchBytes  uint64 // … with headers and padding
	Appended    Pos
	Durable     Pos
	InFlight    int
	// OldestInFlight is how long the oldest write has been in flight, 0 if
	// none is: a watchdog's measure of a disk that hangs.
	OldestInFlight time.Duration
	BlockedCount   uint64 // Appends that had to wait for a buffer
	BlockedTime    time.Duration
	Segments       int   // live
	SegmentBytes   int64 // all files of the log: live, ahead and spare
	AheadBytes     int64 // room left without making a file
	// FillErr is why no segment could be made ready ahead, nil if one is. The
	// log goes on in AheadBytes, and then fails for good.
	FillErr error
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Appended, s.Durable = l.appended, l.durablePos
	if s.InFlight = len(l.flying); s.InFlight > 0 {
		s.OldestInFlight = time.Since(l.flying[0].started)
	}
	s.Segments = len(l.segs)
	s.SegmentBytes = int64(len(l.spares)) * l.opts.SegmentBytes
	for _, seg := range l.segs {
		s.SegmentBytes += seg.sizeBytes
	}
	cur := l.segs[len(l.segs)-1]
	s.AheadBytes = cur.sizeBytes - cur.off
	for _, seg := range l.ahead {
		s.SegmentBytes += seg.sizeBytes
		s.AheadBytes += seg.sizeBytes - blockBytes
	}
	s.FillErr = l.fillErr
	return s
}

// Durable returns the position up to which all records are durable.
func (l *Log) Durable() Pos {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durablePos
}

// InFlight returns how many batches are submitted, or sealed to be: as long as
// it is not 0, Wait will come to an end.
func (l *Log) InFlight() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.flying) + len(l.sealed)
}

// failLocked makes err the log's final error and wakes everybody. The queue is
// closed so that a Wait that sits in it comes back; in a Manual log nobody does.
func (l *Log) failLocked(err error) {
	if l.err != nil {
		return
	}
	l.err = err
	l.cond.Broadcast()
	l.wake()
	if l.queue != nil && !l.opts.Manual {
		l.idle.Add(1)
		go func() {
			defer l.idle.Done()
			_ = l.queue.Close() // the first error is the one that counts
		}()
	}
}

// wake tells the background goroutine that there is something to do.
func (l *Log) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Close writes what was appended, waits for everything in flight, writes a mark
// that tells so, and releases the log. A failed log is released too, and its
// error returned. No Append, Submit or Mark may run beside or after it; Wait
// returns ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closing = true
	err := l.drainLocked()
	if err == nil {
		l.sealMarkLocked(flagMark | flagClose)
		err = l.drainLocked()
	}
	l.cond.Broadcast()
	l.mu.Unlock()

	close(l.stop)
	if e := l.queue.Close(); e != nil && !errors.Is(e, disk.ErrClosed) && err == nil {
		err = fmt.Errorf("wal: close: %w", e)
	}
	l.idle.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.reaping { // it has ErrClosed by now
		l.cond.Wait()
	}
	if e := l.releaseLocked(); e != nil && err == nil {
		err = e
	}
	if l.err == nil {
		l.err = ErrClosed
	}
	l.cond.Broadcast()
	return err
}

// drainLocked writes the open batch and waits until nothing is in flight.
func (l *Log) drainLocked() error {
	if l.open != nil && l.open.frames > 0 {
		l.sealLocked()
	}
	for len(l.flying)+len(l.sealed) > 0 && l.err == nil {
		l.progressLocked()
	}
	return l.err
}

// releaseLocked closes the files and frees the buffers.
func (l *Log) releaseLocked() error {
	var first error
	for _, list := range [][]*segment{l.segs, l.ahead} {
		for _, seg := range list {
			if err := seg.close(); err != nil && first == nil {
				first = err
			}
		}
	}
	if l.open != nil {
		l.free = append(l.free, l.open)
	}
	l.free = append(append(l.free, l.sealed...), l.flying...)
	for _, b := range l.free {
		disk.FreeBuf(b.buf)
	}
	l.open, l.sealed, l.flying, l.free = nil, nil, nil, nil
	return first
}

// close gives the handle back.
func (s *segment) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
