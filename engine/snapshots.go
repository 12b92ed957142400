package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"quire/disk"
	"quire/engine/etcdfile"
)

// ErrNoSnapshotDir says that Options.SnapshotDir is not set.
var ErrNoSnapshotDir = errors.New("etcdserver: this server has no directory for snapshots")

// ErrSnapshotSpace says that a snapshot's temporary file would fill the disk.
var ErrSnapshotSpace = errors.New("etcdserver: no space for a snapshot")

const (
	// maxSnapshots bounds the files that exist at one time. A client that reads
	// slowly keeps one for as long; later ones wait for a place.
	maxSnapshots = 4
	// snapshotReserve is what a snapshot leaves free on the disk, in bytes: what the
	// store may have to write meanwhile, so that a snapshot does not raise NOSPACE.
	snapshotReserve = 32 << 20
)

// snapshots makes files for those who ask for one. One is written at a time;
// whoever asks meanwhile shares the next, so that everything that was
// acknowledged before the question is in the answer.
type snapshots struct {
	dir    string
	places chan struct{} // holds one token for each file
	turn   chan struct{} // held by the one who writes
	mu     struct {
		sync.Mutex
		next *snapshotJob // not begun: may still be joined; nil: none waits
	}
}

// snapshotJob is one file in the making. Its fields are snapshots.mu's.
type snapshotJob struct {
	done   chan struct{}
	shares int
	file   *etcdfile.Temp
	err    error
}

// errRetry says that the one who wrote has gone before the file was whole.
var errRetry = errors.New("engine: snapshot abandoned")

func (s *snapshots) init(dir string) error {
	s.dir = dir
	s.places, s.turn = make(chan struct{}, maxSnapshots), make(chan struct{}, 1)
	if dir == "" {
		return nil
	}
	return etcdfile.CleanDir(dir)
}

// Snapshot is one reader's share of a finished etcd database.
type Snapshot struct {
	s    *snapshots
	job  *snapshotJob
	once sync.Once
}

// Snapshot writes the present state, everything that was applied before the
// call, as an etcd database. The caller closes it. It waits while maxSnapshots
// others are open.
func (e *Engine) Snapshot(ctx context.Context) (*Snapshot, error) {
	s := &e.snapshots
	if s.dir == "" {
		return nil, ErrNoSnapshotDir
	}
	for {
		job, mine := s.join()
		if mine {
			s.run(ctx, e, job)
		}
		select {
		case <-job.done:
		case <-ctx.Done():
			s.leave(job)
			return nil, ctx.Err()
		}
		switch {
		case job.err == nil:
			return &Snapshot{s: s, job: job}, nil
		case !errors.Is(job.err, errRetry) || ctx.Err() != nil:
			s.leave(job)
			return nil, job.err
		}
		s.leave(job)
	}
}

// join takes a share of the next file; mine says that the caller must write it.
func (s *snapshots) join() (job *snapshotJob, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mine = s.mu.next == nil; mine {
		s.mu.next = &snapshotJob{done: make(chan struct{})}
	}
	s.mu.next.shares++
	return s.mu.next, mine
}

// leave gives a share back; the last one removes the file.
func (s *snapshots) leave(job *snapshotJob) {
	s.mu.Lock()
	job.shares--
	file := job.file
	if job.shares > 0 || file == nil {
		s.mu.Unlock()
		return
	}
	job.file = nil
	s.mu.Unlock()
	_ = file.Close() // it has no name any more
	<-s.places
}

// run writes the file of job when it is its turn.
func (s *snapshots) run(ctx context.Context, e *Engine, job *snapshotJob) {
	file, err := s.write(ctx, e, job)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", errRetry, ctx.Err())
	}
	s.mu.Lock()
	if s.mu.next == job { // it did not get as far as beginning
		s.mu.next = nil
	}
	job.file, job.err = file, err
	orphan := file != nil && job.shares == 0
	s.mu.Unlock()
	close(job.done)
	if orphan {
		_ = file.Close()
		<-s.places
	}
}

func (s *snapshots) write(ctx context.Context, e *Engine, job *snapshotJob) (file *etcdfile.Temp, err error) {
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() {
		if file == nil {
			<-s.places
		}
	}()
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	s.mu.Lock()
	s.mu.next = nil // who comes from here on may have written since
	s.mu.Unlock()
	_, inUse := e.keys().store.Size()
	if room, err := disk.FreeSpace(s.dir); err != nil {
		return nil, err
	} else if room < inUse+inUse/8+snapshotReserve {
		return nil, fmt.Errorf("%w: %d bytes are free, about %d are needed", ErrSnapshotSpace, room, inUse+inUse/8+snapshotReserve)
	}
	w, err := etcdfile.CreateTemp(s.dir)
	if err == nil {
		if file, err = e.exportTo(ctx, w); err != nil {
			err = errors.Join(err, w.Abort())
		}
	}
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("%w: %v", ErrSnapshotSpace, err)
	}
	return file, err
}

// SizeBytes is the length of the database.
func (s *Snapshot) SizeBytes() int64 { return s.job.file.SizeBytes }

// ReadAt reads from the database; any goroutine.
func (s *Snapshot) ReadAt(p []byte, off int64) (int, error) { return s.job.file.ReadAt(p, off) }

// Close gives the file up.
func (s *Snapshot) Close() {
	s.once.Do(func() { s.s.leave(s.job) })
}
