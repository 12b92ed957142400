package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"quire/wal"
)

const (
	// stallLook is how often the log is looked at; a look takes a mutex.
	stallLook = 100 * time.Millisecond
	// hungAfter ends the process when a write of the log has not ended. raft does so
	// by its own clock a little earlier; this one does not depend on raft's lock.
	hungAfter = 31 * time.Second
	// fatalStop is how long an end after a fault may take, orderlyStop any other. A
	// disk that does not answer would hold the process for ever.
	fatalStop, orderlyStop = 3 * time.Second, time.Minute
)

// stallWatch looks at the oldest write of the log. A write that takes longer than
// an election timeout is a stall: raft hands leadership over, /readyz fails, and
// one line at its begin and one at its end are logged.
type stallWatch struct {
	log   *zap.Logger
	wal   *wal.Log
	limit time.Duration // the election timeout
	die   func(error)

	since  atomic.Int64 // age of the write that stalls, in nanoseconds; 0: none does
	count  atomic.Uint64
	stopFn func()
}

func (s *stallWatch) start() { s.stopFn = background(s.run) }

func (s *stallWatch) stop() {
	if s.stopFn != nil {
		s.stopFn()
	}
}

func (s *stallWatch) run(ctx context.Context) {
	every(ctx, stallLook, func() { s.look(s.wal.Stats().OldestInFlight) })
}

// look takes note of how long the oldest write has been under way.
func (s *stallWatch) look(age time.Duration) {
	was := time.Duration(s.since.Load())
	stalls := age > s.limit
	switch {
	case stalls && was == 0:
		s.count.Add(1)
		s.log.Warn("the disk of the log stalls; this member cannot acknowledge anything", zap.Duration("took", age), zap.Duration("expected-duration", s.limit))
	case !stalls && was != 0:
		s.log.Warn("the disk of the log answers again", zap.Duration("stalled", was))
	}
	if !stalls {
		age = 0
	}
	s.since.Store(int64(age))
	if age > hungAfter {
		s.die(fmt.Errorf("the disk of the log does not answer: a write has not ended for %v", age.Round(time.Second)))
	}
}

// check fails while the log stalls; it is a check of /readyz.
func (s *stallWatch) check() error {
	if age := time.Duration(s.since.Load()); age > 0 {
		return fmt.Errorf("a write to the log has not ended for %v", age.Round(time.Millisecond))
	}
	return nil
}

// oldest is the age of the oldest write, for a metric.
func (s *stallWatch) oldest() float64 { return s.wal.Stats().OldestInFlight.Seconds() }
