package pagestore

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"quire/disk"
)

// Store is an open page store. See doc.go for who may call what.
type Store struct {
	fsys  disk.FS
	opts  Options
	cache cache
	pins  pins

	// segments is what Read finds a segment in; replaced as a whole.
	segments atomic.Pointer[map[segmentID]*segment]
	// writer belongs to the goroutine that appends, copier to the one that
	// reclaims, but for their queues.
	writer, copier appender

	incarnation uint64
	storeID     uint64

	// mu is never held across I/O or a callback.
	mu struct {
		sync.Mutex
		// progress is broadcast when pages have been written, when they could
		// not be, and at Close.
		progress sync.Cond
		order    []*segment // all segments, oldest first
		nextID   segmentID
		dirty    int64  // bytes of sealed pages not yet written
		urgent   int    // how many wait for the write behind
		cuts     uint64 // Cuts taken
		rollCopy bool   // Roll wants the copier's segment ended, too
		// uncut are the segments with copies that no checkpoint may have yet:
		// the segments that they were copied from are not retired.
		uncut    []*segment
		noSpace  error  // the disk is full, as far as known
		failures uint64 // writes behind that failed for lack of space
		err      error  // final: fatal error or ErrClosed
		closed   bool
	}

	// wake tells the write behind to look again. flushing is held by whoever
	// writes pages: the goroutine, or in Inline mode the caller.
	wake     chan struct{}
	flushing sync.Mutex
	staging  []byte // belongs to the holder of flushing
	done     sync.WaitGroup
	fatal    sync.Once

	// committing serializes commits; everything in it belongs to its holder.
	committing struct {
		sync.Mutex
		roots   roots
		cut     uint64 // the newest Cut committed
		last    manifest
		state   *shared  // the state file that last names, nil if it has none
		litter  []string // state files of attempts that failed
		dropped []*doomed
	}

	// reclaiming serializes Reclaim, scrubbing Scrub.
	reclaiming struct {
		sync.Mutex
		unfinished *segment   // half moved by an interrupted Reclaim
		moved      []*segment // wholly moved, not yet retired
	}
	scrubbing struct {
		sync.Mutex
		round []*segment // still to do in this round
		off   int64      // in round[0]
	}

	rootBytes atomic.Int64 // of slots and state file
	pageBytes atomic.Int64 // of segments, footers included
	counters  counters
}

// Append copies rec into the open page and returns where it lies. Read finds it
// at once; it is durable when a Cut taken afterwards has been committed. Append
// waits only while more than DirtyBytes are not yet written behind. It belongs
// to one goroutine, together with Alloc, Cut and Roll.
func (s *Store) Append(rec []byte) (Ref, error) {
	ref, room, err := s.writer.alloc(len(rec))
	if err != nil {
		return 0, err
	}
	copy(room, rec)
	return ref, nil
}

// Alloc is Append without the copy: the caller fills the n bytes before its next
// call of Append, Alloc, Cut or Roll and before it lets others know the Ref.
func (s *Store) Alloc(n int) (Ref, []byte, error) { return s.writer.alloc(n) }

// Roll ends the segments that are being appended to, so that the next Commit
// seals them and Reclaim can get at them.
func (s *Store) Roll() {
	s.writer.roll()
	if s.reclaiming.TryLock() {
		s.copier.roll()
		s.reclaiming.Unlock()
		return
	}
	s.mu.Lock()
	s.mu.rollCopy = true
	s.mu.Unlock()
}

// Free counts the record at ref as dead. It reads nothing and moves nothing; it
// makes the segment a candidate for Reclaim sooner. Any goroutine.
func (s *Store) Free(ref Ref) { s.count(ref, 1) }

// ClearLive counts every record as dead; Keep then counts one as live. Together
// they replace calling Free for each record that the owner's index does not
// keep after start.
func (s *Store) ClearLive() {
	for _, seg := range s.list() {
		seg.tally.clear()
	}
}

// Keep undoes Free, see ClearLive. Any goroutine.
func (s *Store) Keep(ref Ref) { s.count(ref, -1) }

func (s *Store) count(ref Ref, delta int64) {
	if seg := s.segment(ref.segment()); seg != nil {
		seg.tally.free(ref.page(), delta)
	}
}

// Incarnation counts the Opens of this store, from 1.
func (s *Store) Incarnation() uint64 { return s.incarnation }

// NoSpace returns the reason why the write behind stands still, or nil.
func (s *Store) NoSpace() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.noSpace
}

// Retire ends all writing, as Close does, and leaves what is there readable
// until Close: for a store whose place another one has taken.
func (s *Store) Retire() {
	s.mu.Lock()
	s.mu.err = ErrClosed
	s.mu.progress.Broadcast()
	s.mu.Unlock()
	s.nudge()
	s.done.Wait()
}

// Close stops the write behind and closes the files. What was not committed is
// lost. No other call may be under way but those of readers, which fail.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.mu.closed = true
	err := s.mu.err
	s.mu.Unlock()
	s.Retire()
	s.committing.Lock()
	defer s.committing.Unlock()
	s.segments.Store(&map[segmentID]*segment{})
	s.closeFiles()
	if err == ErrClosed {
		err = nil
	}
	return err
}

// fail makes err the final state, unless there is one, and tells the owner.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	if s.mu.err == nil {
		s.mu.err = err
	}
	final := s.mu.err
	s.mu.progress.Broadcast()
	s.mu.Unlock()
	if final != ErrClosed {
		s.fatal.Do(func() { s.opts.OnFatal(final) })
	}
	return final
}

func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.err
}

func (s *Store) segment(id segmentID) *segment { return (*s.segments.Load())[id] }

// list returns all segments, oldest first.
func (s *Store) list() []*segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*segment(nil), s.mu.order...)
}

// addSegment registers a new, empty segment. Its file comes with its first
// written page, so that no writer waits for a directory.
func (s *Store) addSegment(from origin) (*segment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.freeIDLocked()
	if err != nil {
		return nil, err
	}
	epoch := s.incarnation<<32 | s.opts.Nonce()>>32
	seg := newSegment(id, epoch, from, s.opts.SegmentBytes)
	s.mu.order = append(s.mu.order, seg)
	s.publishLocked(func(m map[segmentID]*segment) { m[id] = seg })
	return seg, nil
}

// freeIDLocked returns the next id that no segment has. They go round, so that
// their number does not limit what can be written in a store's life.
func (s *Store) freeIDLocked() (segmentID, error) {
	taken := *s.segments.Load()
	for range len(taken) + 1 {
		id := s.mu.nextID
		s.mu.nextID = id%maxSegmentID + 1
		if taken[id] == nil {
			return id, nil
		}
	}
	return 0, ErrIDsExhausted
}

// publishLocked replaces the table that Read uses by a changed copy.
func (s *Store) publishLocked(change func(map[segmentID]*segment)) {
	m := maps.Clone(*s.segments.Load())
	change(m)
	s.segments.Store(&m)
}

// counters feed Stats.
type counters struct {
	loads, loadBytes       atomic.Uint64
	writes, writeBytes     atomic.Uint64
	commits, copiedBytes   atomic.Uint64
	reclaimed, stallMicros atomic.Uint64
}

// Stats is a set of numbers for metrics; counts since Open.
type Stats struct {
	Segments      int
	CacheBytes    int64  // pages in memory that are also on the disk
	DirtyBytes    int64  // pages in memory that are not
	Loads         uint64 // pages read from the disk for Read
	LoadBytes     uint64
	Evictions     uint64
	Writes        uint64 // writes behind
	WriteBytes    uint64
	Commits       uint64
	CopiedBytes   uint64        // records moved by Reclaim
	ReclaimedSegs uint64        // segments emptied by Reclaim
	AppendStall   time.Duration // time that Append waited for the disk
}

// Stats returns the present numbers.
func (s *Store) Stats() Stats {
	cached, evictions := s.cache.usage()
	s.mu.Lock()
	dirty, segments := s.mu.dirty, len(s.mu.order)
	s.mu.Unlock()
	c := &s.counters
	return Stats{
		Segments: segments, CacheBytes: cached, DirtyBytes: dirty,
		Loads: c.loads.Load(), LoadBytes: c.loadBytes.Load(), Evictions: evictions,
		Writes: c.writes.Load(), WriteBytes: c.writeBytes.Load(),
		Commits: c.commits.Load(), CopiedBytes: c.copiedBytes.Load(), ReclaimedSegs: c.reclaimed.Load(),
		AppendStall: time.Duration(c.stallMicros.Load()) * time.Microsecond,
	}
}
